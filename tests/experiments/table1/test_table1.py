"""Table 1: counts that the paper's numbers fix, operations and memory against independent counts, and the protocols."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kansciml import UsageError
from kansciml.experiments.table1 import costs as _table1_costs
from kansciml.experiments.table1 import experiment as table1
from kansciml.experiments.table1.costs import (
    PRINTED,
    costs,
    measured_step,
    published_rows,
    step_memory,
)
from kansciml.experiments.table1.experiment import EXPERIMENT, Table1Config, check, deviations, jobs, rows, trained
from kansciml.models.deit import Deit, DeitConfig
from kansciml.models.registry import find
from kansciml.runs.config_json import with_settings
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment

TINY = with_settings(
    Table1Config(sizes=("tiny",), match=("params",), shrink=16),
    {
        "seeds": 1, "dataset": "digits", "subset": 100, "image_size": 8, "patch": 4, "depth": 1, "epochs": 1,
        "batch_size": 32, "augmentation": "none", "accelerator": "cpu", "spectra.steps": 3, "spectra.probes": 2,
        "spectra.deflate": 1, "spectra.samples": 8, "spectra.exact": "never",
    },
)  # fmt: skip


@pytest.fixture
def no_memory(monkeypatch):
    """Steps are not measured: a test of something else need not wait for them."""
    monkeypatch.setattr(_table1_costs, "measured_step", lambda config, batch: (batch * config.width, batch, 0))
    costs.cache_clear()
    yield
    costs.cache_clear()


def seeded(**settings):
    """The paper's settings with others, for one seed."""
    return with_settings(Table1Config(**settings), {"seeds": 1})


def run(config, folder, **options):
    return run_experiment(EXPERIMENT, config, results=folder, log=lambda line: None, **options)


def test_all_rows_hold_what_was_counted_independently(no_memory):
    steps = []
    found = {(row.size, row.group): row for row in published_rows(("params", "flops"), steps.append)}
    expected = {
        ("tiny", "mlp"): (5_543_716, 0),
        ("small", "mlp"): (21_704_164, 0),
        ("base", "mlp"): (85_875_556, 0),
        ("tiny", "kan-spline"): (10_833_700, 3_550_464),
        ("tiny", "kan-rswaf"): (9_073_636, 3_550_464),
        ("small", "kan-spline"): (25_206_244, 14_178_816),
        ("small", "kan-rswaf"): (21_681_316, 14_178_816),
    }
    assert {key: (row.parameters, row.dead) for key, row in found.items() if row.protocol == "paper"} == expected
    for row in found.values():
        if row.protocol == "paper":  # printed in tenths of a million, cut or rounded
            assert abs(row.parameters + row.dead - row.printed_parameters) < 100_000
            continue
        name = {"params": "parameters", "flops": "mixing_flops"}[row.match]
        mlp = found[row.size, "mlp"]
        assert getattr(row, name) == pytest.approx(getattr(mlp, name), rel=0.012)
        assert row.label.endswith(f"equal {row.match}, fair") and row.dead == 0 and "printed_top1" not in row.to_json()
    assert sum(steps) == len(found) == len(PRINTED) + 2 * 4


def test_operations_outside_the_mlps_are_those_pytorch_counts():
    config = DeitConfig(image_size=32, patch=8, width=48, heads=3, depth=3, classes=7)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        Deit(config).eval()(torch.zeros(1, 3, 32, 32))
    mlps = 3 * config.tokens * 2 * 2 * 48 * 192
    assert counter.get_total_flops() - mlps == config.other_flops


@pytest.mark.parametrize(("size", "giga_macs"), [("tiny", 1.3), ("small", 4.6), ("base", 17.6)])
def test_operations_of_the_mlp_models_are_deits_published_ones(no_memory, size, giga_macs):
    model, preset = find(f"deit-{size}")
    flops = costs(f"deit-{size}", model.config(preset)).flops
    assert flops / 2e9 == pytest.approx(giga_macs, rel=0.05)


@pytest.fixture
def depths(monkeypatch):
    """Depths of the networks whose step is measured."""
    found = []
    monkeypatch.setattr(
        _table1_costs, "measured_step", lambda one, batch: found.append(one.depth) or measured_step(one, batch)
    )
    return found


@pytest.mark.parametrize("variant", ["mlp", "kan-spline", "kan-rswaf"])
def test_memory_of_a_deep_network_follows_from_two_shallow_ones(variant, depths):
    config = DeitConfig(variant=variant, image_size=32, patch=8, width=48, heads=3, depth=4)
    assert step_memory(config, 64) == measured_step(config, 64)[:2] and depths == [2, 3]


def test_where_gradients_make_the_peak_the_network_itself_is_measured(depths):
    config = DeitConfig(image_size=32, patch=8, width=96, depth=4)
    step, kept = step_memory(config, 1)
    assert depths == [2, 3, 4] and step == measured_step(config, 1)[0] > kept


def test_one_training_of_an_mlp_serves_both_protocols():
    def protocols(config):
        return {(row.size, job.group): row.protocol for row in rows(config) for job in row.jobs()}

    config = seeded()
    found = protocols(config)
    assert found["tiny", "mlp"] == found["base", "mlp"] == "paper+fair"
    assert found["small", "kan-rswaf"] == "paper" and found["small", "kan-rswaf-flops"] == "fair"
    assert len(found) == len(jobs(config)) == 7 + 8
    assert {group for size, group in found if size == "base"} == {"mlp"}
    only = protocols(seeded(sizes=("tiny",), protocols=("fair",)))
    assert set(only.values()) == {"fair"} and ("tiny", "kan-spline") not in only and ("tiny", "mlp") in only


def test_pretrained_weights_are_for_protocol_paper_alone():
    config = seeded(sizes=("small", "tiny"), weights=(Path("s.pth"), Path("t.pth")))
    made = jobs(config)
    found = {(job.model, job.group): job.weights for job in made}
    assert found["deit-small", "kan-spline"] == Path("s.pth") and found["deit-tiny", "mlp"] == Path("t.pth")
    fair = {group: weights for (_, group), weights in found.items() if group.endswith(("params", "flops", "scratch"))}
    assert len(fair) == 5 and set(fair.values()) == {None}
    assert len({job.id for job in made}) == len(made)
    assert deviations(Table1Config(weights=(Path("a"),) * 3)) == [] and deviations(Table1Config())


def test_fair_kans_have_what_the_mlps_have():
    found = {job.group: job.network for job in jobs(seeded(sizes=("tiny",)))}
    mlp, fair, plain = (Deit(found[name]) for name in ("mlp", "kan-spline-params", "kan-spline"))
    assert fair.blocks[0].attn.qkv.bias is not None and plain.blocks[0].attn.qkv.bias is None
    rates = [[block.drop_path.rate for block in one.blocks] for one in (mlp, fair, plain)]
    assert rates[0] == rates[1] and max(rates[0]) == 0.1 and max(rates[2]) == 0


def test_shrunken_models_keep_the_proportions():
    for job in jobs(seeded(sizes=("small",), shrink=4, match=("params",))):
        network = job.network
        assert network.width // network.heads == 16
        if job.group in ("kan-spline", "kan-rswaf"):
            assert network.kan_hidden == (48,)


def test_the_paper_preset_is_the_source_codes_recipe():
    config = EXPERIMENT.preset("paper")
    assert config == Table1Config() and config.classifier.seeds >= 3
    (job, *_) = jobs(seeded(sizes=("tiny",), protocols=("paper",)))
    training = job.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (300, 144, 5e-4)
    assert (training.weight_decay, training.warmup, training.schedule) == (0.05, 1, "cosine")
    assert (job.network.image_size, job.data.augmentation, job.data.dataset) == (224, "paper", "cifar100")
    check(EXPERIMENT.preset("smoke"))


def test_a_run_holds_both_protocols_and_is_not_repeated(tmp_path, no_memory, monkeypatch):
    record = run(TINY, tmp_path)
    found = record.result["runs"]
    assert {(row["group"], row["protocol"]) for row in found} == {
        ("mlp", "paper+fair"), ("kan-spline", "paper"), ("kan-spline-params", "fair"),
        ("kan-rswaf", "paper"), ("kan-rswaf-params", "fair"),
    }  # fmt: skip
    for row in found:
        network = row["network"]
        assert row["size"] == "tiny" and row["step_bytes"] == 32 * network["width"] and row["flops"] > 0
    assert any("digits instead of cifar100" in line for line in record.result["deviations"])
    assert len(record.result["published"]) == 15
    assert [model.against for model in trained_models(record)] == [None] + ["mlp"] * 4
    names = {path.name for path in EXPERIMENT.render(record, tmp_path)}
    assert {"table1.svg", "curves.svg", "tables.md", "tables.json"} <= names
    assert "Claims on Table 1" in (tmp_path / "tables.md").read_text()
    monkeypatch.setattr(table1, "ImageTrainer", lambda *args: pytest.fail("trained again"))
    assert run(TINY, tmp_path).sessions == 1


def test_fair_kans_are_compared_with_mlps_from_scratch_where_others_are_pretrained(tmp_path, no_memory):
    settings = TINY.trainings("tiny", "mlp")
    path = tmp_path / "tiny.pth"
    torch.save(find("deit-tiny")[0].build(settings.network("mlp")).state_dict(), path)
    record = run(replace(TINY, weights=(path,)), tmp_path / "results")
    labels = {row["group"]: (row["label"], row["protocol"]) for row in record.result["runs"]}
    assert labels["mlp-scratch"] == ("MLP, from scratch", "fair") and labels["mlp"] == ("MLP", "paper")
    against = {model.group: model.against for model in trained(record)}
    assert against["kan-spline"] == "mlp" and against["kan-spline-params"] == "mlp-scratch"
    assert against["mlp"] is None and against["mlp-scratch"] is None
    tables = EXPERIMENT.tables(record)
    assert any("from scratch" in str(row) for row in tables[1].rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ("huge",)}, "unknown size 'huge'"),
        ({"sizes": ()}, "got sizes .none."),
        ({"protocols": ("paper", "paper")}, "got protocols paper, paper"),
        ({"match": ("time",)}, "unknown measure 'time'"),
        ({"shrink": 3}, "got shrink 3: expected a divisor of 64"),
        ({"weights": (Path("a"), Path("b"))}, "got 2 files of weights for sizes tiny"),
        ({"weights": (Path("a"),), "protocols": ("fair",)}, "weights without protocol paper"),
        ({"weights": (Path("none.pth"),)}, "none.pth does not exist"),
        ({"patch": 3}, "patch 3 for images of 8 x 8"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(with_settings(TINY, change), tmp_path)
    assert not list(tmp_path.iterdir())
