"""The notebooks of examples/ run, in small; the site runs them as they are."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import pytest
from support import guide

from kansciml import BackendUnavailable, ode

EXAMPLES = guide.ROOT / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook with some of its text replaced, in an empty folder; returns its names."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")

    def run(name: str, **changes: str) -> dict:
        source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        for constant, value in changes.items():
            before = next(line for line in source.splitlines() if line.startswith(f"{constant} = "))
            source = source.replace(before, f"{constant} = {value}", 1)
        names = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), names)
        return names

    yield run
    plt.close("all")


def test_notebooks_are_short():
    for name in guide.hooks().NOTEBOOKS:
        assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60, name


def test_own_layer(run):
    assert run("own_layer", STEPS="3")["error"] < 1.0


def test_own_hessian(run):
    assert run("own_hessian", **{"STEPS, WIDTHS": "2, (2, 1)"})["found"]["KAN"].exact


def test_new_experiment(run, tmp_path):
    run("new_experiment")
    assert len(list((tmp_path / "results" / "kink").iterdir())) == 2


def test_darcy_operator(run):
    assert run("darcy_operator", **{"SAMPLES, EPOCHS": "24, 1"})["guess"].shape[-1] == 41


def test_own_data(run, tmp_path):
    assert run("own_data", **{"ADAM_STEPS, WIDTHS": "3, (4,)"})["error"] > 0
    assert (tmp_path / "hare_lynx.png").exists()


def test_torch_against_julia_without_julia(run, monkeypatch, capsys):
    opened = ode.open_backend

    def without(name):
        if name == "julia":
            raise BackendUnavailable("Julia is not there")
        return opened(name)

    monkeypatch.setattr(ode, "open_backend", without)
    run("torch_against_julia", TRAINING="ode.FlatTraining(adam_steps=3, lbfgs_steps=0)")
    assert "julia: Julia is not there" in capsys.readouterr().out


@pytest.mark.julia
@pytest.mark.slow
def test_torch_against_julia(run):
    names = run("torch_against_julia", TRAINING="ode.FlatTraining(adam_steps=25, lbfgs_steps=0)")
    if len(names["runs"]) < 2:
        pytest.skip("no Julia")
    assert names["apart"][0] < 1e-5
