"""Finds systems by name, or in a user's own Python file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from kansciml._discovery import defined_by, found_in
from kansciml._errors import KansciError, UsageError, unknown_name
from kansciml._files import short_name
from kansciml.tasks.ode import systems
from kansciml.tasks.ode.data import read_table, system_from_trajectories, with_normalisation
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.system import RightHandSide, System
from kansciml.tasks.ode.trajectory import Trajectory

_USER_MODULE = "kansciml_user_system_"
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
TABLES = (".csv", ".tsv", ".txt", ".dat", ".parquet", ".pq", *COMPRESSED)
"""Ends of the names of files that `read_table` reads."""
Data: TypeAlias = "System | Trajectory | Sequence[Trajectory] | str | Path | Any"
"""What can be learned: a system, data, or the name of one; see `kansciml.ode.train`. Any: a pandas or xarray table."""


def available_systems() -> tuple[str, ...]:
    """Names of the built-in systems: every module of the folder `systems` defines one.

    Raises:
        UsageError: two files use one name, or a file does not define a `SYSTEM`.
    """
    return tuple(_built_in())


def get_system(name_or_path: str | Path) -> System:
    """A built-in system by name, or the `SYSTEM` of a Python file.

    Args:
        name_or_path: one of `available_systems()`, or a path ending in ``.py``.

    Raises:
        UsageError: unknown name; missing file; file that cannot be imported or does not define a `SYSTEM`, or whose
            name is that of another, built-in system.
        SolveError: the system leaves center, scale and rate to be derived, but cannot be integrated.
    """
    built_in = _built_in()
    text = str(name_or_path)
    if not text.endswith(".py"):
        if text not in built_in:
            raise unknown_name("system", text, [*built_in, "a path ending in .py"])
        return _normalised(built_in[text][0])
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise UsageError(f"{path} does not exist: expected a Python file that defines SYSTEM, or a name of a system")
    for system, origin in built_in.values():
        if path.resolve() == origin.resolve():
            return _normalised(system)
    system = defined_by(_import_file(path), path, "SYSTEM", System)
    if system.name in built_in:
        raise UsageError(f"{path}: system name {system.name!r} is taken by a built-in system: choose another")
    return _normalised(system)


def file_fingerprints(names: Iterable[str | Path]) -> list[str]:
    """Fingerprints of the SYSTEMs of the ``.py`` files among `names`, whatever they read to define them.

    Raises:
        UsageError: as `get_system`, for a file that is there.
    """
    paths = [Path(name).expanduser() for name in names if str(name).endswith(".py")]
    return [_fingerprint(defined_by(_import_file(path), path, "SYSTEM", System)) for path in paths if path.is_file()]


def source_file(system: System) -> Path | None:
    """The user's file that defined the right-hand side of a system, or its known terms; None for others."""
    for function in (system.rhs, system.physics and system.physics.rhs):
        name = getattr(function, "__module__", "")
        if name.startswith(_USER_MODULE) and name in sys.modules:
            return Path(str(sys.modules[name].__file__))
    return None


def _fingerprint(system: System) -> str:
    """Of its equations too, by their code and by values: what they call or read elsewhere shows there."""
    return fingerprint(system, [_slopes(system.rhs, system, factor) for factor in (1.0, 1.1, 0.7) if system.rhs])


def _slopes(rhs: RightHandSide, system: System, factor: float) -> list[str]:
    """Slopes at a multiple of the initial state, in digits that do not depend on the machine."""
    try:
        with np.errstate(all="ignore"):
            return [f"{value:.9e}" for value in np.asarray(rhs(system.t0, factor * system.u0), dtype=np.float64)]
    except Exception as error:
        return [type(error).__name__]


def _built_in() -> dict[str, tuple[System, Path]]:
    """Name -> (system, its file)."""
    return found_in(systems, "SYSTEM", System, "system")


def _import_file(path: Path) -> ModuleType:
    # The path is part of the name, so that two files called system.py do not meet in sys.modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"{_USER_MODULE}{digest}", path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        text = " ".join(str(error).split())
        what = text if isinstance(error, KansciError) else f"{type(error).__name__}: {text}"
        raise UsageError(f"{path} cannot be imported: {what}") from error
    return module


def _normalised(system: System) -> System:
    if system.scale and system.loss_scale is not None:
        return system
    from kansciml.tasks.ode.scaling import with_normalisation  # imports SciPy, which built-in systems do not need

    return with_normalisation(system)


def resolve_system(system: Data, log: Callable[[str], None] | None = None) -> System:
    """A `System` from whatever names one, with its scaling: see `train`, and `read_table` for `log`."""
    if isinstance(system, System):
        return with_normalisation(system)
    if isinstance(system, Trajectory):
        return system_from_trajectories(system, system.source or "data")
    if isinstance(system, (list, tuple)):
        return system_from_trajectories(system, "data")
    if not isinstance(system, (str, Path)):
        return system_from_trajectories(read_table(system, log=log), "data")
    path = Path(system)
    if path.suffix in TABLES or (isinstance(system, Path) and path.suffix != ".py"):
        return system_from_trajectories(read_table(path, log=log), table_name(path))
    return get_system(system)


def table_name(path: Path) -> str:
    """Name of the data in a file: the file's, without its ends."""
    return short_name(Path(path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path.name).stem)
