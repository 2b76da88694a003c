"""Figure 3: trainings and spectra in one record, both resumed, and the spectra those of the trained networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.minibatch import assert_same

from kansciml import UsageError
from kansciml.analysis.hessian import EXACT_LIMIT
from kansciml.experiments.fig3.experiment import EXPERIMENT, Fig3Config, check, jobs
from kansciml.experiments.hessian import experiment as hessian
from kansciml.experiments.hessian import measure
from kansciml.experiments.hessian.measure import HessianSettings
from kansciml.experiments.minibatch.trainings import Trainer
from kansciml.experiments.vision.trained import plain_loss
from kansciml.models.registry import find
from kansciml.runs.config_json import with_settings
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash, setting
from kansciml.runs.trained import FirstSamples

TINY = with_settings(
    Fig3Config(("mixer-nano",), spectra=HessianSettings(steps=6, probes=2, deflate=2, samples=40, exact="never")),
    {
        "seeds": 1, "dataset": "digits", "subset": 100, "epochs": 2, "batch_size": 32, "warmup": 1.0, "width": 4,
        "depth": 1, "token_hidden": 4, "grid": 2, "spline_order": 2, "augmentation": "none", "precision": "64",
        "accelerator": "cpu",
    },
)  # fmt: skip


def run(config, folder, workers="1", **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", workers)
        return run_experiment(EXPERIMENT, config, results=folder, log=lambda line: None, **options)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return run(TINY, tmp_path_factory.mktemp("results"))


def test_every_trained_network_has_its_spectrum_and_every_kan_its_verdicts(record):
    ids = [row["id"] for row in record.result["runs"]]
    assert ids == [row["name"] for row in record.result["models"]]
    assert ids == ["digits-mixer-nano.mlp.0", "digits-mixer-nano.kan-spline.0"]
    for row, model in zip(record.result["runs"], record.result["models"]):
        assert model["n_parameters"] == row["parameters"] and model["recorded_loss"] == row["minimum_loss"]
        prefix = f"{record.config_hash}.{row['id']}.plain"
        assert record.arrays[f"{prefix}.nodes"].shape == (2, 6)
        assert f"{row['id']}.loss" in record.arrays
    verdicts = record.result["verdicts"]
    assert {(row["group"], row["against"]) for row in verdicts} == {("kan-spline", "mlp")}
    assert "positive_count" in {row["measure"] for row in verdicts}


def test_the_spectrum_is_that_of_the_trained_network_on_the_fixed_images(record):
    """Largest and smallest eigenvalue of the MLP's whole Hessian, by PyTorch, in float64."""
    model, row = trained_models(record)[0], record.result["models"][0]
    loaded = model.load()
    (batch,) = FirstSamples(loaded.batches, 40)
    weights = dict(loaded.module.named_parameters())

    def loss(flat):
        parts = flat.split([weight.numel() for weight in weights.values()])
        own = {name: part.view(weights[name].shape) for name, part in zip(weights, parts)}
        return plain_loss(lambda inputs: torch.func.functional_call(loaded.module, own, (inputs,)), batch)

    start = torch.cat([weight.detach().flatten() for weight in weights.values()])
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, start))
    measures = row["sharpness"]["measures"]
    assert measures["top"]["value"] == pytest.approx(values[-1].item(), rel=1e-5)
    assert measures["bottom"]["value"] == pytest.approx(values[0].item(), rel=1e-4)
    assert row["sharpness"]["loss"] == pytest.approx(loss(start).item(), rel=1e-10)


def test_kansciml_hessian_measures_the_same_models_again(record, tmp_path):
    settings = replace(TINY.spectra, steps=4)
    config = hessian.HessianConfig(record.folder, ("mlp",), settings)
    found = run_experiment(hessian.EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    (row,) = found.result["models"]
    mine = record.result["models"][0]
    assert row["name"] == mine["name"] and row["fingerprint"] == mine["fingerprint"]
    assert row["sharpness"]["measures"]["top"]["value"] == pytest.approx(
        mine["sharpness"]["measures"]["top"]["value"], rel=1e-5
    )


def test_trainings_and_spectra_that_are_done_are_not_repeated(record, tmp_path, monkeypatch):
    measured, trained = [], []
    sharpness, train_job = measure.sharpness, Trainer.train

    def stopping(*args, **options):
        measured.append(1)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return sharpness(*args, **options)

    def counting(trainer, job, board):
        trained.append(job.id)
        return train_job(trainer, job, board)

    monkeypatch.setattr(measure, "sharpness", stopping)
    monkeypatch.setattr(Trainer, "train", counting)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path)
    assert (len(measured), len(trained)) == (2, 2)
    resumed = run(TINY, tmp_path)
    assert (len(measured), len(trained)) == (3, 2) and resumed.sessions == 2
    for one, other in zip(record.result["models"], resumed.result["models"]):
        assert json.dumps(one["sharpness"]) == json.dumps(other["sharpness"])
    assert_same(record, resumed)
    run(TINY, tmp_path)
    assert len(measured) == 3


def test_the_paper_preset_has_the_published_mixers():
    config = EXPERIMENT.preset("paper")
    found = {(job.model, job.group): job for job in jobs(with_settings(config, {"seeds": 1}))}
    counts = {key: find(job.model)[0].count(job.network).active for key, job in found.items()}
    assert counts == {
        ("mixer-nano", "mlp"): 673_418,
        ("mixer-nano", "kan-spline"): 6_565_514,
        ("conv-mixer-256-8", "mlp"): 594_186,
        ("conv-mixer-256-8", "kan-spline"): 5_837_066,
    }
    assert setting(config, "seeds") == 12 and {job.training.epochs for job in found.values()} == {100}
    decays = {key[0]: job.training.weight_decay for key, job in found.items()}
    assert decays == {"mixer-nano": 5e-5, "conv-mixer-256-8": 5e-3}
    instead = jobs(with_settings(config, {"placement": "replace", "seeds": 1}))[-1]
    assert find(instead.model)[0].count(instead.network).active == 5_310_730


def test_several_processes_train_and_measure_the_same(record, tmp_path):
    found = run(TINY, tmp_path, workers="2")
    assert_same(record, found)
    for one, other in zip(record.result["models"], found.result["models"]):
        assert json.dumps(one["sharpness"]) == json.dumps(other["sharpness"]) and one["against"] == other["against"]
    assert record.result["verdicts"] == found.result["verdicts"]


def test_the_small_preset_has_equal_widths_equal_parameters_placements_and_two_sizes_of_batches():
    small = with_settings(EXPERIMENT.preset("small"), {"seeds": 1})
    found = {job.id: find(job.model)[0].count(job.network).active for job in jobs(small)}
    assert len(found) == 15 and max(found.values()) <= EXACT_LIMIT
    for batch in (50, 500):
        for model in ("mixer-nano", "conv-mixer-128-4"):
            task = f"cifar10-{model}-batch{batch}"
            few, many, equal = (found[f"{task}.{kind}.0"] for kind in ("mlp", "kan-spline", "kan-spline-params"))
            assert few < 0.6 * many and equal == pytest.approx(few, rel=0.1)
    rates = {job.training.batch_size: job.training.learning_rate for job in jobs(small)}
    assert rates[500] == pytest.approx(rates[50] * 10**0.5)
    assert {"replace", "head", "grouped"} == {job.trait for job in jobs(small)} - {""}


@pytest.mark.parametrize("name", ["smoke", "small"])
def test_presets_are_sound(name):
    check(EXPERIMENT.preset(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("deit-tiny",)}, "got model deit-tiny: expected mixers"),
        ({"models": ("mixer",)}, "unknown model 'mixer'"),
        ({"models": ()}, "got models .none."),
        ({"variants": ("mlp", "mlp")}, "got variants mlp, mlp"),
        ({"variants": ("kan",)}, "unknown variant 'kan'"),
        ({"placements": ("append",), "placement": "append"}, "got placements append, append"),
        ({"large_batch": 32}, "got large_batch 32: expected at least 33"),
        ({"narrow": True, "width": 1}, "no width gives mixer-nano"),
        ({"models": ("conv-mixer-128-4",), "placement": "before"}, "unknown placement 'before'"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(with_settings(TINY, change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_of_the_spectra_count_and_moved_data_do_not():
    other = replace(TINY, spectra=replace(TINY.spectra, probes=3))
    assert config_hash("fig3", TINY) != config_hash("fig3", other)
    assert config_hash("fig3", TINY) == config_hash("fig3", with_settings(TINY, {"data_dir": Path("elsewhere")}))
