"""Rows of records as frozen dataclasses: read from JSON leniently, as older versions wrote it, and written back."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from kansciml._files import to_jsonable
from kansciml.runs.hints import alternatives, from_json

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
    if value is None and float in alternatives(hint) and type(None) not in alternatives(hint):
        return math.nan
    return from_json(hint, value, name, lambda kind, inner, where: read(kind, inner))
