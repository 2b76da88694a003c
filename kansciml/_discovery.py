"""Discovers what a folder of modules defines: one new file is one new system, data set, model or experiment."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from kansciml._errors import KansciError, UsageError

T = TypeVar("T")


def assigns(file: Path, symbol: str, unreadable: bool = True) -> bool:
    """Whether a Python file, which is not run, assigns `symbol`; `unreadable` where it cannot be parsed.

    Such a file may be meant to: it is listed, and its error shown when it is asked for.
    """
    names = _assigned(file, file.stat().st_mtime_ns)
    return unreadable if names is None else symbol in names


@lru_cache(maxsize=256)
def _assigned(file: Path, modified_ns: int) -> frozenset[str] | None:
    """Of a file as it was when last modified: configurations ask for their model often."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return None
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))


def loaded(module: str, symbol: str, kind: type[T], noun: str, name: str, names: Collection[str], place: str) -> T:
    """What a module assigns to `symbol`: the `noun` that is named `name`, as its `place`, one of `names`.

    Raises:
        KansciError: the module cannot be loaded, or does not define a `kind` of that name.
    """
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a module can raise while loading must not take the others with it
        text = " ".join(str(error).split())
        raise KansciError(f"{noun} {name!r} cannot be loaded: {type(error).__name__}: {text}") from error
    value = getattr(found, symbol)
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        expected = f"expected {article} {kind.__name__}"
        raise KansciError(f"{symbol} in {found.__file__} is a {type(value).__name__}: {expected}")
    own = str(vars(value)["name"])
    if own != name:
        taken = f", which the {place} {own} already has" if own in names else ""
        raise KansciError(f"the {noun} in {found.__file__} is named {own!r}{taken}: name it {name!r}, as its {place}")
    return value


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
