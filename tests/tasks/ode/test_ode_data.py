"""Reading a user's CSV, every way it can be wrong, and the system made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.ode.data import (
    Trajectory,
    full_data,
    hardly_varying,
    read_csv,
    system_from_trajectory,
    training_data,
)
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import get_system


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


GOOD = {
    "header": ("t,prey,predator\n0,1,2\n0.5,3,4\n", ("prey", "predator")),
    "no header": ("0,1,2\n0.5,3,4\n", ("u1", "u2")),
    "numpy header": ("# t,a,b\n0,1,2\n0.5,3,4\n", ("a", "b")),
    "comments": ("# made by hand, in May, twice, sorry\n# 2024\nt,a,b\n0,1,2\n0.5,3,4\n", ("a", "b")),
    "unnamed component": ("t,a,\n0,1,2\n0.5,3,4\n", ("a", "u2")),
    "spaces, blank lines, CRLF": ("\r\nt, a , b\r\n 0, 1,2 \r\n\r\n0.5,3,4\r\n\r\n", ("a", "b")),
    "byte order mark": ("\ufefft,a,b\n0,1,2\n0.5,3,4\n", ("a", "b")),
    "exponents": ("0,1e0,2\n5e-1,+3,4.\n", ("u1", "u2")),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_files(case: str, tmp_path: Path) -> None:
    text, labels = GOOD[case]
    data = read_csv(write(tmp_path, text))
    np.testing.assert_array_equal(data.t, [0.0, 0.5])
    np.testing.assert_array_equal(data.states, [[1.0, 2.0], [3.0, 4.0]])
    assert data.labels == labels and data.source == "data.csv" and len(data) == 2


def test_numpys_own_file_is_read_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    table = np.column_stack([np.sort(rng.uniform(0, 9, 50)), rng.standard_normal((50, 3))])
    path = tmp_path / "numpy.csv"
    np.savetxt(path, table, delimiter=",", header="t,a,b,c", fmt="%.17g")
    data = read_csv(path)
    np.testing.assert_array_equal(np.column_stack([data.t, data.states]), table)


BAD = {
    "not text": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not readable text"),
    # Python 3.10's csv module refuses a zero byte itself; later ones pass it on.
    "zero bytes": (b"0,1\n1,\x002\n", "not readable text|row 2, column 2"),
    "empty": ("", "no rows"),
    "only a header": ("t,x\n", "no rows"),
    "only a comment": ("# t,x\n", "no rows"),
    "infinite": ("0,1\n1,inf\n", "row 2, column 2: got 'inf'"),
    "text": ("0,1,1\n1,2,x\n", "row 2, column 3: got 'x'"),
    "text in the first row": ("0,one\n1,2\n", "row 1, column 2: got 'one'"),
    "no time": ("0,1\n,2\n2,3\n", "row 2, column 1: got an empty cell"),
    "nothing measured": ("t,x\n0,nan\n1,\n", "no measurement at all"),
    "unsorted": ("t,x\n0,1\n2,1\n1,1\n", "row 4: time 1 is earlier than the time 2 before it"),
    "repeated": ("0,1\n1,1\n1,2\n", "row 3: time 1 repeats the time 1 before it"),
    "one column": ("0\n1\n2\n", "only one column"),
    "one row": ("t,x\n0,1\n", "only one row"),
    "ragged, short": ("0,1,2\n1,2\n", "row 2: got 2 cells, expected 3"),
    "ragged, long": ("t,x\n0,1\n1,2,3\n", "row 3: got 3 cells, expected 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_one_clear_line(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=message) as caught:
        read_csv(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_csv(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_csv(tmp_path)


def straight_lines(rows: int = 11) -> Trajectory:
    """Slopes 2 and -30, uneven times."""
    t = np.linspace(1.0, 2.0, rows) ** 2
    return Trajectory(t, np.column_stack([2.0 * t, 5.0 - 30.0 * t]), ("a", "b"), "lines.csv")


def test_system_from_data_holds_back_its_tail() -> None:
    data = straight_lines(11)
    system = system_from_trajectory(data, "lines", train_fraction=0.6)
    train, full = training_data(system), full_data(system)
    assert (len(train), len(full)) == (7, 11)
    np.testing.assert_array_equal(train.states, data.states[:7])
    np.testing.assert_array_equal(full.states, data.states)
    np.testing.assert_array_equal(train.t, system.train_saveat)
    assert (system.t0, system.train_end, system.test_end) == (1.0, data.t[6], 4.0)
    np.testing.assert_array_equal(system.u0, data.states[0])
    assert system.rhs is None and system.labels == ("a", "b") and not system.invariants


def test_system_from_data_is_scaled_by_its_training_rows() -> None:
    system = system_from_trajectory(straight_lines(), "lines", train_fraction=0.6)
    z = (training_data(system).states - system.center) / system.scale
    np.testing.assert_allclose([z.min(axis=0), z.max(axis=0)], [[-0.9, -0.9], [0.9, 0.9]])
    np.testing.assert_allclose(system.rate, [2.0, 30.0])
    np.testing.assert_allclose(system.loss_scale, training_data(system).states.std(axis=0))


def test_a_small_variation_is_stretched_to_the_grid_as_a_large_one_is() -> None:
    """Kelvin and degrees Celsius are the same data."""
    t = np.linspace(0.0, 1.0, 9)
    celsius = np.column_stack([20.0 + 0.5 * np.sin(t), 1 + t])
    systems = [system_from_trajectory(Trajectory(t, celsius + np.array([zero, 0.0])), "x") for zero in (0.0, 273.15)]
    for key in ("scale", "loss_scale", "rate"):
        np.testing.assert_allclose(*(getattr(system, key) for system in systems), rtol=1e-11)


def test_constant_components_get_a_usable_scaling() -> None:
    t = np.linspace(0.0, 1.0, 5)
    system = system_from_trajectory(Trajectory(t, np.column_stack([t, 0 * t, 0 * t + 7.0])), "constant")
    np.testing.assert_allclose(system.scale[1:], [7.0, 0.07])  # a zero has no size of its own: that of the largest
    np.testing.assert_allclose(system.center, [0.5, 0.0, 7.0])
    assert min(system.rate) > 0 and system.loss_scale.min() > 0


@pytest.mark.parametrize("unit, time", [(1e-12, 1e12), (1e140, 1e-100), (1e-140, 1e100)])
def test_scaling_follows_the_units(unit: float, time: float) -> None:
    t, states = (
        np.array([0.0, 0.1, 1.0, 2.0]),
        np.array([[0.0, 5.0, 0.0], [1.0, 5.0, 0.0], [4.0, 5.0, 0.0], [3.0, 5, 0]]),
    )
    plain, own = (system_from_trajectory(Trajectory(t * b, states * a), "x") for a, b in ((1.0, 1.0), (unit, time)))
    for key, factor in (("center", unit), ("scale", unit), ("loss_scale", unit), ("rate", unit / time)):
        np.testing.assert_allclose(np.divide(getattr(own, key), factor), getattr(plain, key), rtol=1e-13)


def test_components_that_hardly_vary_are_named() -> None:
    t = np.linspace(0.0, 1.0, 5)
    states = np.column_stack([1e-9 * t, 1e9 + 0.5 * t, 0 * t, 0 * t + 7.0])
    system = system_from_trajectory(Trajectory(t, states, ("a", "b", "c", "d")), "x")
    assert hardly_varying(system) == ("b",) and hardly_varying(get_system("pleiades")) == ()


def test_all_rows_in_training_leave_no_test_data() -> None:
    system = system_from_trajectory(straight_lines(), "lines")
    assert system.test_end is None
    assert len(training_data(system)) == len(full_data(system)) == 11


def test_smallest_fraction_keeps_two_rows() -> None:
    assert len(training_data(system_from_trajectory(straight_lines(), "lines", train_fraction=1e-6))) == 2


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, np.nan])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(UsageError, match="train_fraction"):
        system_from_trajectory(straight_lines(), "lines", train_fraction=fraction)


def test_one_row_is_not_a_system() -> None:
    with pytest.raises(UsageError, match="at least two"):
        system_from_trajectory(Trajectory([0.0], [[1.0]]), "point")


def test_there_is_no_truth_beyond_the_data() -> None:
    with pytest.raises(UsageError, match="known only through its data"):
        reference_solution(system_from_trajectory(straight_lines(), "lines"), 1.5)


@pytest.mark.parametrize(
    ("t", "states", "message"),
    [
        ([0.0, 1.0], [[1.0]], "shape"),
        ([0.0, 1.0], [1.0, 2.0], "shape"),
        ([0.0, np.nan], [[1.0], [2.0]], "not finite"),
        ([1.0, 1.0], [[1.0], [2.0]], "strictly increasing"),
    ],
)
def test_bad_trajectory(t: list, states: list, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trajectory(t, states)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_numbers_that_cannot_be_squared_are_refused(size: float) -> None:
    with pytest.raises(UsageError, match=r"lines: values of b reach .*change their unit"):
        system_from_trajectory(Trajectory([0.0, 1.0], [[1.0, size], [2.0, size]], ("a", "b")), "lines")
