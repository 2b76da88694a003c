"""Steps that `kansciml bench vision` and `fno` measure: one function in each kind of layer, bytes counted by hand."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from kansciml._files import to_jsonable
from kansciml.benchmarks import _loop_cases as loops
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks import fno, vision
from kansciml.experiments.fig4b.experiment import DARCY
from kansciml.experiments.memory.steps import IMAGES, Measured, measure_fake
from kansciml.models.registry import build_model

SIDE = 15
TINY_MIXER = {"width": 8, "depth": 1, "image_size": 8, "token_hidden": 8, "channel_hidden": 8}
TINY_FNO = {"width": 4, "modes": (3, 3), "iterations": 2, "projection": 6}


@pytest.fixture
def small(monkeypatch):
    """All models small."""
    build = steps.build

    def small_build(model, name, **options):
        sizes = TINY_FNO if model.startswith("fno") else {"width": 8, "depth": 1}
        return build(model, name, **{**sizes, **options})

    monkeypatch.setattr(steps, "build", small_build)


@pytest.fixture(scope="module")
def cases():
    return {
        "vision": steps.make_cases("mixer-nano", vision.image_loss, 4, **TINY_MIXER),
        "fno": steps.make_cases("fno-wt", fno.field_loss, 1, kind="operator", resolution=SIDE, **TINY_FNO),
    }


@pytest.fixture(scope="module")
def memory():
    return fno.memory_rows("fno-wt", SIDE, **TINY_FNO)


@pytest.mark.parametrize("kind", ["vision", "fno"])
def test_the_three_spline_kans_are_one_function_with_one_gradient(cases, kind):
    assert list(cases[kind]) == steps.available()
    found = {}
    for name, case in cases[kind].items():
        case.optimiser.zero_grad()
        case.gradient()
        found[name] = case.loss(case.network).item(), sum(p.grad.abs().sum() for p in case.network.parameters()).item()
    for name in set(found) & {steps.TORCH, steps.CPP}:
        assert found[name] == pytest.approx(found[steps.TEXTBOOK], rel=1e-3)
    assert found[steps.RSWAF] != pytest.approx(found[steps.TEXTBOOK], rel=1e-3)


def test_activations_agree_with_a_count_by_hand_and_gradients_are_not_among_them():
    x = torch.randn(64, 32)
    case = steps.Case(nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 2000)), lambda net: net(x).sum())
    case.step()
    use = case.activations()
    assert use.saved_bytes == 4 * 64 * (32 + 48 + 48)  # x, what SiLU is given, what it gives
    outputs, weight = 4 * 64 * 2000, 4 * 2000 * 48
    assert use.peak_bytes < 4 * 64 * 2 * 48 + 2 * outputs + weight  # the transient gradient, not one that stays beside
    assert use.peak_bytes >= outputs and use.live_bytes < 100


@pytest.mark.parametrize(
    ("name", "variant"), [(steps.MLP, "mlp"), (steps.TEXTBOOK, "textbook"), (steps.TORCH, "kan-spline")]
)
@pytest.mark.parametrize("kind", ["vision", "fno"])
def test_bytes_are_those_of_figure_4_and_of_tensors_without_data(cases, memory, kind, name, variant):
    use = cases[kind][name].activations()
    if kind == "vision":
        model = Measured("", "", partial(build_model, "mixer-nano", **TINY_MIXER))
        assert use.saved_bytes == measure_fake(model.network(variant), IMAGES, 4).saved_bytes
    else:
        model = Measured("", "", partial(build_model, "fno-wt", resolution=SIDE, **TINY_FNO))
        assert use.saved_bytes == measure_fake(model.network(variant), DARCY, 1).saved_bytes
        row = steps.row_of(memory, name)
        assert (row["saved_bytes"], row["peak_bytes"]) == (use.saved_bytes, use.peak_bytes)
        assert row["saved_over_mlp"] == row["saved_bytes"] / steps.row_of(memory, steps.MLP)["saved_bytes"]


def test_more_work_gives_a_larger_ratio():
    x = torch.randn(256, 64)

    def case(times):
        return steps.Case(nn.Linear(64, 64), lambda net: sum(net(x).square().mean() for _ in range(times)))

    first, second = steps.measure_cases({steps.MLP: case(1), steps.TEXTBOOK: case(100)}, 5)
    assert first["step_over_mlp"] == 1.0 and second["step_over_mlp"] > 3
    assert second["saved_over_mlp"] > 10 and first["saved_over_textbook"] < 0.1
    (alone,) = steps.measure_cases({steps.TORCH: case(1)}, 3)
    assert alone["step_over_mlp"] is None and alone["peak_over_textbook"] is None


def run_small(benchmark, **options):
    """The document, checked to be JSON measured on one thread with every layer, and the first words of its tables."""
    threads = torch.get_num_threads()
    document, tables = benchmark.run(benchmark.Options(rounds=3, **options), lambda line: None)
    assert torch.get_num_threads() == threads and document["machine"]["threads"] == 1
    assert json.loads(json.dumps(to_jsonable(document), allow_nan=False))["rounds"] == 3
    for result in document["results"]:
        assert [row["layer"] for row in result["rows"]] == steps.available()
        for row in result["rows"]:
            assert 0 < row["step_low_ms"] <= row["step_ms"] <= row["step_high_ms"] and row["saved_bytes"] > 0
    return document, [table.title.split()[0] for table in tables]


def test_the_document_of_vision_has_every_model_and_target(small):
    document, titles = run_small(vision, batch_size=2, loop_batch_size=2, loop_steps=2)
    assert [result["model"] for result in document["results"]] == ["mixer-nano", "conv-mixer-128-4"]
    assert len(document["targets"]) == 1 + 3 * 2 * len(steps.OURS) and titles == ["Training", "A", "A", "Targets"]


def test_the_document_of_fno_has_steps_memory_and_targets(small):
    document, titles = run_small(fno, resolution=SIDE, batch_size=2, memory_resolution=17)
    memory = document["results"][0]["memory"]
    assert [row["layer"] for row in memory["rows"]] == list(fno.FAKED) and memory["resolution"] == 17
    textbook, ours = (steps.row_of(memory["rows"], name)["saved_bytes"] for name in (steps.TEXTBOOK, steps.TORCH))
    assert ours < textbook and titles == ["A", "Memory", "Targets"]
    unmeasured = [row["met"] for row in document["targets"] if row["reached"] is None]
    assert unmeasured == [None] * len(set(steps.OURS) - set(steps.available()))


def test_memory_can_be_left_out_and_is_for_a_model_in_equilibrium(small):
    for model, side in (("fno-wt", 0), ("fno-deq", 29)):
        document, titles = run_small(fno, models=(model,), resolution=SIDE, batch_size=1, memory_resolution=side)
        assert document["results"][0]["memory"] is None and len(titles) == 2


def vision_document(over_bare, over_textbook):
    keys = ("step_over_textbook", "saved_over_textbook", "peak_over_textbook")
    row = {"layer": steps.TORCH, **dict.fromkeys(keys, over_textbook)}
    loop = {"rows": [{"loop": loops.BARE, "over_bare": 1.0}, {"loop": loops.LOOP, "over_bare": over_bare}]}
    return {"loop": loop, "results": [{"model": "mixer-nano", "rows": [row]}]}


def test_targets_of_vision_are_met_missed_or_not_measured():
    def met(document):
        return [row["met"] for row in vision.target_rows(document)
                if not row["target"].endswith((steps.CPP, steps.RSWAF))]  # fmt: skip

    assert met(vision_document(0.95, 0.1)) == [True] * 4 and met(vision_document(0.8, 0.5)) == [False] * 4
    assert met(vision_document(0.95, 0.3)) == [True, True, False, False]  # an eighth of the memory
    assert vision.target_rows(vision_document(1.0, 0.1))[-1]["met"] is None


@pytest.mark.parametrize("reached, met", [(1.2, True), (1.4, False), (None, None)])
def test_a_target_of_fno_is_met_missed_or_not_measured(reached, met):
    row = {"layer": steps.TORCH, **({"step_over_mlp": reached} if reached else {})}
    found = fno.target_rows({"results": [{"model": "fno-wt", "rows": [row]}]})
    assert [one["met"] for one in found if one["target"].endswith(steps.TORCH)] == [met]


@pytest.mark.parametrize("batch_size", [5, 8, None])
def test_what_was_said_stays_also_where_it_is_the_standard_of_another_device(batch_size):
    def sizes(**options):
        found = vision.settled(vision.Options(batch_size=batch_size, **options))
        return found.batch_size, found.loop_steps, found.rounds

    assert sizes() == (batch_size or 8, 12, 5) and sizes(quick=True) == (batch_size or 2, 4, 3)
    assert sizes(device="cuda") == (batch_size or 64, 12, 5)
    assert vision.settled(vision.Options(device="cuda")).models == ("deit-tiny",)
    for quick, (first, second, rounds) in {False: (8, 421, 5), True: (2, 85, 3)}.items():
        found = fno.settled(fno.Options(resolution=43, batch_size=batch_size, quick=quick))
        assert (found.resolution, found.batch_size) == (43, batch_size or first)
        assert (found.memory_resolution, found.rounds) == (second, rounds)
