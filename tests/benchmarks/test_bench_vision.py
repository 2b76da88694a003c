"""`kansciml bench vision` compares like with like: equal trainings, equal functions, bytes as counted by hand."""

import copy
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from kansciml import cli
from kansciml._errors import UsageError
from kansciml._files import to_jsonable
from kansciml.benchmarks import _loop_cases as loops
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks import vision
from kansciml.experiments.memory.steps import IMAGES, Measured, measure_fake
from kansciml.experiments.vision.steps import SmoothedLoss
from kansciml.models.registry import build_model

SMALL = {"width": 8, "depth": 1}
TINY = {**SMALL, "image_size": 8, "token_hidden": 8, "channel_hidden": 8}


@pytest.fixture
def small(monkeypatch):
    """All models small."""
    build = steps.build
    monkeypatch.setattr(steps, "build", lambda model, name, **options: build(model, name, **{**SMALL, **options}))


@pytest.fixture(scope="module")
def work():
    return loops.Work.make(steps.build("conv-mixer-128-4", steps.MLP, **SMALL), batch_size=4, steps=5)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_both_loops_end_with_the_same_weights(work):
    ours, bare, other = (copy.deepcopy(work.network) for _ in range(3))
    inputs, labels = loops.normalised(work.batches)
    order = work.batches.order(0)
    taken = [loops.looped(ours, work.batches, work.config), loops.bare(bare, inputs, labels, order, work.config)]
    assert all(one.steps_s > 0 and one.rest_s >= 0 for one in taken)
    torch.testing.assert_close(weights(ours), weights(bare), rtol=1e-5, atol=1e-6)
    loops.bare(other, inputs, labels, order, replace(work.config, schedule="constant"))
    assert (weights(other) - weights(bare)).abs().max() > 1e-4  # so the agreement is that of the schedules too
    assert (weights(work.network) - weights(bare)).abs().max() > 1e-4  # and the first weights are kept for the next


def test_the_images_of_the_bare_loop_are_those_of_the_batches(work):
    inputs, labels = loops.normalised(work.batches)
    rows = work.batches.order(0).split(4)
    for own, batch in zip(rows, work.batches.epoch()):
        assert torch.equal(inputs[own], batch.inputs) and torch.equal(labels[own], batch.labels)


def test_the_loss_is_the_one_that_kansciml_vision_trains_with(work):
    batch = next(work.batches.epoch())
    network = copy.deepcopy(work.network).eval()
    (loss, sums), (known, theirs) = loops.classification(network, batch), SmoothedLoss(0.0)(network, batch)
    assert torch.equal(loss, known) and sums["count"] == theirs["count"] and sums["accuracy"] == theirs["accuracy"]


def test_throughput_is_images_over_seconds_in_turns(work):
    told = []
    bare, ours = loops.throughput(work, 3, told.append)
    assert told == 4 * [loops.BARE, loops.LOOP]  # each once before
    assert bare["over_bare"] == 1.0 and 0.1 < ours["over_bare"] < 3
    for row in (bare, ours):
        assert 0 < row["images_low_per_s"] <= row["images_per_s"] <= row["images_high_per_s"]
    assert ours["rest_ms"] > bare["rest_ms"]  # it writes checkpoints


def test_the_three_spline_kans_are_one_function_with_one_gradient():
    cases = vision.make_cases("mixer-nano", 4, **TINY)
    assert list(cases) == steps.available()
    found = {}
    for name, case in cases.items():
        case.gradient()
        found[name] = case.loss(case.network).item(), sum(p.grad.abs().sum() for p in case.network.parameters()).item()
    for name in set(cases) & {steps.TORCH, steps.CPP}:
        assert found[name] == pytest.approx(found[steps.TEXTBOOK], rel=1e-4)
    assert found[steps.RSWAF] != pytest.approx(found[steps.TEXTBOOK], rel=1e-4)


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
    "name, variant", [(steps.MLP, "mlp"), (steps.TEXTBOOK, "textbook"), (steps.TORCH, "kan-spline")]
)
def test_networks_and_bytes_are_those_of_figure_4a(name, variant):
    model = Measured("", "", partial(build_model, "mixer-nano", **TINY))
    known = measure_fake(model.network(variant), IMAGES, 4)
    assert vision.make_cases("mixer-nano", 4, **TINY)[name].activations().saved_bytes == known.saved_bytes


def test_more_work_gives_a_larger_ratio():
    x = torch.randn(256, 64)

    def case(times):
        return steps.Case(nn.Linear(64, 64), lambda net: sum(net(x).square().mean() for _ in range(times)))

    first, second = steps.measure_cases({steps.MLP: case(1), steps.TEXTBOOK: case(100)}, 5)
    assert first["step_over_mlp"] == 1.0 and second["step_over_mlp"] > 3
    assert second["saved_over_mlp"] > 10 and first["saved_over_textbook"] < 0.1
    (alone,) = steps.measure_cases({steps.TORCH: case(1)}, 3)
    assert alone["step_over_mlp"] is None and alone["peak_over_textbook"] is None


def test_the_document_is_json_with_every_layer_and_target(small):
    threads = torch.get_num_threads()
    options = vision.Options(batch_size=2, loop_batch_size=2, loop_steps=2, rounds=3)
    document, tables = vision.run(options, lambda line: None)
    assert torch.get_num_threads() == threads and document["machine"]["threads"] == 1
    assert json.loads(json.dumps(to_jsonable(document), allow_nan=False))["rounds"] == 3
    assert [result["model"] for result in document["results"]] == ["mixer-nano", "conv-mixer-128-4"]
    for result in document["results"]:
        assert [row["layer"] for row in result["rows"]] == steps.available()
        for row in result["rows"]:
            assert 0 < row["step_low_ms"] <= row["step_ms"] <= row["step_high_ms"] and row["saved_bytes"] > 0
    assert len(document["targets"]) == 1 + 3 * 2 * len(steps.OURS)
    assert [table.title.split()[0] for table in tables] == ["Training", "A", "A", "Targets"]


def measured(over_bare, over_textbook):
    keys = ("step_over_textbook", "saved_over_textbook", "peak_over_textbook")
    row = {"layer": steps.TORCH, **dict.fromkeys(keys, over_textbook)}
    loop = {"rows": [{"loop": loops.BARE, "over_bare": 1.0}, {"loop": loops.LOOP, "over_bare": over_bare}]}
    return {"loop": loop, "results": [{"model": "mixer-nano", "rows": [row]}]}


def test_targets_are_met_missed_or_not_measured():
    def met(document):
        return {row["target"].partition(" over")[0]: row["met"] for row in vision.target_rows(document)
                if not row["target"].endswith((steps.CPP, steps.RSWAF))}  # fmt: skip

    kinds = ("throughput of kansciml.training.loop", "time of a step", "saved for backward", "peak of activations")
    assert met(measured(0.95, 0.1)) == dict.fromkeys(kinds, True)
    assert met(measured(0.8, 0.5)) == dict.fromkeys(kinds, False)
    assert list(met(measured(0.95, 0.3)).values()) == [True, True, False, False]  # an eighth of the memory
    assert vision.target_rows(measured(1.0, 0.1))[-1]["met"] is None


def test_quick_leaves_alone_what_was_said():
    options = vision._checked(vision.Options(quick=True, batch_size=5))
    assert (options.batch_size, options.loop_steps, options.rounds) == (5, 4, 3)
    assert vision._checked(vision.Options()) == vision.Options()


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--models resnet", "unknown model 'resnet': expected one of"),
        ("--models mixer-nano mixer-nano", "expected one or more different names"),
        ("--rounds 2", "got rounds 2: expected at least 3"),
        ("--batch-size 1", "got batch_size 1: expected at least 2"),
        ("--loop-steps 0", "got loop_steps 0: expected at least 2"),
    ],
)
def test_a_mistake_is_one_line(capsys, flags, message):
    assert cli.main(["bench", "vision", *flags.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_name_that_is_no_vision_model_is_refused_by_both_kinds():
    with pytest.raises(UsageError, match="unknown model 'fno-wt'"):
        steps.check_models(("fno-wt",), "vision")
    assert steps.check_models(("fno-wt",), "operator")[0][1] == "wt"
