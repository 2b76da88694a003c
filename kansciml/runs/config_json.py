"""A configuration from its JSON, and its settings by dotted names: types come from the annotations of the dataclass.

Records hold configurations as JSON (`kansciml._files.to_jsonable`), sweeps send them to other processes, and users name
single settings: ``training.adam_steps``, or ``adam_steps`` alone where no other setting has that name.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from kansciml._errors import UsageError

T = TypeVar("T")
FLAT_GROUP = "field."
"""Prefix that is understood where a configuration has the settings of the vector field among its own."""
_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def config_from_json(kind: type[T], values: Any, where: str = "") -> T:
    """The configuration dataclass `kind` that `to_jsonable` made `values` of; missing fields have their default.

    Lists become tuples, objects nested dataclasses and text paths, as the annotations say.

    Args:
        where: dotted name of the place within a larger configuration, for messages.

    Raises:
        UsageError: an unknown or a missing field, a value of another type, or what the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or kind.__name__}: got {_shown(values)}, expected an object of settings")
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind) if item.init}
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in fields:
            raise _unknown(f"{prefix}{name}", [f"{prefix}{valid}" for valid in fields], kind)
    for name, item in fields.items():
        if name not in values and item.default is item.default_factory is dataclasses.MISSING:
            raise UsageError(f"{kind.__name__} wants the setting {prefix}{name}: add it")
    return _built(kind, {name: _from_json(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def setting_types(kind: type) -> dict[str, Any]:
    """Dotted name -> annotation of every setting of the configuration dataclass `kind`, nested ones in their place."""
    return dict(_leaves(kind, ""))


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
        return _from_text(hint, text.strip())
    except ValueError:
        raise UsageError(f"{name}: got {text.strip()!r}, expected {_expected(hint)}") from None


def is_tuple_setting(kind: type, name: str) -> bool:
    """Whether the values of setting `name` are tuples."""
    hint = setting_types(kind)[setting_name(kind, name)]
    return any(typing.get_origin(one) is tuple for one in _alternatives(hint))


def get_setting(config: Any, name: str) -> Any:
    """The value of a setting by its full dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """`config` with settings, by their full dotted names, replaced all at once.

    Raises:
        UsageError: what the dataclass refuses.
    """
    changed: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(first, {})[rest] = value
        else:
            changed[first] = value
    for first, inner in nested.items():
        changed[first] = with_settings(getattr(config, first), inner)
    current = {item.name: getattr(config, item.name) for item in dataclasses.fields(config) if item.init}
    return _built(type(config), current | changed)


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


def _built(kind: type[T], values: Mapping[str, Any]) -> T:
    try:
        return kind(**values)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"{kind.__name__}: {' '.join(str(error).split())}") from error


def _leaves(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _leaves(hints[item.name], f"{prefix}{item.name}.")
        elif item.init:
            yield f"{prefix}{item.name}", hints[item.name]


def _unknown(name: str, valid: Sequence[str], kind: type) -> UsageError:
    return UsageError(
        f"unknown setting {name!r} of {kind.__name__}: expected one of {', '.join(closest_first(name, valid))}"
    )


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or `hint` alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _from_json(hint: Any, value: Any, where: str) -> Any:
    error = UsageError(f"{where}: got {_shown(value)}, expected {_expected(hint)}")
    for one in _alternatives(hint):
        if dataclasses.is_dataclass(one) and isinstance(value, Mapping):
            return config_from_json(one, value, where)
        if typing.get_origin(one) is tuple and isinstance(value, (list, tuple)):
            kinds = _element_types(one, len(value))
            if kinds is None:
                raise error
            return tuple(_from_json(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))
        if typing.get_origin(one) is typing.Literal and value in typing.get_args(one):
            return value
        if one is Any or (one is type(None) and value is None):
            return value
        if one is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if one in (int, bool, str) and type(value) is one:
            return value
        if one is Path and isinstance(value, str):
            return Path(value)
    raise error


def _from_text(hint: Any, text: str) -> Any:
    """ValueError if `text` is none of `hint`."""
    for one in sorted(_alternatives(hint), key=lambda one: one in (str, Path)):  # any text is text: tried last
        try:
            return _single_from_text(one, text)
        except ValueError:
            continue
    raise ValueError


def _single_from_text(hint: Any, text: str) -> Any:
    if hint is type(None):
        if text.lower() in ("none", "null"):
            return None
        raise ValueError
    if typing.get_origin(hint) is tuple:
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        parts = [part.strip() for part in text.split(",")]
        parts = parts[:-1] if parts[-1] == "" else parts  # "()", and a comma behind the last one as in Python
        kinds = _element_types(hint, len(parts))
        if kinds is None:
            raise ValueError
        return tuple(_from_text(kind, part) for kind, part in zip(kinds, parts))
    if typing.get_origin(hint) is typing.Literal:
        found = [value for value in typing.get_args(hint) if str(value) == text]
        if not found:
            raise ValueError
        return found[0]
    if hint is bool:
        if text.lower() not in _WORDS:
            raise ValueError
        return _WORDS[text.lower()]
    if hint is int:
        try:
            return int(text)
        except ValueError:
            number = float(text)  # 1e4 is an integer to whoever types it
            if not number.is_integer():
                raise ValueError from None
            return int(number)
    if hint is float:
        return float(text)
    if hint in (str, Path) and text:
        return hint(text)
    raise ValueError


def _element_types(hint: Any, length: int) -> tuple[Any, ...] | None:
    """The types of a tuple's `length` elements; None if it has another length."""
    kinds = typing.get_args(hint)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return (kinds[0],) * length
    return kinds if len(kinds) == length else None


def _expected(hint: Any) -> str:
    described = []
    for one in _alternatives(hint):
        kinds = typing.get_args(one)
        if typing.get_origin(one) is tuple and kinds[-1] is Ellipsis:
            described.append(f"a list, each {_expected(kinds[0])}")
        elif typing.get_origin(one) is tuple:
            described.append(f"a list of {len(kinds)}, each {_expected(kinds[0])}")
        elif typing.get_origin(one) is typing.Literal:
            described.append(f"one of {', '.join(map(str, kinds))}")
        elif dataclasses.is_dataclass(one):
            described.append("an object of settings")
        else:
            described.append("a path" if one is Path else _NAMES.get(one, str(one)))
    return " or ".join(described)


def _shown(value: Any) -> str:
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 60 else f"{text[:57]}..."
