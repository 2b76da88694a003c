"""The mixers on MNIST from configuration to record and report, on scikit-learn's digits."""

from __future__ import annotations

from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.mnist.experiment import EXPERIMENT, check
from kansciml.experiments.vision.record import VisionRecord
from kansciml.runs.config_json import with_settings
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import setting

TINY = {
    "subset": 60, "epochs": 1, "batch_size": 30, "width": 8, "token_hidden": 8, "accelerator": "cpu",
    "spectra.steps": 3, "spectra.probes": 2, "spectra.deflate": 1, "spectra.samples": 8, "spectra.exact": "never",
}  # fmt: skip


def test_both_variants_are_trained_measured_and_judged(tmp_path):
    config = with_settings(EXPERIMENT.preset("smoke"), TINY)
    record = run_experiment(EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    vision, measured = VisionRecord.read(record), HessianRecord.read(record)
    assert [group.name for group in vision.groups] == ["mlp", "kan-spline"]
    assert {one.name for one in measured.models} == {row.id for row in vision.rows}
    claims, accuracy, *_ = EXPERIMENT.summary(record)
    assert len(claims.rows) == 5 and len(accuracy.rows) == 2
    assert {one.item for one in EXPERIMENT.findings(record)} == {"Footnote 3"}


def test_presets_are_sound_and_on_mnist_but_for_the_quick_one():
    for preset in (EXPERIMENT.preset(name) for name in ("small", "paper")):
        assert setting(preset, "dataset") == "mnist" and setting(preset, "seeds") >= 12
    check(EXPERIMENT.preset("smoke"))
