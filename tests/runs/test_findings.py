"""What all findings share: when a run decides, what it is measured against, pictures that exist, foreign records."""

from __future__ import annotations

import importlib
import re

import pytest
from support import fig1_records, fig3_records, fig4_records, fig5_records, table1_records

from kansciml import KansciError
from kansciml.analysis.paired import RECOMMENDED_SEEDS
from kansciml.experiments.fig2 import findings as fig2_findings
from kansciml.experiments.fig3 import findings as fig3_findings
from kansciml.experiments.fig5 import findings as fig5_findings
from kansciml.experiments.memory import findings as fig4_findings
from kansciml.reporting import style
from kansciml.runs import findings
from kansciml.runs.records import Record
from kansciml.runs.settings import setting

EXPERIMENTS = ("fig1", "fig2", "fig3", "fig4a", "fig4b", "fig5", "mnist", "table1")


def experiment(name):
    return importlib.import_module(f"kansciml.experiments.{name}.experiment").EXPERIMENT


def make(name, folder, make_record):
    """A made-up record of an experiment."""
    makers = {
        "fig1": lambda: fig1_records.make(folder),
        "fig2": lambda: make_record(folder, systems=("pleiades",), seeds=2),
        "fig3": lambda: fig3_records.make(folder, seeds=1),
        "mnist": lambda: fig3_records.make(folder, seeds=1, tasks=("mixer-nano",), dataset="mnist"),
        "fig4a": lambda: fig4_records.make(folder),
        "fig4b": lambda: fig4_records.make(folder, models=("whole-85", "ends-85"), experiment="fig4b"),
        "fig5": lambda: fig5_records.make(folder, seeds=1),
        "table1": lambda: table1_records.make(
            folder,
            {("tiny", group): table1_records.BASE for group in ("mlp", "kan-spline")},
            spectra={"mlp": 400, "kan-spline": 500},
        ),
    }
    return makers[name]()


def test_the_sizes_that_decide_are_those_of_the_presets():
    small, paper = (experiment("fig2").preset(name) for name in ("small", "paper"))
    for name, least in fig2_findings.LEAST_STEPS.items():
        smoke = experiment("fig2").preset("smoke")
        assert getattr(setting(small, "training"), name) >= least > getattr(setting(smoke, "training"), name)
        assert getattr(setting(paper, "training"), name) >= least
    mixers = experiment("fig3").preset("paper")
    for name, value in (fig3_findings.AT_LEAST | fig3_findings.SAME).items():
        assert setting(mixers, name) == value
    assert fig3_findings.MODELS == mixers.models
    operator = experiment("fig5").preset("paper").operator
    darcy, training = operator.samples.darcy, operator.training
    assert fig5_findings.AT_LEAST == {"epochs": training.epochs, "size": darcy.size, "n_train": darcy.n_train,
                                      "n_test": darcy.n_test}  # fmt: skip
    assert fig5_findings.STEP_AT_LEAST == {"size": darcy.size, "batch_size": training.batch_size}
    assert (fig4_findings.RECIPE_SIZE, fig4_findings.RECIPE_BATCH) == (darcy.size, training.batch_size)
    assert fig5_findings.MODEL == operator.model and fig4_findings.GPU_GB == fig5_findings.GPU_GB
    assert fig4_findings.GPU_GB == experiment("fig4a").preset("paper").limit_gb


@pytest.mark.parametrize("name, preset", [*((name, "paper") for name in ("fig2", "fig3", "fig5", "table1", "fair")),
                                          *((name, "small") for name in ("fig5", "table1", "fair"))])  # fmt: skip
def test_presets_have_seeds_enough_for_a_whole_family_of_claims(name, preset):
    assert setting(experiment(name).preset(preset), "seeds") >= RECOMMENDED_SEEDS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_of_the_paper_has_findings_and_refuses_foreign_records(name, tmp_path):
    found = experiment(name).findings
    with pytest.raises(KansciError):
        found(Record(tmp_path, "other", {}, "0" * 12, "finished"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_pictures_of_findings_are_those_that_render_writes(name, tmp_path, make_record, monkeypatch):
    monkeypatch.setattr(style, "save_figure", lambda figure, folder, stem: [folder / f"{stem}.svg"])
    record, one = make(name, tmp_path, make_record), experiment(name)
    found = one.findings(record)
    written = {path.stem for path in one.render(record, tmp_path) if path.suffix == ".svg"}
    shown = {stem for finding in found for stem in finding.figures}
    assert shown and shown <= written
    for finding in found:
        texts = [finding.item, finding.text, finding.printed, finding.measured, finding.evidence]
        assert all(isinstance(text, str) and text for text in texts)
        assert not re.search(r"\bNone\b|\bnan\b|  ", " ".join(texts))


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="expected one of reproduced"):
        findings.Finding("Figure 1", "claim", "", "", "perhaps", "")
