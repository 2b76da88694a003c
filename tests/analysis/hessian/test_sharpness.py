"""Sharpness: closed forms, invariance under rescaled layers, quadrature against all eigenvalues, verdicts."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.hessians import operator_with, squares
from torch import nn

from kansciml import KANConv2d, UsageError
from kansciml._files import to_jsonable
from kansciml.analysis.hessian import (
    Estimate,
    HessianOperator,
    MatrixOperator,
    Sharpness,
    adaptive_scale,
    compare_sharpness,
    filter_scale,
    matrix_of,
    sharpness,
)
from kansciml.layers.spline_kan import SplineKAN
from kansciml.runs import typed

EXACT_ALONE = {"positive_exact", "positive_exact_share", "zero_exact", "negative_exact"}
SPECTRUM = np.array([-1.0, 0.0, 0.0, 0.5, 2.0, 10.0])


def network():
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    data = [torch.randn(40, n, generator=generator, dtype=torch.float64) for n in (3, 2)]
    return module, tuple(data)


def measured(module, data, **options):
    operator = HessianOperator(module, squares, data)
    return sharpness(operator, module, **options)


def test_closed_forms_from_all_eigenvalues():
    found = sharpness(operator_with(SPECTRUM), loss=2.0, absolute=(1.0,), relative=(0.1,)).measures
    expected = {
        "top": 10.0,
        "bottom": -1.0,
        "top_over_loss": 5.0,
        "trace": 11.5,
        "mean": 11.5 / 6,
        "positive_count": 3,
        "positive_share": 0.5,
        "count_above_1": 2,
        "mass_above_1": 12 / 13.5,
        "count_above_0.1_top": 2,
        "effective_rank": 11.5**2 / (1 + 0.25 + 4 + 100),
        "negative_mass": 1 / 13.5,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-12) and found[name].standard_error == 0, name


def test_rescaling_the_layers_of_a_relu_net_changes_the_top_eigenvalue_but_not_the_scaled_ones():
    module, data = network()
    before = measured(module, data).measures
    with torch.no_grad():  # the same function: f(a z) = a f(z) for ReLU
        for parameter, factor in zip(module.parameters(), (7.0, 7.0, 1 / 7.0, 1.0)):
            parameter *= factor
    after = measured(module, data).measures
    assert after["top_over_loss"].value > 5 * before["top_over_loss"].value
    assert after["trace"].value > 5 * before["trace"].value
    scaled = [name for name in before if name.startswith(("adaptive_", "filter_"))]
    assert len(scaled) >= 12
    for name in scaled:
        # a number below zero near rounding: relative to the largest eigenvalue
        size = before[name.split("_")[0] + "_top"].value
        assert after[name].value == pytest.approx(before[name].value, rel=1e-9, abs=1e-10 * size), name


def test_the_loss_times_a_number_leaves_what_says_so():
    from kansciml.analysis.hessian._measures import LOSS, kinds

    module, data = network()
    operator = HessianOperator(module, lambda m, batch: 100 * squares(m, batch), data)
    before, after = measured(module, data).measures, sharpness(operator, module).measures
    for kind in kinds():
        if LOSS in kind.invariant:
            assert after[kind.name].value == pytest.approx(before[kind.name].value, rel=1e-8), kind.name
    assert after["top"].value == pytest.approx(100 * before["top"].value)


def test_quadrature_agrees_with_all_eigenvalues_within_its_errors():
    module, data = network()
    found = measured(module, data, exact="both", steps=30, probes=40, deflate=3)
    assert found.exact and {name for name in found.measures if name not in found.sampled} == EXACT_ALONE
    outside = []
    for name, sampled in found.sampled.items():
        error = 4 * sampled.standard_error + (sampled.upper - sampled.lower) / 2
        true = found.measures[name].value
        if abs(sampled.value - true) > error + 1e-6 * abs(found.measures["top"].value):
            outside.append((name, sampled, true))
    assert not outside


def test_deflation_is_what_makes_the_trace_of_a_matrix_with_one_outlier_known():
    values = np.concatenate([np.full(59, 0.01), [100.0]])
    operator = operator_with(values)
    errors = [
        sharpness(operator, exact="never", steps=10, probes=4, deflate=k).measures["trace"].standard_error
        for k in (0, 1)
    ]
    assert errors[0] > 1 and errors[1] < 1e-6


def test_filters_are_rows_of_a_linear_layer_and_outputs_or_edges_of_a_spline_layer():
    module = nn.Sequential(SplineKAN(3, 2, grid=2, bias=True), nn.Linear(2, 4)).double()
    operator = HessianOperator(module, lambda m, x: m(x).square().mean(), torch.rand(5, 3).double())
    spline, linear = module[0], module[1]
    by_output = operator.split(filter_scale(operator, module))
    by_edge = operator.split(filter_scale(operator, module, kan_filters="edge"))
    assert torch.allclose(by_output["1.weight"], linear.weight.norm(dim=1, keepdim=True).expand(4, 2))
    assert torch.allclose(by_output["0.spline_weight"][1, 2, 1], spline.spline_weight[:, :, 1].norm())
    assert torch.allclose(by_output["0.base_weight"][1, 1], spline.base_weight[:, 1].norm())
    assert torch.allclose(by_edge["0.spline_weight"][1, 2, 1], spline.spline_weight[1, :, 1].norm())
    assert torch.allclose(by_edge["0.spline_scale"], spline.spline_scale.abs())
    assert torch.allclose(by_output["0.bias"], spline.bias.abs())
    adaptive = operator.split(adaptive_scale(operator, module))
    assert all(torch.equal(adaptive[name], p.detach().abs()) for name, p in module.named_parameters())
    with pytest.raises(UsageError, match="unknown kan_filters 'row': expected one of output, edge"):
        filter_scale(operator, module, kan_filters="row")


def test_a_filter_of_a_kan_convolution_is_what_feeds_an_output_channel():
    module = KANConv2d(4, 6, 2, groups=2, grid=2, dtype=torch.float64)
    operator = HessianOperator(module, lambda m, x: m(x).square().mean(), torch.rand(3, 4, 3, 3).double())
    found, by_edge = (operator.split(filter_scale(operator, module, kan_filters=one)) for one in ("output", "edge"))
    truth = module.spline_weight[2:, :, 8:12].norm()  # the third output of the second group, all of its taps
    assert torch.allclose(found["spline_weight"][3, 1, 9], truth)
    assert torch.allclose(found["base_weight"][2, 8:12], module.base_weight[2:, 8:12].norm())
    assert torch.allclose(by_edge["spline_weight"][1, 2, 7], module.spline_weight[1, :, 7].norm())


def test_a_stopped_run_resumes_and_gives_the_same_numbers(tmp_path):
    module, data = network()
    for options in ({"exact": "never", "steps": 12, "probes": 3}, {"exact": "auto"}):
        whole = measured(module, data, **options)
        folder = tmp_path / options["exact"]
        calls = []

        def stop(done, total, what, calls=calls):
            calls.append(what)
            if done == 2 * total // 3:
                raise KeyboardInterrupt

        if options["exact"] == "never":
            with pytest.raises(KeyboardInterrupt):
                measured(module, data, checkpoints=folder, progress=stop, **options)
            assert list(folder.iterdir())
        again = measured(module, data, checkpoints=folder, **options)
        assert again.measures == whole.measures
        assert measured(module, data, checkpoints=folder, **options).measures == whole.measures


def test_a_matrix_from_products_is_the_matrix(tmp_path):
    matrix = operator_with(np.arange(20.0)).matrix
    path = tmp_path / "matrix.npz"
    assert torch.allclose(matrix_of(MatrixOperator(matrix), checkpoint=path), matrix, atol=1e-14)
    with pytest.raises(UsageError, match="saved with fingerprint"):
        matrix_of(MatrixOperator(2 * matrix), checkpoint=path)


def test_it_survives_json():
    found = sharpness(operator_with(SPECTRUM), exact="both", loss=1.0, probes=3)
    back = typed.read(Sharpness, json.loads(json.dumps(to_jsonable(found.to_json()))))
    assert back == found
    assert set(found.arrays()) == {f"plain.{key}" for key in ("nodes", "weights", "locked", "eigenvalues")}


def one(value, error=0.0, **bounds):
    return Sharpness(10, 1.0, {"top": Estimate(value, error, 5, **bounds), "effective_rank": Estimate(value, error, 5)})


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (one(3.0, 0.1), one(2.0, 0.1), "sharper"),
        (one(2.0, 0.1), one(3.0, 0.1), "flatter"),
        (one(2.2, 0.1), one(2.0, 0.1), "undecided"),
        (one(3.0, math.nan), one(2.0, 0.1), "undecided"),
        (one(2.0), one(2.0), "undecided"),
        (one(2.0), one(2.0 * (1 + 1e-12)), "undecided"),  # rounding
        (one(3.0, 0.1, lower=1.0, upper=5.0), one(2.0, 0.1), "undecided"),  # what quadrature cannot resolve
    ],
)
def test_a_pair_is_told_apart_by_standard_errors(a, b, expected):
    top, rank = compare_sharpness(a, b)
    assert (top.measure, top.verdict) == ("top", expected) and math.isnan(top.outcome.p_value)
    assert expected == "undecided" or (top.outcome.low > 0) == (expected == "sharper") == (top.outcome.effect > 0)
    assert rank.verdict == ""  # describes, does not judge


def test_seeds_are_compared_in_pairs_and_corrected_for_the_measures_that_judge():
    low, high = ({seed: one(start + 0.1 * seed) for seed in range(6)} for start in (1.0, 2.0))
    row, described = compare_sharpness(high, low)
    assert row.verdict == row.corrected == "sharper" and row.outcome.p_value == 2 / 64
    assert row.outcome.effect == pytest.approx(1) and row.outcome.family == 1 and described.corrected == ""
    assert (row.pairs_sharper, row.pairs_flatter, row.pairs) == (6, 0, 6)
    assert compare_sharpness(low, high)[0].verdict == "flatter"
    few = compare_sharpness({seed: high[seed] for seed in (1, 2, 9) if seed in high}, low)[0]
    assert few.verdict == "undecided" and "take 6 seeds" in few.outcome.why and few.pairs_sharper == few.pairs == 2
    both = {seed: replace(own, measures={**own.measures, "trace": own.measures["top"]}) for seed, own in high.items()}
    base = {seed: replace(own, measures={**own.measures, "trace": own.measures["top"]}) for seed, own in low.items()}
    top, trace, _ = compare_sharpness(both, base)
    assert (top.verdict, top.corrected, trace.outcome.adjusted_p) == ("sharper", "undecided", 2 * 2 / 64)
    with pytest.raises(UsageError, match="got 0 and 6 models"):
        compare_sharpness({}, low)
    with pytest.raises(UsageError, match="no measure in common"):
        compare_sharpness(one(1.0), replace(one(1.0), measures={}))


@pytest.mark.parametrize(
    "options, message",
    [({"exact": "maybe"}, "unknown exact 'maybe'"), ({"absolute": (0.0,)}, "expected positive numbers"),
     ({"scales": {"layer": torch.ones(6)}}, "got scales layer")],
)  # fmt: skip
def test_bad_requests(options, message):
    with pytest.raises(UsageError, match=message):
        sharpness(operator_with(SPECTRUM), **options)


def test_both_halves_of_a_complex_weight_get_its_modulus_and_transposed_convolutions_their_outputs():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.tensor([3.0 + 4.0j, 1.0j], dtype=torch.complex128))
            self.up = nn.ConvTranspose1d(2, 3, 2, bias=False).double()

        def forward(self, x):
            return self.up((self.mix[:, None] * x).abs())

    module = Mixed()
    x = torch.rand(4, 2, 5, dtype=torch.float64)
    operator = HessianOperator(module, lambda m, batch: m(batch).square().mean(), x)
    assert adaptive_scale(operator, module)[:4].tolist() == pytest.approx([5, 5, 1, 1])
    filters = operator.split(filter_scale(operator, module))["up.weight"]
    assert torch.allclose(filters[0, 1], module.up.weight[:, 1].norm())
    first = operator.split(filter_scale(operator, module, axes={"up.weight": 0}))["up.weight"]
    assert torch.allclose(first[1, 2], module.up.weight[1].norm())
    with pytest.raises(UsageError, match="got axis 3 for up.weight"):
        filter_scale(operator, module, axes={"up.weight": 3})
