"""The reference solution against a 45-digit Taylor integrator, closed forms, and conserved quantities."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from support.taylor import integrate

from kansciml import SolveError, UsageError
from kansciml.tasks.ode.reference import invariant_drift, reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.tasks.ode.system import System

NAMES = [name for name in available_systems() if not get_system(name).stiff]
TRUTH = json.loads((Path(__file__).parents[2] / "reference" / "ode_end_states.json").read_text(encoding="utf-8"))


def truth(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) and 30-digit states (T, n), rounded to float64."""
    states = TRUTH["systems"][name]["states"]
    return np.array([float(t) for t in states]), np.array([[float(v) for v in row] for row in states.values()])


@pytest.mark.parametrize("name", NAMES)
def test_reference_agrees_with_45_digits(name: str) -> None:
    """1e-9 at the training and test ends and in between; Pleiades beyond its close encounter 1e-8."""
    system = get_system(name)
    t, expected = truth(name)
    assert {system.train_end, system.test_end} <= set(t)
    assert [float(value) for value in TRUTH["systems"][name]["u0"]] == system.u0.tolist()
    allowed = np.where((name == "pleiades") & (t > system.train_end), 1e-8, 1e-9)
    asked_together = np.abs(reference_solution(system, t) - expected).max(axis=1)
    asked_alone = np.array([np.abs(reference_solution(system, float(s)) - row).max() for s, row in zip(t, expected)])
    assert np.all(asked_together <= allowed), asked_together
    assert np.all(asked_alone <= allowed), asked_alone


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pleiades"])
def test_stored_truth_is_what_the_integrator_gives(name: str) -> None:
    """At another order than the stored one, so that the step sizes differ."""
    stored = TRUTH["systems"][name]
    times = list(stored["states"])[:2]
    for t, row in zip(times, integrate(name, stored["u0"], times, order=24, digits=36)):
        assert max(abs(a - Decimal(b)) for a, b in zip(row, stored["states"][t])) < Decimal("1e-27")


@pytest.mark.slow
def test_stored_truth_of_pleiades_is_what_the_integrator_gives() -> None:
    stored = TRUTH["systems"]["pleiades"]
    (row,) = integrate("pleiades", stored["u0"], ["1.4"], order=20, digits=26)
    assert max(abs(a - Decimal(b)) for a, b in zip(row, stored["states"]["1.4"])) < Decimal("1e-18")


def test_the_stiff_reference_agrees_with_bdf_and_with_the_published_end_state() -> None:
    """Robertson's kinetics at the end of the training span, and at 1e11 the value of the Test Set for IVP Solvers."""
    system = get_system("robertson")
    size = np.array([1.0, 4e-5, 1.0])
    bdf = solve_ivp(system.rhs, (0.0, 1e5), system.u0, "BDF", rtol=1e-9, atol=1e-11 * size).y[:, -1]
    assert np.all(np.abs(bdf - reference_solution(system, 1e5)[0]) <= 1e-9 * size)
    published = [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050]
    assert np.all(np.abs(reference_solution(system, 1e11)[0] - published) <= 1e-11 * size)


@pytest.mark.parametrize("name", ["lotka", "rigid", "pleiades", "robertson"])
def test_invariants_are_conserved_along_the_reference(name: str) -> None:
    """To 1e-10 on the training span, and to 1e-10 of the quantity's size (at least 1) on the whole test span, where the
    kinetic energy of Pleiades reaches several hundred during its close encounter."""
    system = get_system(name)
    assert system.invariants
    u = reference_solution(system, system.test_saveat)
    trained = system.test_saveat <= system.train_end
    for quantity, drift in invariant_drift(system, u).items():
        size = max(1.0, abs(float(system.invariants[quantity](system.u0))))
        assert drift.shape == (len(u),)
        assert np.abs(drift[trained]).max() <= 1e-10, quantity
        assert np.abs(drift).max() <= 1e-10 * size, quantity


@pytest.mark.parametrize("name", ["lotka", "rigid", "pleiades"])
def test_invariants_are_conserved_by_the_equations_at_any_state(name: str) -> None:
    """Derivative along the right-hand side, by central differences, at random states; and no quantity is constant."""
    system = get_system(name)
    rng = np.random.default_rng(1)
    u = np.abs(system.u0 + 0.2 * rng.standard_normal((20, system.state_size))) + 0.1
    du = system.rhs(0.0, u)
    h = 1e-6 / np.abs(du).max()
    for quantity, value in system.invariants.items():
        slope = (value(u + h * du) - value(u - h * du)) / (2 * h)
        assert np.abs(slope).max() <= 1e-6 * np.abs(du).max() * max(1.0, np.abs(value(u)).max()), quantity
        assert np.ptp(value(u)) > 1e-3, quantity


def test_rigid_body_ellipsoid_has_its_published_value() -> None:
    system = get_system("rigid")
    assert system.invariants["ellipsoid"](system.u0) == pytest.approx(2.93, abs=1e-15)
    assert system.invariants["cylinder"](system.u0) == pytest.approx(5.0, abs=1e-15)


def exponential(rate: float) -> System:
    return System(
        name="exponential", u0=[1.0, 3.0], t0=0.5, train_end=2.0, train_saveat=[0.5, 2.0], rhs=lambda t, u: rate * u
    )


def test_closed_form_in_any_order_with_repeats_and_at_t0() -> None:
    t = np.array([2.0, 0.5, 1.25, 2.0, 0.75])
    u = reference_solution(exponential(-1.0), t)
    np.testing.assert_allclose(u, np.exp(0.5 - t)[:, None] * [1.0, 3.0], atol=1e-11)


@pytest.mark.parametrize("time, t0", [(1.0, 0.0), (1e-12, 0.0), (1e9, -1e10), (1e-3, 1.7e9)])
def test_every_component_is_good_to_ten_digits_in_any_unit(time: float, t0: float) -> None:
    """An oscillator in units of 1e-12 and 1e9; the last component is coupled weakly and starts from zero."""
    unit = np.array([1e-12, 1e9, 1e-30])

    def rhs(t: float, u: np.ndarray) -> np.ndarray:
        v = u / unit
        return np.stack([v[..., 1], -v[..., 0], v[..., 0]], axis=-1) * unit / time

    t = t0 + time * np.array([0.5, 1.0, 2.0])
    system = System(name="oscillator", u0=[1e-12, 0.0, 0.0], t0=t0, train_end=t[-1], train_saveat=t, rhs=rhs)
    tau = (t - t0) / time
    expected = np.stack([np.cos(tau), -np.sin(tau), np.sin(tau)], axis=-1)
    np.testing.assert_allclose(reference_solution(system, t) / unit, expected, atol=1e-10)


def test_number_t0_alone_and_no_times() -> None:
    system = exponential(-1.0)
    assert reference_solution(system, 1.0).shape == (1, 2)
    np.testing.assert_array_equal(reference_solution(system, 0.5), [[1.0, 3.0]])
    assert reference_solution(system, np.array([])).shape == (0, 2)


def test_changing_a_solution_leaves_the_kept_one_alone() -> None:
    system = exponential(-1.0)
    first = reference_solution(system, [1.0, 2.0])
    copy = first.copy()
    first[:] = 0.0
    np.testing.assert_array_equal(reference_solution(system, [1.0, 2.0]), copy)


@pytest.mark.parametrize("t", [0.4, np.nan, np.inf, [[1.0]]])
def test_bad_times_are_refused(t: object) -> None:
    with pytest.raises(UsageError, match="times"):
        reference_solution(exponential(-1.0), t)


def test_blow_up_is_a_solve_error() -> None:
    """u' = u^2 from 1 reaches infinity at t = 1."""
    system = System(name="blowup", u0=[1.0], train_end=2.0, train_saveat=[0.0, 2.0], rhs=lambda t, u: u * u)
    with pytest.raises(SolveError, match="no reference solution of blowup up to t = 2"):
        reference_solution(system, 2.0)


def test_endless_integration_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kansciml.tasks.ode.reference.MAX_EVALUATIONS", 1000)
    with pytest.raises(SolveError, match="too stiff: more than 1000 evaluations"):
        reference_solution(exponential(-1e5), 2.0)


def test_times_an_ulp_apart_are_solved():
    system = replace(get_system("spiral"), dimensionless=False)
    t = np.linspace(0.0, 1.5, 51)
    states = reference_solution(system, np.concatenate([t, np.nextafter(t, 2.0)]))
    np.testing.assert_allclose(states[:51], states[51:], atol=1e-12)
