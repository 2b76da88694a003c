"""Rows of records as frozen dataclasses: read from JSON leniently, as older versions wrote it, and written back."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from kansciml._files import to_jsonable

T = TypeVar("T")


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
            found[item.name] = _value(hints[item.name], values[item.name], item.name)
        elif item.default is item.default_factory is dataclasses.MISSING:
            raise KeyError(item.name)
    return kind(**found)


def write(row: Any) -> dict[str, Any]:
    """A row in JSON types; numbers that are not finite are null."""
    return to_jsonable(row)


def _value(hint: Any, value: Any, name: str) -> Any:
    hints = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for one in hints:
        origin, inside = typing.get_origin(one) or one, typing.get_args(one)
        if one is Any or (one is type(None) and value is None):
            return value
        if dataclasses.is_dataclass(one) and isinstance(value, Mapping):
            return read(one, value)  # type: ignore[arg-type]
        if origin is tuple and isinstance(value, (list, tuple)):
            kinds = (inside[0],) * len(value) if inside[-1] is Ellipsis else inside
            return tuple(_value(kind, item, name) for kind, item in zip(kinds, value, strict=True))
        if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
            if isinstance(value, Mapping):
                return {key: _value(inside[1] if inside else Any, item, name) for key, item in value.items()}
        elif origin is typing.Literal and value in inside:
            return value
        elif one is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif one in (int, bool, str) and type(value) is one:
            return value
    if float in hints and value is None:
        return math.nan
    raise TypeError(f"{name} is {value!r:.60}")
