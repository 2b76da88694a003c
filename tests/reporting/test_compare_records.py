"""Two records are compared to the last bit; times and memory are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kansciml.reporting.compare_records import compare_records, differences_table, provenance_differences
from kansciml.runs.records import Record

RESULT = {
    "runs": [{"id": "a.b.0", "loss": 0.1, "steps": 3, "wall_s": 1.0, "label": "x", "sizes": [1, 2]}],
    "seconds": [1.0, 2.0],
    "empty": [],
    "none": None,
    "flag": True,
}
ARRAYS = {"a.loss": np.array([1.0, np.nan, np.inf]), "a.train_s": np.array([1.0]), "n": np.array([2**60])}


def record(result=RESULT, arrays=ARRAYS, **values) -> Record:
    return Record(Path("r"), "demo", {}, "0" * 12, "finished", result=result, arrays=arrays, **values)


def changed(**values) -> dict:
    return {**RESULT, "runs": [{**RESULT["runs"][0], **values}]}


def test_a_record_is_identical_to_itself_whatever_its_times():
    comparison = compare_records(record(), record())
    assert comparison.identical and comparison.elements == 4
    assert comparison.left_out == ["seconds", "train_s", "wall_s"]
    assert differences_table(comparison).title == "Every number is the same"
    other = record({**changed(wall_s=9.0), "seconds": [7.0, 7.0]}, {**ARRAYS, "a.train_s": np.array([9.0])})
    assert compare_records(record(), other).identical


def test_work_that_a_resumed_run_did_twice_is_told_apart_from_its_results():
    once, twice = changed(evaluations=10), changed(evaluations=13)
    assert [one.name for one in compare_records(record(once), record(twice)).differences] == ["runs[a.b.0].evaluations"]
    comparison = compare_records(record(twice, sessions=2), record(once))
    assert comparison.identical and "evaluations" in comparison.left_out
    assert not compare_records(record(changed(loss=0.2), sessions=2), record()).identical


@pytest.mark.parametrize(
    "result, name",
    [
        (changed(loss=np.nextafter(0.1, 1.0)), "runs[a.b.0].loss"), (changed(loss=None), "runs[a.b.0].loss"),
        (changed(steps=4), "runs[a.b.0].steps"), (changed(label="y"), "runs[a.b.0].label"),
        (changed(sizes=[1, 3]), "runs[a.b.0].sizes[1]"), (changed(sizes=[1, 2, 3]), "runs[a.b.0].sizes[2]"),
        ({**RESULT, "empty": [1]}, "empty"), ({**RESULT, "flag": 1}, "flag"), ({**RESULT, "new": 1}, "new"),
        ({**RESULT, "none": 0}, "none"),
    ],
)  # fmt: skip
def test_whatever_differs_is_found_in_either_direction(result, name):
    for pair in ((record(), record(result)), (record(result), record())):
        names = [one.name for one in compare_records(*pair).differences]
        assert name in names and len(names) <= 2


def test_what_an_earlier_version_did_not_record_is_no_difference():
    earlier, now = record(versions={"kansciml": "0.1.0"}), {**ARRAYS, "m": np.ones(2)}
    again = record({**RESULT, "new": 1}, now, versions={"kansciml": "0.2.0"})
    comparison = compare_records(earlier, again)
    assert comparison.identical and comparison.unknown == 2
    assert not compare_records(again, earlier).identical


@pytest.mark.parametrize(
    "name, array, count",
    [
        ("a.loss", np.array([np.nextafter(1.0, 2.0), np.nan, np.inf]), 1),
        ("a.loss", np.array([1.0, 0.0, -np.inf]), 2),
        ("a.loss", np.array([1.0, np.nan]), 3),
        ("n", np.array([2**60 + 1]), 1),
        ("n", np.array([2.0**60]), 1),
    ],
)
def test_arrays_are_compared_element_by_element(name, array, count):
    (difference,) = compare_records(record(), record(arrays={**ARRAYS, name: array})).differences
    assert difference.name == f"arrays.{name}" and difference.count == count
    more = record(arrays={**ARRAYS, "m": np.ones(2)})
    (difference,) = compare_records(record(), more).differences
    assert difference.name == "arrays.m" and difference.recorded == "absent"


def test_rtol_is_relative_to_the_larger_number():
    near, arrays = changed(loss=0.1 * (1 + 1e-6)), {**ARRAYS, "a.loss": np.array([1 + 1e-6, np.nan, np.inf])}
    assert compare_records(record(), record(near, arrays), rtol=1.1e-6).identical
    found = compare_records(record(), record(near, arrays), rtol=0.9e-6).differences
    assert [one.name for one in found] == ["runs[a.b.0].loss", "arrays.a.loss"]
    assert found[0].relative == pytest.approx(1e-6, rel=1e-3) and found[1].relative == pytest.approx(1e-6, rel=1e-3)
    assert not compare_records(record(), record(changed(loss=None)), rtol=0.5).identical


def test_numbers_that_differ_never_look_the_same_in_the_table():
    table = differences_table(compare_records(record(), record(changed(loss=np.nextafter(0.1, 1.0).item()))))
    ((name, left, right, *_),) = table.rows
    assert name == "runs[a.b.0].loss" and left != right
    assert any("wall_s" in note for note in table.notes)


def test_what_else_differs_is_named():
    left = record(versions={"torch": "2.4", "numpy": "2"}, machine={"threads": 1}, commit="a")
    right = record(versions={"torch": "2.5", "numpy": "2"}, machine={"threads": 2}, commit="b")
    found = {name: (one, other) for name, one, other in provenance_differences(left, right)}
    assert found == {"version of torch": ("2.4", "2.5"), "machine: threads": (1, 2), "commit": ("a", "b")}
    assert provenance_differences(left, left) == []
