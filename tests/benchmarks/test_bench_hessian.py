"""`kansciml bench hessian` compares like with like: the same Hessian, as many products; the rival does what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kansciml._files import to_jsonable
from kansciml.analysis.hessian import MatrixOperator, lanczos
from kansciml.benchmarks import hessian
from kansciml.benchmarks._hessian import accuracy, cases
from kansciml.benchmarks._hessian import pyhessian_like as rival
from kansciml.benchmarks._hessian.tables import iterations_and_errors
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN, to_textbook

TINY = {"image_size": 8, "channels": 1, "patch": 4, "width": 4, "depth": 1, "kan_hidden": (2, 2), "classes": 3}


@pytest.fixture(scope="module")
def tiny():
    return cases.make_problem(8, 2, dtype=torch.float64, **TINY)


@pytest.fixture(scope="module")
def spd():
    """A symmetric matrix of known spectrum, as a product on vectors of two parts."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))[0]
    values = torch.linspace(-1, 5, 60, dtype=torch.float64)
    matrix = basis @ torch.diag(values) @ basis.T
    return values, (matrix + matrix.T) / 2


def parts_of(vector):
    return [vector[:20].clone().reshape(4, 5), vector[20:].clone()]


def product_of(matrix):
    return lambda parts: parts_of(matrix @ torch.cat([part.flatten() for part in parts]))


def test_all_candidates_make_the_same_product(tiny):
    found = {}
    for name, make in cases.products(tiny).items():
        out = make()()
        found[name] = out if torch.is_tensor(out) else torch.cat([part.flatten() for part in out])
    assert set(found) == {cases.LOADER, cases.SINGLE, cases.OURS, cases.RECOMPUTED, cases.MICRO}
    for out in found.values():
        torch.testing.assert_close(out, found[cases.LOADER], rtol=1e-9, atol=1e-12)
    assert found[cases.LOADER].norm() > 0.1


def test_the_loader_weighs_batches_by_their_sizes(tiny):
    x, y = tiny.batch
    whole = rival.recomputed(tiny.module, cases.cross_entropy, [(x, y)])
    cut = rival.recomputed(tiny.module, cases.cross_entropy, [(x[:3], y[:3]), (x[3:], y[3:])])
    signs = rival.random_signs(tiny.parameters, torch.Generator().manual_seed(0))
    for first, second in zip(whole(signs), cut(signs)):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)
    assert all(p.grad is None for p in tiny.parameters)


def test_the_textbook_layers_are_the_same_function(tiny):
    copy = cases.make_problem(8, 2, dtype=torch.float64, **TINY)
    swapped = to_textbook(copy.module)
    kinds = {type(layer) for layer in swapped.modules()}
    assert TextbookKAN in kinds and SplineKAN not in kinds
    torch.testing.assert_close(swapped(tiny.batch[0]), tiny.module(tiny.batch[0]), rtol=1e-9, atol=1e-9)


def test_the_rivals_density_is_the_gauss_rule_of_lanczos(spd):
    _, matrix = spd
    start = torch.randn(60, generator=torch.Generator().manual_seed(3), dtype=torch.float64).sign()
    nodes, weights = rival.density(product_of(matrix), parts_of(start), 12)
    order = np.argsort(nodes)
    ours = lanczos(MatrixOperator(matrix), start, 12)
    ritz, vectors = ours.ritz()
    np.testing.assert_allclose(nodes[order], ritz, atol=3e-5)  # its T is float32, its norms are + 1e-6
    np.testing.assert_allclose(weights[order], vectors[0] ** 2, atol=3e-5)
    unit = start / start.norm()
    assert weights @ nodes == pytest.approx(float(unit @ matrix @ unit), abs=3e-5)


def test_the_rivals_vectors_are_made_orthogonal_once_and_divided_by_the_norm_and_a_millionth():
    first = [torch.tensor([1.0, 0.0]), torch.tensor([0.0])]
    w = [torch.tensor([3.0, 4e-6]), torch.tensor([3e-6])]
    (a, b) = rival.orthonormal(w, [first])
    np.testing.assert_allclose([*a.tolist(), *b.tolist()], [0, 4 / 6, 3 / 6], rtol=1e-5)  # norm 5e-6 + 1e-6


def test_the_rivals_trace_and_power_iteration_stop_by_themselves(spd):
    values, matrix = spd
    shapes = parts_of(torch.zeros(60, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    trace, count = rival.trace(product_of(matrix), shapes, generator)
    assert 2 <= count <= rival.ITERATIONS and trace == pytest.approx(float(values.sum()), rel=0.5)
    largest, count = rival.largest_eigenvalue(
        product_of(torch.diag(torch.arange(60.0).double() ** 4)), shapes, generator
    )
    assert count < rival.ITERATIONS and largest == pytest.approx(59.0**4, rel=0.05)
    identity = rival.trace(product_of(torch.eye(60, dtype=torch.float64)), shapes, generator)
    assert identity == (60.0, 2)


def test_errors_are_zero_for_the_exact_spectrum_and_as_counted_by_hand():
    exact = np.array([-1.0, 0.0, 0.5, 10.0])
    right = accuracy.Density(exact, np.ones(4), [1, 2, 2])
    assert set(accuracy.density_errors(exact, right).values()) == {0.0}
    wrong = accuracy.Density(exact + np.array([0.0, 0.0, 10.5, -1.0]), np.ones(4), [2, 2, 2])
    found = accuracy.density_errors(exact, wrong)
    assert found["trace"] == 1.0 and found["largest eigenvalue"] == pytest.approx(0.1)
    assert found["smallest eigenvalue"] == 0 and found["count above 0.1 of the largest"] == 0.25
    assert found["density (Wasserstein-1)"] == pytest.approx(9.5 / 11.5)  # distances 0, 0, 8.5 and 1


def test_both_sides_have_the_same_probe_and_no_more_products_than_agreed(monkeypatch):
    small = cases.make_problem(8, 2, dtype=torch.float64, **TINY)
    monkeypatch.setattr(accuracy, "small_problem", lambda: small)
    found = accuracy.compare(1)
    used = found["products"]
    assert used[accuracy.THEIRS] == used[accuracy.SAME] == 100 and 80 <= used[accuracy.BETTER] <= 100
    rows = {row["quantity"]: row for row in found["rows"]}
    assert rows["trace"][accuracy.SAME] == pytest.approx(rows["trace"][accuracy.THEIRS], abs=1e-4)
    assert rows["largest eigenvalue"][accuracy.SAME] < 1e-4
    assert small.parameters[0].dtype == torch.float64  # the truth was not rounded


def test_the_small_model_has_an_exact_spectrum_within_reach():
    assert 500 < accuracy.small_problem().size <= 1500


def test_errors_are_compared_where_float32_can_tell_them_apart():
    assert accuracy.no_worse(1e-9, 5e-6) and accuracy.no_worse(0.1, 0.104)
    assert not accuracy.no_worse(0.1, 0.2)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    stem = tmp_path_factory.mktemp("plot") / "hessian"
    threads = torch.get_num_threads()
    options = hessian.Options(width=8, depth=1, images=2, rounds=3, probes=0, backend="torch", plot=stem)
    document, tables = hessian.run(options, lambda line: None)
    assert torch.get_num_threads() == threads
    return document, tables


def test_the_document_is_json_with_every_candidate(smallest):
    document, tables = smallest
    assert json.loads(json.dumps(to_jsonable(document), allow_nan=False))["iterations"] == 100
    (result,) = document["results"]
    rows = {row["candidate"]: row for row in result["rows"]}
    assert set(rows) == {cases.LOADER, cases.SINGLE, cases.OURS, cases.RECOMPUTED, cases.MICRO}
    assert rows[cases.LOADER]["ratio"] == rows[cases.LOADER]["product_ratio"] == 1.0
    for row in rows.values():
        assert 0 < row["product_low_ms"] <= row["product_ms"] <= row["product_high_ms"]
        assert row["iteration_ms"] == row["product_ms"] + row["recurrence_ms"]
    assert rows[cases.SINGLE]["recurrence_ms"] == rows[cases.LOADER]["recurrence_ms"]
    assert rows[cases.OURS]["recurrence_ms"] == document["recurrence"][cases.OURS]
    assert rows[cases.OURS]["peak_bytes"] > rows[cases.RECOMPUTED]["peak_bytes"]  # a kept graph takes memory
    assert document["textbook"]["product_ms"] > 0
    assert document["plan"]["measured_bytes"] > document["plan"]["basis_bytes"]
    assert len(tables) == 3 and tables[-1].title == "Targets"
    assert all(Path(path).stat().st_size > 5000 for path in document["plots"])


def test_the_picture_shows_every_candidate_and_every_error(smallest):
    quantities = ("trace", "largest eigenvalue")
    errors = [{"quantity": q, accuracy.THEIRS: 0.1, accuracy.SAME: 0.0, accuracy.BETTER: 0.01} for q in quantities]
    figure = iterations_and_errors({**smallest[0], "accuracy": {"rows": errors}})
    left, right = figure.axes
    assert len(left.patches) == 2 * 5 and len(right.patches) == 2 * 3
    shown = [patch.get_width() for patch in left.patches[:5]]
    assert shown == [row["product_ms"] for row in smallest[0]["results"][0]["rows"]]
    assert [label.get_text() for label in right.get_yticklabels()] == list(quantities)


def test_targets_are_met_or_missed():
    def met(ratio: float, ours: float) -> list[bool]:
        row = {"quantity": "trace", accuracy.THEIRS: 0.1, accuracy.SAME: ours, accuracy.BETTER: 0.0}
        result = {"backend": "torch", "rows": [{"candidate": cases.OURS, "ratio": ratio}]}
        return [r["met"] for r in hessian.target_rows({"results": [result], "accuracy": {"rows": [row]}})]

    assert met(0.4, 0.1) == [True, True]
    assert met(0.6, 0.2) == [False, False]
