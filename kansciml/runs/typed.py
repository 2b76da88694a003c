"""Values by their annotations: settings and rows of records from JSON, settings from text.

Rows are read leniently, as older versions wrote them.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kansciml._files import to_jsonable

T = TypeVar("T")

_NAMES = {
    int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "an object", type(None): "null",
}  # fmt: skip
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass `kind` from a JSON object; names that it does not know are left out, missing ones have its default.

    Lists become tuples, objects dataclasses, and a null where a number is due NaN, which JSON has not.

    Raises:
        KeyError: a field without a default is missing. TypeError: a value of another kind.
        Both are one line that names the record, within `kansciml.runs.records.reading`.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"got {values!r:.60} for a {kind.__name__}")
    hints, found = typing.get_type_hints(kind), {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name in values:
            hint, value = hints[item.name], values[item.name]
            number = value is None and float in alternatives(hint) and type(None) not in alternatives(hint)
            own = math.nan if number else from_json(hint, value, item.name, lambda of, inner, where: read(of, inner))
            found[item.name] = own
        elif item.default is item.default_factory is dataclasses.MISSING:
            raise KeyError(item.name)
    return kind(**found)


def write(row: Any) -> dict[str, Any]:
    """A row in JSON types; numbers that are not finite are null."""
    return to_jsonable(row)


def attributes(source: object, names: str) -> dict[str, Any]:
    """The attributes of these names: what one row takes over from another."""
    return {name: getattr(source, name) for name in names.split()}


class Unlike(TypeError):
    """A value that its annotation does not allow: `where`, `hint` and `value` say which."""

    def __init__(self, where: str, hint: Any, value: Any) -> None:
        super().__init__(f"{where}: got {shown(value)}, expected {expected(hint)}")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or `hint` alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def from_json(hint: Any, value: Any, where: str, nested: Callable[[Any, Any, str], Any]) -> Any:
    """`value` as `hint` has it: lists become tuples, text paths, integers floats where a number is due.

    Args:
        where: name of the place, for messages.
        nested: ``nested(kind, value, where)`` makes the dataclass `kind` of an object.

    Raises:
        Unlike: a value of another type.
    """
    for one in alternatives(hint):
        origin, inside = typing.get_origin(one) or one, typing.get_args(one)
        if one is Any or (one is type(None) and value is None) or (origin is typing.Literal and value in inside):
            return value
        if dataclasses.is_dataclass(one) and isinstance(value, Mapping):
            return nested(one, value, where)
        if origin is tuple and isinstance(value, (list, tuple)):
            kinds = _element_types(one, len(value))
            if kinds is None:
                raise Unlike(where, hint, value)
            pairs = enumerate(zip(kinds, value))
            return tuple(from_json(kind, item, f"{where}[{i}]", nested) for i, (kind, item) in pairs)
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            kind = inside[1] if inside else Any
            return {key: from_json(kind, item, f"{where}.{key}", nested) for key, item in value.items()}
        if one is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if one in (int, bool, str) and type(value) is one:
            return value
        if one is Path and isinstance(value, str):
            return Path(value)
    raise Unlike(where, hint, value)


def from_text(hint: Any, text: str) -> Any:
    """The value of `hint` that a user typed. Raises ValueError: `text` is none."""
    for one in sorted(alternatives(hint), key=lambda one: one in (str, Path)):  # any text is text: tried last
        try:
            return _single(one, text)
        except (ValueError, KeyError):
            continue
    raise ValueError


def _single(hint: Any, text: str) -> Any:
    if hint is type(None):
        return {"none": None, "null": None}[text.lower()]
    if typing.get_origin(hint) is tuple:
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        parts = [part.strip() for part in text.split(",")]
        parts = parts[:-1] if parts[-1] == "" else parts  # "()", and a comma behind the last one as in Python
        kinds = _element_types(hint, len(parts))
        if kinds is None:
            raise ValueError
        return tuple(from_text(kind, part) for kind, part in zip(kinds, parts))
    if typing.get_origin(hint) is typing.Literal:
        return {str(value): value for value in typing.get_args(hint)}[text]
    if hint is bool:
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


def expected(hint: Any) -> str:
    """What `hint` allows, in words."""
    described = []
    for one in alternatives(hint):
        kinds = typing.get_args(one)
        if typing.get_origin(one) is tuple and kinds[-1] is Ellipsis:
            described.append(f"a list, each {expected(kinds[0])}")
        elif typing.get_origin(one) is tuple:
            described.append(f"a list of {len(kinds)}, each {expected(kinds[0])}")
        elif typing.get_origin(one) is typing.Literal:
            described.append(f"one of {', '.join(map(str, kinds))}")
        elif dataclasses.is_dataclass(one):
            described.append("an object of settings")
        else:
            described.append("a path" if one is Path else _NAMES.get(typing.get_origin(one) or one, str(one)))
    return " or ".join(described)


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 60 else f"{text[:57]}..."
