"""`kansciml bench fno`: one function in each kind of layer, and on tensors without data the bytes of real ones."""

import json
from functools import partial

import pytest
import torch

from kansciml import cli
from kansciml._files import to_jsonable
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks import fno
from kansciml.experiments.fig4b.experiment import DARCY
from kansciml.experiments.memory.steps import Measured, measure_fake
from kansciml.models.registry import build_model

TINY = {"width": 4, "modes": (3, 3), "iterations": 2, "projection": 6}
SIDE = 15


@pytest.fixture
def small(monkeypatch):
    """All models small."""
    build = steps.build
    monkeypatch.setattr(steps, "build", lambda model, name, **options: build(model, name, **{**TINY, **options}))


@pytest.fixture(scope="module")
def rows():
    return fno.memory_rows("fno-wt", SIDE, **TINY)


def test_the_three_spline_kans_are_one_function_with_one_gradient():
    cases = fno.make_cases("fno-wt", SIDE, 2, **TINY)
    assert list(cases) == steps.available()
    found = {}
    for name, case in cases.items():
        case.gradient()
        found[name] = case.loss(case.network).item(), sum(p.grad.abs().sum() for p in case.network.parameters()).item()
    for name in set(cases) & {steps.TORCH, steps.CPP}:
        assert found[name] == pytest.approx(found[steps.TEXTBOOK], rel=1e-3)


@pytest.mark.parametrize("name", [steps.MLP, steps.TEXTBOOK, steps.TORCH])
def test_bytes_without_data_are_those_of_real_tensors_and_of_figure_4b(rows, name):
    row = steps.row_of(rows, name)
    real = fno.make_cases("fno-wt", SIDE, 1, **TINY)[name].activations()
    assert (row["saved_bytes"], row["peak_bytes"]) == (real.saved_bytes, real.peak_bytes)
    variant = {steps.MLP: "mlp", steps.TEXTBOOK: "textbook", steps.TORCH: "kan-spline"}[name]
    model = Measured("", "", partial(build_model, "fno-wt", resolution=SIDE, **TINY))
    assert measure_fake(model.network(variant), DARCY, 1).saved_bytes == row["saved_bytes"]
    assert row["saved_over_mlp"] == row["saved_bytes"] / steps.row_of(rows, steps.MLP)["saved_bytes"]


def test_the_document_is_json_with_steps_memory_and_targets(small):
    threads = torch.get_num_threads()
    options = fno.Options(resolution=SIDE, batch_size=2, memory_resolution=17, rounds=3)
    document, tables = fno.run(options, lambda line: None)
    assert torch.get_num_threads() == threads and document["machine"]["threads"] == 1
    assert json.loads(json.dumps(to_jsonable(document), allow_nan=False))["rounds"] == 3
    (result,) = document["results"]
    assert [row["layer"] for row in result["rows"]] == steps.available()
    rows = result["memory"]["rows"]
    assert [row["layer"] for row in rows] == list(fno.FAKED) and result["memory"]["resolution"] == 17
    textbook, ours = (steps.row_of(rows, name)["saved_bytes"] for name in (steps.TEXTBOOK, steps.TORCH))
    assert ours < textbook
    assert [table.title.split()[0] for table in tables] == ["A", "Memory", "Targets"]
    assert [row["met"] for row in document["targets"] if row["reached"] is None] == [None] * (
        len(steps.OURS) - len(set(steps.OURS) & set(steps.available()))
    )


def test_memory_can_be_left_out_and_is_for_a_model_in_equilibrium(small):
    for model, side in (("fno-wt", 0), ("fno-deq", 29)):
        options = fno.Options(models=(model,), resolution=SIDE, batch_size=1, memory_resolution=side, rounds=3)
        document, tables = fno.run(options, lambda line: None)
        assert document["results"][0]["memory"] is None and len(tables) == 2


@pytest.mark.parametrize("reached, met", [(1.2, True), (1.4, False), (None, None)])
def test_a_target_is_met_missed_or_not_measured(reached, met):
    row = {"layer": steps.TORCH, **({"step_over_mlp": reached} if reached else {})}
    found = fno.target_rows({"results": [{"model": "fno-wt", "rows": [row]}]})
    assert [one["met"] for one in found if one["target"].endswith(steps.TORCH)] == [met]


def test_quick_leaves_alone_what_was_said():
    options = fno._checked(fno.Options(quick=True, resolution=85))
    assert (options.resolution, options.batch_size, options.memory_resolution, options.rounds) == (85, 2, 85, 3)


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--models mixer-nano", "unknown model 'mixer-nano': expected one of fno-deq"),
        ("--resolution 8", "got resolution 8, with padding 9"),
        ("--memory-resolution 3", "got memory_resolution 3, with padding 9"),
        ("--resolution 0", "got resolution 0"),
        ("--rounds 1", "got rounds 1: expected at least 3"),
        ("--batch-size 0", "got batch_size 0: expected at least 1"),
    ],
)
def test_a_mistake_is_one_line(capsys, flags, message):
    assert cli.main(["bench", "fno", *flags.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
