"""Solvers, inputs and threads of the Julia backend, in a real Julia."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from kansciml import UsageError
from kansciml.backends._engines.methods import named_in, needed_packages, solved_by
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.julia import JuliaBackend
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs
from kansciml.models.units import Units

FIELD = FieldSpec("mlp", (4, 5, 2), inputs=1, time=True, scale=(1.0, 2.0, 1.0, 2.0))
UNITS = Units(np.array([0.3, -2.0]), np.array([0.5, 10.0]), t0=-1.0, time=3.0)
KNOTS = np.array([0.0, 0.3, 0.8, 2.0])


def _problem(solver: str = "5", tolerance: float = 1e-10, units: Units | None = None) -> OdeProblem:
    """Two series, one with linear inputs and gaps, one with held inputs and a learned start."""
    rng = np.random.default_rng(0)
    signals = (Inputs(KNOTS, rng.normal(size=(4, 1)), kind) for kind in ("linear", "held"))
    data = rng.normal(size=(3, 2))
    data[1, 0] = np.nan
    first, second = (np.array(t) for t in ([0.0, 0.8, 1.5], [0.4, 1.0, 1.9]))
    series = (
        Series(rng.normal(size=2), first, data, inputs=next(signals)),
        Series(rng.normal(size=2), second, rng.normal(size=(3, 2)), 0.3, inputs=next(signals), learned=True),
    )
    return OdeProblem(FIELD, series, None, tolerance, tolerance, units=units, solver=solver)


def _reference(solver, one: Series, params: np.ndarray) -> np.ndarray:
    """SciPy between the knots, by the slopes that the solver tells."""
    u, t, found = one.u0, one.t0, []
    stops = np.unique([*one.saveat, *one.inputs.t[(one.inputs.t > t) & (one.inputs.t < one.saveat[-1])]])
    for stop in stops[stops > t]:
        held = one.inputs(t)

        def slope(at, v, held=held):
            w = held if one.inputs.kind == "held" else one.inputs(at)
            return solver.rhs(v[None], at, params, w[None])[0]

        u, t = solve_ivp(slope, (t, stop), u, "DOP853", rtol=1e-11, atol=1e-11).y[:, -1], stop
        if stop in one.saveat:
            found.append(u)
    return np.array([one.u0, *found] if one.saveat[0] == one.t0 else found)


ACCURACY = {"3": 1e-6, "5": 1e-7, "8": 1e-7, "stiff": 1e-6}
OTHERS = {"FBDF": 1e-4, "KenCarp4": 1e-5, "AutoTsit5": 1e-5}


@pytest.mark.julia
@pytest.mark.parametrize(
    "name, accuracy", [*ACCURACY.items(), *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHERS.items())]
)
def test_solvers_agree_with_scipy_and_their_gradients_with_differences(julia, name, accuracy):
    problem = _problem(name, 1e-9, UNITS)
    solver = julia.solver(problem)
    assert solver.method == ("ForwardDiff" if name in OTHERS else "Replay")
    params = problem.initial_parameters(1)
    for k, one in enumerate(problem.series):
        states = solver.trajectory(params, series=k)
        np.testing.assert_allclose(states, _reference(solver, one, params), rtol=0, atol=accuracy)
    gradient = solver.value_and_grad(params)[1]
    for direction in np.random.default_rng(1).standard_normal((2, len(params))):
        up, down = (solver.value_and_grad(params + h * direction)[0] for h in (1e-4, -1e-4))
        assert (up - down) / 2e-4 == pytest.approx(gradient @ direction, abs=100 * accuracy * np.linalg.norm(gradient))


@pytest.mark.julia
def test_results_do_not_depend_on_the_number_of_threads(julia, monkeypatch):
    problem = _problem()
    params = problem.initial_parameters(1)
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PYTHON_JULIACALL_THREADS", threads)
        with JuliaBackend(may_download=False) as backend:
            assert backend.versions["threads"] == int(threads)
            solver = backend.solver(problem)
            for _ in range(30):
                results.append(solver.value_and_grad(params))
            results.append(solver.value_and_grad_of(lambda states: (0.0, [0 * u + 1 for u in states]), params))
    for half in (results[:30], results[31:61]):
        assert all(loss == results[0][0] and np.array_equal(grad, results[0][1]) for loss, grad in half)
    assert np.array_equal(results[30][1], results[61][1])


def test_solvers_and_gradients_that_do_not_go_together_are_one_line():
    assert named_in("Julia", "stiff") == "Rodas5P" and named_in("Julia", "Vern8") == "Vern8"
    assert solved_by("FBDF", "Replay", 0) == ("FBDF", "ForwardDiff")
    assert solved_by("8", "GaussAdjoint", 0) == ("Vern8", "GaussAdjoint")
    assert needed_packages("GaussAdjoint", "Vern8") == [
        ("sensealg GaussAdjoint", "SciMLSensitivity"),
        ("solver Vern8", "OrdinaryDiffEqVerner"),
    ]
    with pytest.raises(UsageError, match="unknown solver in Julia: 'dopri5': expected one of 3, 5, 8, stiff, BS3"):
        named_in("Julia", "dopri5")
    for solver, inputs in (("stiff", 0), ("5", 1)):
        with pytest.raises(UsageError, match="needs an explicit solver"):
            solved_by(solver, "GaussAdjoint", inputs)
