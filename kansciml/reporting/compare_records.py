"""Two records of the same settings, number by number: what a run gives when it is run again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kansciml.runs.records import Record
from kansciml.runs.tables import Table

NOT_COMPARED = (
    "wall_s",
    "train_s",
    "cpu_s",
    "seconds",
    "images_per_s",
    "samples_per_s",
    "seconds_per_step",
    "peak_memory_mb",
    "peak_memory_workers_mb",
    "memory_bytes",
)
"""Last parts of the names that hold times, and memory as the machine happened to have it: no two runs agree there."""
COUNTS = ("evaluations",)
"""Last parts of the names that hold how much work there was: a run that was resumed has done some of it twice."""
MAX_ROWS = 40
_ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One value that two records do not share.

    Args:
        name: dotted path within the result, or ``arrays.`` and the name of an array.
        recorded, again: the two values; of arrays those that differ most, or their shapes.
        relative: |a - b| / max(|a|, |b|), the largest one of an array; None for what is no number.
        count, size: how many elements differ, and how many there are.
    """

    name: str
    recorded: Any
    again: Any
    relative: float | None
    count: int = 1
    size: int = 1


@dataclass(frozen=True)
class RecordComparison:
    """The outcome of `compare_records`.

    Args:
        differences: what is not the same. values, elements: how many values of the results, and how many elements of
            arrays, were compared. left_out: names that were not, with times and memory.
    """

    differences: list[Difference]
    values: int
    elements: int
    left_out: list[str]

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def compare_records(recorded: Record, again: Record, rtol: float = 0.0) -> RecordComparison:
    """Compare results and arrays of two records, every number; times and memory (`NOT_COMPARED`) are left out.

    So are `COUNTS` where one of the two was made in several sessions.

    Args:
        rtol: numbers a and b count as equal up to |a - b| <= rtol max(|a|, |b|); at 0 to the bit, but for the sign
            of zero. A value that is not finite equals one of its kind.
    """
    left, right = dict(_leaves(recorded.result)), dict(_leaves(again.result))
    not_compared = NOT_COMPARED + (COUNTS if recorded.sessions > 1 or again.sessions > 1 else ())

    def is_left_out(name: str) -> bool:
        return re.sub(r"(\[\d+\])+$", "", name).rpartition(".")[2] in not_compared

    names = [name for name in dict.fromkeys((*left, *right)) if not is_left_out(name)]
    found = []
    for name in names:
        difference = _compare(name, left.get(name, _ABSENT), right.get(name, _ABSENT), rtol)
        if difference is not None:
            found.append(difference)
    arrays = dict.fromkeys((*recorded.arrays, *again.arrays))
    compared = [name for name in arrays if not is_left_out(name)]
    for name in compared:
        difference = _compare_arrays(f"arrays.{name}", recorded.arrays.get(name), again.arrays.get(name), rtol)
        if difference is not None:
            found.append(difference)
    skipped = {re.sub(r"\[.*", "", name.rpartition(".")[2]) for name in (*left, *right, *arrays) if is_left_out(name)}
    elements = sum(recorded.arrays[name].size for name in compared if name in recorded.arrays)
    return RecordComparison(found, len(names), elements, sorted(skipped))


def differences_table(comparison: RecordComparison) -> Table:
    """What differs, the largest relative difference first; at most `MAX_ROWS` rows."""
    ordered = sorted(comparison.differences, key=lambda one: -(math.inf if one.relative is None else one.relative))
    rows = [
        [one.name, _shown(one.recorded), _shown(one.again), one.relative, one.count, one.size]
        for one in ordered[:MAX_ROWS]
    ]
    notes = [f"Compared: {comparison.values} values and {comparison.elements} elements of arrays."]
    if len(ordered) > MAX_ROWS:
        notes.append(f"{len(ordered) - MAX_ROWS} more are not shown; --json has all.")
    if comparison.left_out:
        notes.append(
            f"Not compared, times, memory, and what a resumed run did twice: {', '.join(comparison.left_out)}."
        )
    title = "What differs" if rows else "Every number is the same"
    return Table(title, ["name", "recorded", "again", "relative difference", "differ", "of"], rows, notes)


def provenance_differences(recorded: Record, again: Record) -> list[tuple[str, Any, Any]]:
    """Name, recorded and present value of whatever differs of versions, machine, threads and commit."""
    found = []
    for group, left, right in (
        ("version of", recorded.versions, again.versions),
        ("machine:", recorded.machine, again.machine),
    ):
        for name in dict.fromkeys((*left, *right)):
            if left.get(name) != right.get(name):
                found.append((f"{group} {name}", left.get(name), right.get(name)))
    if recorded.commit != again.commit:
        found.append(("commit", recorded.commit, again.commit))
    return found


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> plain value; objects of a list are named by their ``id`` or ``name``, else by their place."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, (list, tuple)):
        if not value:
            yield prefix, []
        for i, item in enumerate(value):
            name = item.get("id", item.get("name", i)) if isinstance(item, Mapping) else i
            yield from _leaves(item, f"{prefix}[{name}]")
    else:
        yield prefix, value


def _compare(name: str, left: Any, right: Any, rtol: float) -> Difference | None:
    if _is_number(left) and _is_number(right):
        relative = float(_relative(np.float64(left), np.float64(right)))
        same = left == right or (rtol > 0 and relative <= rtol)
        return None if same else Difference(name, left, right, relative)
    return None if type(left) is type(right) and left == right else Difference(name, left, right, None)


def _compare_arrays(name: str, left: np.ndarray | None, right: np.ndarray | None, rtol: float) -> Difference | None:
    if left is None or right is None:
        shown = [_ABSENT if one is None else f"{one.dtype} {list(one.shape)}" for one in (left, right)]
        size = (right if left is None else left).size  # one of them is there
        return Difference(name, *shown, None, size, size)
    if left.shape != right.shape or left.dtype.kind != right.dtype.kind:
        shown = [f"{one.dtype} {list(one.shape)}" for one in (left, right)]
        return Difference(name, *shown, None, max(left.size, right.size), max(left.size, right.size))
    if left.dtype.kind not in "fcbiu":
        differs = left != right
        if not differs.any():
            return None
        at = np.unravel_index(np.argmax(differs), differs.shape)
        return Difference(name, str(left[at]), str(right[at]), None, int(differs.sum()), left.size)
    exact = (left == right) | (np.isnan(left) & np.isnan(right))
    relative = np.where(exact, 0.0, _relative(left, right))
    differs = ~exact & ~((relative <= rtol) & (rtol > 0))  # integers may be too large for `relative`
    if not differs.any():
        return None
    at = np.unravel_index(np.argmax(np.where(differs, relative, -1.0)), differs.shape)
    largest = float(relative[at])
    return Difference(name, left[at].item(), right[at].item(), largest, int(differs.sum()), left.size)


def _relative(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|a - b| / max(|a|, |b|), infinite where only one of them is finite, 0 where both are 0."""
    left, right = np.asarray(left, np.complex128), np.asarray(right, np.complex128)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.maximum(np.abs(left), np.abs(right))
        relative = np.where(size == 0, 0.0, np.abs(left - right) / size)
    return np.where(np.isfinite(left) & np.isfinite(right), relative, np.inf)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Every digit: numbers that differ in the last one must not look the same."""
    return repr(value) if isinstance(value, float) else str(value)
