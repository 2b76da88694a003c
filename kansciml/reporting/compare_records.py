"""Two records of the same settings, number by number: what a run gives when it is run again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kansciml.runs.records import Record
from kansciml.runs.tables import Table

NOT_COMPARED = (
    "wall_s", "train_s", "cpu_s", "seconds", "images_per_s", "samples_per_s", "seconds_per_step", "peak_memory_mb",
    "peak_memory_workers_mb", "memory_bytes",
)  # fmt: skip
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
            arrays, were compared. left_out: names that were not, with times and memory. unknown: how many values and
            arrays the recorded run lacks, which another version made.
    """

    differences: list[Difference]
    values: int
    elements: int
    left_out: list[str]
    unknown: int = 0

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def compare_records(recorded: Record, again: Record, rtol: float = 0.0) -> RecordComparison:
    """Compare results and arrays of two records, every number; times and memory (`NOT_COMPARED`) are left out.

    So are `COUNTS` where one of the two was made in several sessions, and what the first lacks if another version of
    this package made it.

    Args:
        rtol: numbers a and b count as equal up to |a - b| <= rtol max(|a|, |b|); at 0 to the bit, but for the sign
            of zero. A value that is not finite equals one of its kind.
    """
    left, right = (
        dict(_leaves(one.result)) | {f"arrays.{name}": array for name, array in one.arrays.items()}
        for one in (recorded, again)
    )
    not_compared = NOT_COMPARED + (COUNTS if recorded.sessions > 1 or again.sessions > 1 else ())
    plain = {name: re.sub(r"(\[\d+\])+$", "", name).rpartition(".")[2] for name in (*left, *right)}
    other = recorded.versions.get("kansciml") != again.versions.get("kansciml")
    compared = [name for name, last in plain.items() if last not in not_compared and (name in left or not other)]
    differences = [_compare(name, left.get(name, _ABSENT), right.get(name, _ABSENT), rtol) for name in compared]
    arrays = [left.get(name, right.get(name)) for name in compared if name.startswith("arrays.")]
    return RecordComparison(
        [one for one in differences if one is not None],
        len(compared) - len(arrays),
        sum(one.size for one in arrays if isinstance(one, np.ndarray)),
        sorted({last for last in plain.values() if last in not_compared}),
        len(right.keys() - left.keys()) if other else 0,
    )


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
    if comparison.unknown:
        notes.append(f"{comparison.unknown} values and arrays of the new run are not in the recorded one.")
    title = "What differs" if rows else "Every number is the same"
    return Table(title, ["name", "recorded", "again", "relative difference", "differ", "of"], rows, notes)


def provenance_differences(recorded: Record, again: Record) -> list[tuple[str, Any, Any]]:
    """Name, recorded and present value of whatever differs of versions, machine, threads and commit."""
    left, right = (
        {f"version of {name}": value for name, value in one.versions.items()}
        | {f"machine: {name}": value for name, value in one.machine.items()}
        | {"commit": one.commit}
        for one in (recorded, again)
    )
    names = dict.fromkeys((*left, *right))
    return [(name, left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)]


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
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        if left.shape == right.shape and left.dtype.kind == right.dtype.kind:
            return _compare_arrays(name, left, right, rtol)
    elif _is_number(left) and _is_number(right):
        relative = float(_relative(left, right))
        same = left == right or (rtol > 0 and relative <= rtol)
        return None if same else Difference(name, left, right, relative)
    elif type(left) is type(right) and left == right:
        return None
    size = max(one.size if isinstance(one, np.ndarray) else 1 for one in (left, right))
    recorded, again = (
        f"{one.dtype} {list(one.shape)}" if isinstance(one, np.ndarray) else one for one in (left, right)
    )
    return Difference(name, recorded, again, None, size, size)


def _compare_arrays(name: str, left: np.ndarray, right: np.ndarray, rtol: float) -> Difference | None:
    """Arrays of one shape and kind, element by element."""
    if numeric := left.dtype.kind in "fcbiu":
        exact = (left == right) | (np.isnan(left) & np.isnan(right))
        relative = np.where(exact, 0.0, _relative(left, right))
        differs = ~exact & ~((relative <= rtol) & (rtol > 0))  # integers may be too large for `relative`
    else:
        differs = left != right
        relative = differs.astype(float)
    if not differs.any():
        return None
    at = np.unravel_index(np.argmax(np.where(differs, relative, -1.0)), differs.shape)
    largest = float(relative[at]) if numeric else None
    return Difference(name, left[at].item(), right[at].item(), largest, int(differs.sum()), left.size)


def _relative(left: ArrayLike, right: ArrayLike) -> np.ndarray:
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
