"""Experiments are found by walking a folder; one that is broken does not take the others with it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from kansciml._errors import KansciError, UsageError
from kansciml.experiments import _registry
from kansciml.experiments._base import Experiment

GOOD = """
from kansciml.experiments._base import Experiment
EXPERIMENT = Experiment(
    name={name!r}, title="T", item="Figure 2", config=object, presets={{"smoke": 1}},
    run=None, render=None, summary=None,
)
"""
_unique = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes an importable package from files (path to source) and returns its name."""

    def make(**files: str) -> str:
        name = f"made_up_experiments_{next(_unique)}"
        folder = tmp_path / name
        folder.mkdir()
        for file, source in {"__init__": "", **files}.items():
            path = folder / (file.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


def test_finds_what_defines_experiment_and_nothing_else(package):
    name = package(
        fig2=GOOD.format(name="fig2"),
        table1__in____init__=GOOD.format(name="table1"),
        _base=GOOD.format(name="_base"),
        helpers="def f():\n    EXPERIMENT = 1\n",
    )
    assert _registry.available_experiments(name) == ["fig2", "table1"]
    assert isinstance(_registry.get_experiment("table1", name), Experiment)


def test_unknown_name_lists_the_others(package):
    with pytest.raises(UsageError, match="unknown experiment 'fig9': expected one of fig1, fig2"):
        _registry.get_experiment("fig9", package(fig2=GOOD.format(name="fig2"), fig1=GOOD.format(name="fig1")))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no such GPU')\nEXPERIMENT = 1", "RuntimeError: no such GPU"),
        ("def broken(:\n", "SyntaxError"),
        ("EXPERIMENT = 3", "is a int: expected an Experiment"),
    ],
)
def test_broken_module_is_listed_with_its_error_beside_the_others(package, source, message):
    name = package(broken=source, fig2=GOOD.format(name="fig2"))
    broken, fine = _registry.describe_experiments(name)
    assert message in broken.error and broken.title == ""
    assert (fine.name, fine.title, fine.item, fine.presets, fine.error) == ("fig2", "T", "Figure 2", ("smoke",), "")
    with pytest.raises(KansciError, match=message):
        _registry.get_experiment("broken", name)


def test_two_experiments_of_one_name_are_an_error(package):
    name = package(fig1=GOOD.format(name="fig1"), other=GOOD.format(name="fig1"))
    with pytest.raises(KansciError, match=r"'fig1', which fig1.py already has: name it 'other'"):
        _registry.get_experiment("other", name)
    with pytest.raises(KansciError, match="two experiments are named 'fig1'"):
        _registry.available_experiments(
            package(fig1=GOOD.format(name="fig1"), fig1__in____init__=GOOD.format(name="fig1"))
        )


def test_every_experiment_of_the_package_loads():
    for name in _registry.available_experiments():
        experiment = _registry.get_experiment(name)
        assert experiment.title and experiment.item and set(experiment.presets) >= {"smoke"}
        for preset in experiment.presets.values():
            assert isinstance(preset, experiment.config)


def test_the_registry_loads_neither_torch_nor_matplotlib_nor_julia():
    code = (
        "import sys; from kansciml.experiments._registry import available_experiments; available_experiments();"
        "print([name for name in ('torch', 'matplotlib', 'juliacall') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
