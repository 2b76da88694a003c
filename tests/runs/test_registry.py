"""Experiments are found by walking folders; one that is broken does not take the others with it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from kansciml import KansciError, UsageError
from kansciml.runs import registry
from kansciml.runs.experiment import Experiment

GOOD = """
from kansciml.runs.runner import Experiment
EXPERIMENT = Experiment(
    name={name!r}, title="T", item="Figure 2", config=object, presets={{"smoke": 1}},
    run=None, render=None, summary=None,
)
"""
_unique = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes an importable package of folders (name to the source of experiment.py) and returns its name."""

    def make(**experiments: str) -> str:
        name = f"made_up_experiments_{next(_unique)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for each, source in experiments.items():
            (folder / each).mkdir()
            (folder / each / "__init__.py").write_text("")
            (folder / each / "experiment.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


def test_finds_folders_whose_experiment_file_defines_one_and_nothing_else(package, tmp_path):
    name = package(
        fig2=GOOD.format(name="fig2"), table1=GOOD.format(name="table1"), helpers="def f():\n    EXPERIMENT = 1\n"
    )
    (tmp_path / name / "fig9.py").write_text(GOOD.format(name="fig9"))
    (tmp_path / name / "shared").mkdir()
    assert registry.available_experiments(name) == ["fig2", "table1"]
    assert isinstance(registry.get_experiment("table1", name), Experiment)


def test_unknown_name_lists_the_others(package):
    with pytest.raises(UsageError, match="unknown experiment 'fig9': expected one of fig1, fig2"):
        registry.get_experiment("fig9", package(fig2=GOOD.format(name="fig2"), fig1=GOOD.format(name="fig1")))


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
    broken, fine = registry.describe_experiments(name)
    assert message in broken.error and broken.title == ""
    assert (fine.name, fine.title, fine.item, fine.presets, fine.error) == ("fig2", "T", "Figure 2", ("smoke",), "")
    with pytest.raises(KansciError, match=message):
        registry.get_experiment("broken", name)


def test_an_experiment_is_named_as_its_folder(package):
    name = package(fig1=GOOD.format(name="fig1"), other=GOOD.format(name="fig1"))
    with pytest.raises(KansciError, match=r"'fig1', which the folder fig1 already has: name it 'other'"):
        registry.get_experiment("other", name)


def test_every_experiment_of_the_package_loads():
    for name in registry.available_experiments():
        experiment = registry.get_experiment(name)
        assert experiment.title and experiment.item and set(experiment.presets) >= {"smoke"}
        for preset in experiment.presets.values():
            assert isinstance(preset, experiment.config)


def test_the_registry_loads_neither_torch_nor_matplotlib_nor_julia():
    code = (
        "import sys; from kansciml.runs.registry import available_experiments; available_experiments();"
        "print([name for name in ('torch', 'matplotlib', 'juliacall') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
