"""Fixtures of the tests of commands."""

import pytest

from kansciml.reporting import style
from kansciml.runs.registry import get_experiment
from kansciml.runs.runner import run_experiment
from kansciml.sweep.plan import make_plan, parse_settings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own that every command is given in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures are made but not drawn, which takes longer than all the rest: for tests that look at none."""
    monkeypatch.setattr(style, "FORMATS", ())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Results folder of two grids and two seeds of a KAN, and the flags of that sweep."""
    results = tmp_path_factory.mktemp("swept") / "results"
    settings = ["adam_steps=2", "lbfgs_steps=1", "model=kan", "match=width", "hidden=3", "field.grid=3,5"]
    ode = get_experiment("ode")
    plan = make_plan(ode, ode.preset("smoke"), parse_settings(ode.config, settings), "2")
    for task in plan.tasks:
        run_experiment(ode, task.config, results=results, log=str)
    flags = [part for text in settings for part in ("--set", text)]
    return results, ["ode", "--preset", "smoke", *flags, "--seeds", "2", "--results", str(results), "--workers", "1"]
