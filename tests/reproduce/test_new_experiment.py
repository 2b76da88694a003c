"""A new experiment is one new folder: it is listed, runs, and has its place and its captions on the page."""

from __future__ import annotations

import json

import pytest

import kansciml.experiments
from kansciml import cli
from kansciml.reproduce.page.content import Page
from kansciml.reproduce.page.write import html_page
from kansciml.reproduce.paper import gather, known_names

EXPERIMENT = '''
from dataclasses import dataclass
from kansciml.experiments.halves.report import findings, render, summary
from kansciml.runs.experiment import Experiment, Result

@dataclass(frozen=True)
class HalvesConfig:
    """Halves."""
    count: int = 8
    """How many."""

def run(config, context):
    return Result({"last": 0.5**config.count})

EXPERIMENT = Experiment(
    name="halves", title="One half, again and again", item="Figure 0", config=HalvesConfig,
    presets={"smoke": HalvesConfig(2), "paper": HalvesConfig()}, run=run, render=render, summary=summary,
    findings=findings, order=0, captions={"halves_*": "Halves, seen {}."},
)
'''
REPORT = """
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.findings import REPRODUCED, Finding
from kansciml.runs.tables import Table

def summary(record):
    return Table("Halves", ["last"], [[record.result["last"]]])

def findings(record):
    return [Finding("Figure 0", "Halves vanish", "0", str(record.result["last"]), REPRODUCED, "so", ["halves_near"])]

def render(record, folder):
    return save_report(folder, [summary(record)], {"halves_near": lambda: new_figure(1.0)})
"""


@pytest.fixture
def halves(tmp_path, monkeypatch):
    """A folder of experiments with one in it, beside those of the package."""
    folder = tmp_path / "more" / "halves"
    folder.mkdir(parents=True)
    for name, text in (("__init__", ""), ("experiment", EXPERIMENT), ("report", REPORT)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(kansciml.experiments, "__path__", [*kansciml.experiments.__path__, str(folder.parent)])
    monkeypatch.chdir(tmp_path)


def test_a_new_experiment_is_one_new_folder(halves, tmp_path, capsys):
    assert cli.main(["list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["experiments"]}
    assert listed["halves"]["item"] == "Figure 0" and listed["halves"]["error"] == "" and "fig1" in listed
    assert cli.main(["run", "halves", "--preset", "smoke", "--count", "3"]) == 0
    assert "0.125" in capsys.readouterr().out
    assert cli.main(["run", "halves", "--preset", "smoke"]) == 0
    assert known_names()[:2] == ["halves", "fig1"]  # by its order
    html = html_page(Page("smoke", [gather("halves", "smoke", tmp_path / "results")]))
    assert "Halves vanish" in html and "<figcaption>Halves, seen near.</figcaption>" in html
