"""A configuration from its JSON, and its settings by dotted names: types come from the annotations of the dataclass.

Records hold configurations as JSON (`kansciml._files.to_jsonable`), sweeps send them to other processes, and users name
single settings: ``training.adam_steps``, or ``adam_steps`` alone where no other setting has that name.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from kansciml._errors import UsageError
from kansciml.runs.settings import flat_items, is_part
from kansciml.runs.typed import Unlike, alternatives, expected, from_json, from_text, shown

T = TypeVar("T")
FLAT_GROUP = "field."
"""Prefix that is understood where a configuration has the settings of the vector field among its own."""


def config_from_json(kind: type[T], values: Any, where: str = "") -> T:
    """The configuration dataclass `kind` that `to_jsonable` made `values` of; missing fields have their default.

    Lists become tuples, objects nested dataclasses and text paths, as the annotations say.

    Args:
        where: dotted name of the place within a larger configuration, for messages.

    Raises:
        UsageError: an unknown or a missing field, a value of another type, or what the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or kind.__name__}: got {shown(values)}, expected an object of settings")
    # an object has a part's settings in its place, and those of other nested dataclasses in objects of their own
    prefix, valid = f"{where}." if where else "", list(dict.fromkeys(name.split(".")[0] for name in _leaves(kind)))
    for name in values:
        if name not in valid:
            raise _unknown(f"{prefix}{name}", [f"{prefix}{one}" for one in valid], kind)
    return _read(kind, values, prefix)


def setting_types(kind: type) -> dict[str, Any]:
    """Dotted name -> annotation of every setting of the configuration dataclass `kind`, nested ones in their place."""
    return {name: hint for name, (_, hint) in _leaves(kind).items()}


def setting_name(kind: type, name: str) -> str:
    """The full dotted name of a setting: itself, or the only one that ends so (``adam_steps``); dashes are underscores.

    ``field.grid`` also names a ``grid`` that the configuration has among its own settings.

    Raises:
        UsageError: there is none, or there are several; the message lists the valid ones, the closest first.
    """
    valid = setting_types(kind)
    wanted = name.strip().replace("-", "_")
    if wanted in valid:
        return wanted
    if wanted.startswith(FLAT_GROUP) and wanted.removeprefix(FLAT_GROUP) in valid:
        return wanted.removeprefix(FLAT_GROUP)
    inside = [full for full in valid if full.startswith(f"{wanted}.")]
    if inside:
        raise UsageError(f"setting {name!r} is a group: expected one of {', '.join(inside)}")
    ending = [full for full in valid if full.endswith(f".{wanted}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UsageError(f"setting {name!r} could be any of {', '.join(ending)}: give the full name")
    raise _unknown(name, list(valid), kind)


def parse_setting(kind: type, name: str, text: str) -> Any:
    """The value of setting `name` (as for `setting_name`) from text.

    Numbers as in Python, ``true`` or ``false``, ``none`` where the setting may be unset; a tuple's elements are
    separated by commas, with or without brackets, and ``()`` is the empty tuple.

    Raises:
        UsageError: an unknown setting, or text that is no value of its type.
    """
    name = setting_name(kind, name)
    hint = setting_types(kind)[name]
    try:
        return from_text(hint, text.strip())
    except ValueError:
        raise UsageError(f"{name}: got {text.strip()!r}, expected {expected(hint)}") from None


def is_tuple_setting(kind: type, name: str) -> bool:
    """Whether the values of setting `name` are tuples."""
    hint = setting_types(kind)[setting_name(kind, name)]
    return any(typing.get_origin(one) is tuple for one in alternatives(hint))


def get_setting(config: Any, name: str) -> Any:
    """The value of a setting by its full dotted name."""
    return functools.reduce(getattr, _leaves(type(config))[name][0], config)


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """`config` with settings, by their full dotted names, replaced all at once.

    Raises:
        UsageError: what the dataclass refuses.
    """
    leaves = _leaves(type(config))
    return _replaced(config, {leaves[name][0]: value for name, value in settings.items()})


def _replaced(config: Any, values: Mapping[tuple[str, ...], Any]) -> Any:
    found = {item.name: getattr(config, item.name) for item in dataclasses.fields(config) if item.init}
    for first in {path[0] for path in values}:
        inner = {path[1:]: value for path, value in values.items() if path[0] == first}
        found[first] = inner[()] if () in inner else _replaced(found[first], inner)
    return _built(type(config), found)


def excerpt(config: Any, names: Collection[str], prefix: str = "") -> type:
    """A dataclass of some settings of a configuration: types, defaults and help are those of `config`.

    An instance's ``whole()`` is `config` with its settings; all else in it is fixed.

    Args:
        names: of the settings. prefix: what their names begin with in the excerpt, where another part has them too.
    """
    fields, args = [], []
    for item, owner, value in flat_items(config):
        if item.name in names:
            own = dataclasses.field(default=value, compare=item.compare, metadata=item.metadata)
            fields.append((prefix + item.name, typing.get_type_hints(type(owner))[item.name], own))
            args.append(f"    {prefix}{item.name}: {_help(type(owner)).get(item.name, '')}")

    def whole(self: Any) -> Any:
        own = {name: get_setting(self, name) for name in setting_types(type(self))}
        return with_settings(config, {name.removeprefix(prefix): value for name, value in own.items()})

    made = dataclasses.make_dataclass("Excerpt", fields, frozen=True, namespace={"whole": whole})
    made.__doc__ = "\n".join([f"Some settings of {type(config).__name__}.", "", "Args:", *args])
    return made


def _help(kind: type) -> dict[str, str]:
    """Field -> the text below it in the source of a dataclass."""
    found: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def path_settings(config: Any) -> dict[str, tuple[Path, ...]]:
    """Dotted name -> paths of every setting that names files or folders: paths, and text that ends as a file does."""
    found = {}
    for name in setting_types(type(config)):
        value = get_setting(config, name)
        paths = [
            Path(one)
            for one in (value if isinstance(value, tuple) else (value,))
            if isinstance(one, PurePath) or (isinstance(one, str) and one.endswith((".py", ".csv")))
        ]
        if paths:
            found[name] = tuple(paths)
    return found


def closest_first(name: str, valid: Sequence[str]) -> list[str]:
    """`valid` by likeness to `name`; the part after the last dot counts as much as the whole, on either side."""
    wanted = name.lower(), name.lower().rpartition(".")[2]

    def likeness(one: str) -> float:
        parts = one.lower(), one.lower().rpartition(".")[2]
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in itertools.product(wanted, parts))

    return sorted(valid, key=lambda one: -likeness(one))


def closest(name: str, valid: Sequence[str]) -> str:
    """Names of `valid` for a message: all, or of more than ten the six most like `name`, and how many there are."""
    names = closest_first(name, valid)
    shown = ", ".join(names[:6] if len(names) > 10 else names)
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 10 else shown


def _built(kind: type[T], values: Mapping[str, Any]) -> T:
    try:
        return kind(**values)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"{kind.__name__}: {' '.join(str(error).split())}") from error


def _leaves(kind: Any) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Dotted name -> path of attributes, and annotation, of every setting of `kind`; a part's have no prefix."""
    hints = typing.get_type_hints(kind)
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            prefix = "" if is_part(item) else f"{item.name}."
            inner = {f"{prefix}{name}": ((item.name, *path), one) for name, (path, one) in _leaves(hint).items()}
        else:
            inner = {item.name: ((item.name,), hint)} if item.init else {}
        if found.keys() & inner.keys():
            raise TypeError(f"two parts of {kind.__name__} have a setting {min(found.keys() & inner.keys())}")
        found |= inner
    return found


def _read(kind: Any, values: Mapping[str, Any], prefix: str, default: Any = None) -> Any:
    """`kind` from those of `values` that are its own or its parts'; what is not there is that of `default`."""
    hints, found = typing.get_type_hints(kind), {}
    for item in dataclasses.fields(kind):
        name, hint = item.name, hints[item.name]
        if is_part(item):
            found[name] = _read(hint, values, prefix, item.default if default is None else getattr(default, name))
        elif name in values and item.init:
            found[name] = _value(hint, values[name], f"{prefix}{name}")
        elif default is not None and item.init:
            found[name] = getattr(default, name)
        elif item.init and item.default is item.default_factory is dataclasses.MISSING:
            raise UsageError(f"{kind.__name__} wants the setting {prefix}{name}: add it")
    return _built(kind, found)


def _unknown(name: str, valid: Sequence[str], kind: type) -> UsageError:
    return UsageError(f"unknown setting {name!r} of {kind.__name__}: expected one of {closest(name, valid)}")


def _value(hint: Any, value: Any, where: str) -> Any:
    try:
        return from_json(hint, value, where, config_from_json)
    except Unlike as error:
        raise UsageError(str(error)) from None
