"""Properties every built-in system must have, and the checks of `System` itself."""

from __future__ import annotations

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.ode.data import full_data, training_data, with_normalisation
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.tasks.ode.system import System

NAMES = available_systems()


def decay(t: float, u: np.ndarray) -> np.ndarray:
    return -u


def unpacks(t: float, u: np.ndarray) -> np.ndarray:
    x, y = u
    return np.array([-x, -y])


def make(**changes: object) -> System:
    options = {
        "name": "decay",
        "u0": np.array([1.0, 2.0]),
        "train_end": 1.0,
        "train_saveat": np.array([0.0, 0.5, 1.0]),
        "rhs": decay,
    }
    return System(**{**options, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_rhs_of_a_batch_equals_rhs_of_each_state(name: str) -> None:
    system = get_system(name)
    rng = np.random.default_rng(0)
    batch = system.u0 + 0.3 * rng.standard_normal((2, 5, system.state_size))
    looped = np.array([[system.rhs(0.0, u) for u in row] for row in batch])
    np.testing.assert_allclose(system.rhs(0.0, batch), looped, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_training_trajectory_is_normalised_into_the_grid_and_fills_it(name: str) -> None:
    """|z| <= 1 everywhere. Components that share one treatment (rigid, spiral) fill the grid together, others alone."""
    system = get_system(name)
    u = reference_solution(
        system, system.train_saveat if system.stiff else np.linspace(system.t0, system.train_end, 4001)
    )
    z = (u - system.center) / system.scale
    assert np.abs(z).max() <= 1.0
    groups: dict[tuple[float, float], list[int]] = {}
    for i, treatment in enumerate(zip(system.center, system.scale)):
        groups.setdefault(treatment, []).append(i)
    for members in groups.values():
        assert 0.85 <= np.abs(z[:, members]).max()
        assert np.ptp(z[:, members]) >= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_rate_is_the_root_mean_square_of_the_derivative(name: str) -> None:
    """Within 10 %, since it is written down rounded; components with one rate are pooled. Of a stiff system at its save
    points: over the span the slopes of its transient would count for nothing."""
    system = get_system(name)
    t = system.train_saveat if system.stiff else np.linspace(system.t0, system.train_end, 4001)
    square = np.mean(system.rhs(0.0, reference_solution(system, t)) ** 2, axis=0)
    rate = np.array(system.rate)
    shared = name in ("rigid", "spiral")
    np.testing.assert_allclose(rate, np.sqrt(square.mean() if shared else square), rtol=0.1)


def test_rigid_body_is_not_standardised_per_component() -> None:
    system = get_system("rigid")
    for values in (system.center, system.scale, system.rate, system.loss_scale):
        assert len(set(np.asarray(values).tolist())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_loss_scale_is_ones_or_the_spread_of_the_training_data(name: str) -> None:
    system = get_system(name)
    times = system.train_saveat if system.stiff else np.linspace(system.t0, system.train_end, 4001)
    variance = reference_solution(system, times).var(axis=0)
    if name in ("fitzhugh", "robertson"):
        expected = np.sqrt(variance)
    elif name == "pleiades":
        expected = np.repeat(np.sqrt([variance[:14].mean(), variance[14:].mean()]), 14)
    else:
        expected = np.ones(system.state_size)
    np.testing.assert_allclose(system.loss_scale, expected, rtol=0.02)


# Training points, training end, test points, test end: the table of the literature's settings.
SPANS = {
    "lotka": (35, 3.5, 141, 14.0),
    "fitzhugh": (101, 20.0, 251, 50.0),
    "rigid": (101, 20.0, 201, 40.0),
    "spiral": (30, 1.5, 117, 3.0),
    "pleiades": (29, 1.4, 61, 3.0),
    "robertson": (51, 1e5, 57, 1e6),
}


@pytest.mark.parametrize("name", NAMES)
def test_spans_and_held_out_data(name: str) -> None:
    """Test data lie beyond the training span; the training times are among the plotted ones."""
    system = get_system(name)
    assert (len(system.train_saveat), system.train_end, len(system.test_saveat), system.test_end) == SPANS[name]
    train, full = training_data(system), full_data(system)
    assert np.isin(train.t, full.t).all() and full.t.max() == system.test_end
    np.testing.assert_array_equal(full.states[0], system.u0)
    np.testing.assert_allclose(train.states, full.states[np.isin(full.t, train.t)], atol=1e-8)


def test_defaults() -> None:
    system = make(test_end=2.0)
    assert (system.title, system.labels, system.phase_plane, system.hidden) == ("decay", ("u1", "u2"), (0, 1), 50)
    assert system.test_saveat[0] == 0.0 and system.test_saveat[-1] == 2.0 and len(system.test_saveat) == 201
    assert make(u0=[1.0]).phase_plane is None
    with pytest.raises(ValueError, match="read-only"):
        system.u0[0] = 5.0


def test_save_points_that_miss_an_end_by_rounding_are_accepted() -> None:
    """Repeated addition of 0.1 gives less than 0.8 after eight steps and more than 0.3 after three."""
    for end, steps in ((0.8, 8), (0.3, 3)):
        times = np.cumsum([0.0] + [0.1] * steps)
        assert times[-1] != end
        assert make(train_end=end, train_saveat=times, test_saveat=times).train_saveat[-1] == end


@pytest.mark.parametrize(
    "t", [1.7e9 + 1e-3 * np.arange(5), 1.7e12 + np.arange(5.0), 1e-15 * np.arange(5), np.array([0, 1e-13, 1, 2])]
)
def test_times_are_kept_however_close_together(t: np.ndarray) -> None:
    system = make(t0=t[0], train_end=t[-1], train_saveat=t)
    np.testing.assert_array_equal(system.train_saveat, t)
    assert np.all(np.diff(system.test_saveat) > 0)


def test_a_last_time_short_of_the_end_stays_where_it_is() -> None:
    """The end of the span lies one sample beyond the last one, which is a rounding error of the absolute time only."""
    t = 1.7e12 + np.arange(5.0)
    np.testing.assert_array_equal(make(t0=t[0], train_end=t[-1] + 1.0, train_saveat=t).train_saveat, t)


def test_units_are_the_range_of_the_training_span_or_plain() -> None:
    plain, own = get_system("lotka").units, with_normalisation(make(u0=[1e-9, 2e6]))
    assert plain.are_plain
    half = (1 - np.exp(-1)) / 2 / 0.9
    np.testing.assert_allclose(own.units.state, half * np.array([1e-9, 2e6]), rtol=1e-9)
    np.testing.assert_allclose(own.units.origin, (1 + np.exp(-1)) / 2 * np.array([1e-9, 2e6]), rtol=1e-9)
    assert own.units.time == 1.0 and own.loss_scale[1] / own.loss_scale[0] == pytest.approx(2e15)


BAD = {
    "name": ({"name": "a/b"}, "system name"),
    "u0 shape": ({"u0": np.ones((2, 2))}, r"u0 of shape \(2, 2\)"),
    "u0 text": ({"u0": ["a", "b"]}, "expected numbers"),
    "u0 nan": ({"u0": [1.0, np.nan]}, "not finite"),
    "train end": ({"train_end": 0.0}, "increasing times"),
    "test end": ({"test_end": 0.5}, "increasing times"),
    "test end zero": ({"test_end": 0.0}, "increasing times"),
    "saveat order": ({"train_saveat": [0.5, 0.0]}, "train_saveat must be strictly increasing"),
    "saveat beyond": ({"train_saveat": [0.5, 2.0]}, "within 0 to 1"),
    "test saveat": ({"test_saveat": [0.0, 0.5]}, "start at 0 and end at 1"),
    "labels": ({"labels": ("a",)}, "got 1 labels"),
    "partial scaling": ({"scale": (1.0, 1.0)}, "got only scale"),
    "negative scale": ({"center": (0, 0), "scale": (1, -1), "rate": (1, 1)}, "positive"),
    "loss scale": ({"loss_scale": [1.0]}, "loss_scale of shape"),
    "hidden": ({"hidden": 0}, "positive width"),
    "phase plane": ({"phase_plane": (0, 2)}, "phase_plane"),
    "no truth": ({"rhs": None}, "either rhs"),
    "rhs shape": ({"rhs": lambda t, u: np.ones(3)}, "gave shape"),
    "rhs not batched": ({"rhs": lambda t, u: np.array([u[0], -u[1]])}, r"\(3, 4, 2\) gave shape \(2, 4, 2\)"),
    "rhs unpacks the state": ({"rhs": unpacks}, r"\(3, 4, 2\) raised ValueError"),
    "rhs unpacks a batch of three": ({"u0": [1, 2, 3], "rhs": lambda t, u: np.array([*u][:3])}, r"gave shape"),
    "rhs raises": ({"rhs": lambda t, u: 1 / 0}, "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_value_is_one_clear_line(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(UsageError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
