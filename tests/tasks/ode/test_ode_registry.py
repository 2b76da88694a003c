"""Finding systems by name and in a user's file."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.ode import systems
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system

USER_FILE = """
import numpy as np
from kansciml.tasks.ode.system import System

def rhs(t, u):
    return np.stack([u[..., 1], -4.0 * u[..., 0]], axis=-1)

SYSTEM = System(
    name="oscillator", rhs=rhs, u0=[1.0, 0.0], train_end=3.2, test_end=6.4, train_saveat=np.linspace(0, 3.2, 33)
)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_five_systems_are_found_under_their_names() -> None:
    assert set(available_systems()) >= {"lotka", "fitzhugh", "rigid", "spiral", "pleiades"}
    for name in available_systems():
        assert get_system(name).name == name


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown system 'lotkaa': expected one of .*lotka.*rigid"):
        get_system("lotkaa")


def test_a_users_file_is_loaded_and_its_scaling_derived(tmp_path: Path) -> None:
    """cos(2 t): the state covers [-1, 1] and [-2, 2], the derivative has rms 2 and 4 over sqrt(2)."""
    system = get_system(write(tmp_path / "mine.py", USER_FILE))
    assert system.name == "oscillator" and system.test_end == 6.4
    np.testing.assert_allclose(reference_solution(system, 1.0), [[np.cos(2.0), -2 * np.sin(2.0)]], atol=1e-10)
    np.testing.assert_allclose(system.center, 0.0, atol=1e-3)
    np.testing.assert_allclose(system.scale, np.array([1.0, 2.0]) / 0.9, rtol=1e-3)
    np.testing.assert_allclose(system.rate, np.array([2.0, 4.0]) / np.sqrt(2), rtol=0.02)


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "system.py", USER_FILE.replace("oscillator", f"oscillator-{folder}"))
    assert [get_system(str(tmp_path / f / "system.py")).name for f in "ab"] == ["oscillator-a", "oscillator-b"]


def test_path_of_a_built_in_file_is_the_built_in_system() -> None:
    assert get_system(Path(systems.__file__).with_name("lotka.py")) is get_system("lotka")


def test_name_of_a_built_in_system_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'lotka' is taken"):
        get_system(write(tmp_path / "mine.py", USER_FILE.replace("oscillator", "lotka")))


def test_duplicate_among_the_built_in_systems_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file in the folder is found by itself; the same file with a taken name is refused."""
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, str(tmp_path)])
    write(tmp_path / "added.py", USER_FILE)
    try:
        assert "oscillator" in available_systems()
        shutil.copy(Path(systems.__file__).with_name("lotka.py"), tmp_path / "copied.py")
        importlib.invalidate_caches()
        with pytest.raises(UsageError, match=r"'lotka' is already taken by .*: choose another"):
            available_systems()
    finally:
        for name in ("added", "copied"):
            sys.modules.pop(f"{systems.__name__}.{name}", None)
            vars(systems).pop(name, None)


BAD_FILES = {
    "syntax": ("def rhs(:\n", "cannot be imported: SyntaxError"),
    "raises": ("raise RuntimeError('first\\nsecond')\n", "cannot be imported: RuntimeError: first second"),
    "exits": ("import sys\nsys.exit(3)\n", "cannot be imported: SystemExit: 3"),
    "missing module": ("import a_module_that_is_not_there\n", "ModuleNotFoundError"),
    "no symbol": ("system = 1\n", "does not define SYSTEM"),
    "wrong type": ("SYSTEM = {'name': 'x'}\n", "SYSTEM is a dict, expected a System"),
    "bad system": (USER_FILE.replace("3.2", "-3.2"), "cannot be imported: system oscillator: got t0"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_one_clear_line(case: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[case]
    path = write(tmp_path / "mine.py", text)
    modules = set(sys.modules)
    with pytest.raises(UsageError, match=message) as caught:
        get_system(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    if "cannot be imported" in message:
        assert set(sys.modules) == modules


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    for name in ("absent.py", "folder.py"):
        with pytest.raises(UsageError, match="does not exist: expected a Python file"):
            get_system(tmp_path / name)
