"""Finds what a folder of modules defines: one new file is one new system or data set."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from kansciml._errors import UsageError

T = TypeVar("T")


def found_in(package: ModuleType, symbol: str, kind: type[T], noun: str) -> dict[str, tuple[T, Path]]:
    """Name -> (what a module of `package` assigns to `symbol`, its file); a `kind` has a ``name``.

    Raises:
        UsageError: two files use one name, or a file does not define the symbol.
    """
    found: dict[str, tuple[T, Path]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        path = Path(str(module.__file__))
        value = defined_by(module, path, symbol, kind)
        name = str(vars(value)["name"])
        if name in found:
            raise UsageError(f"{path}: {noun} name {name!r} is already taken by {found[name][1]}: choose another")
        found[name] = value, path
    return found


def defined_by(module: ModuleType, path: Path, symbol: str, kind: type[T]) -> T:
    """What a module assigns to `symbol`.

    Raises:
        UsageError: nothing, or no `kind`; `path` is named.
    """
    if not hasattr(module, symbol):
        raise UsageError(
            f"{path} does not define {symbol}: expected {symbol} = {kind.__name__}(...) of {kind.__module__}"
        )
    value = getattr(module, symbol)
    if not isinstance(value, kind):
        raise UsageError(f"{path}: {symbol} is a {type(value).__name__}, expected a {kind.__name__}")
    return value
