"""Reference solutions of systems with known equations: SciPy's DOP853, of stiff ones LSODA, at rtol = atol = 1e-12.

The absolute tolerance counts in multiples of each component's largest value, unless the system is `dimensionless`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float64
from scipy.integrate import solve_ivp

from kansciml._errors import SolveError, UsageError
from kansciml.backends.base import Times
from kansciml.tasks.ode.system import System

TOLERANCE = 1e-12
MAX_EVALUATIONS = 5_000_000


def method_of(system: System) -> str:
    """The integrator of reference solutions, by its name in SciPy."""
    return "LSODA" if system.stiff else "DOP853"


def reference_solution(
    system: System, t: Times, u0: Float64[np.ndarray, " n"] | None = None, t0: float | None = None
) -> Float64[np.ndarray, "T n"]:
    """States at times `t`, each >= t0, in any order, from `u0` at `t0` on (default: the system's).

    Good to about 1e-10 on the built-in systems (Pleiades after its close encounter: 4e-9). Solutions are kept in
    memory, so asking again costs nothing. Methods: Hairer, Norsett & Wanner, Solving ODEs I, section II.5; Hindmarsh &
    Petzold, LSODA (1983), implicit where the system is stiff.

    Raises:
        UsageError: a time before t0 or not finite; a system without known equations.
        SolveError: the integration fails, e.g. because the solution blows up.
    """
    t = np.atleast_1d(np.asarray(t, dtype=np.float64))
    if system.rhs is None:
        raise UsageError(f"system {system.name} is known only through its data: there is no reference solution")
    if t.ndim != 1:
        raise UsageError(f"got times of shape {t.shape}: expected one number or a vector of times")
    u0 = system.u0 if u0 is None else np.ascontiguousarray(u0, dtype=np.float64)
    t0 = system.t0 if t0 is None else t0
    if u0.shape != (system.state_size,) or not np.isfinite(u0).all():
        raise UsageError(f"got initial state {u0}: expected {system.state_size} finite numbers")
    if not np.isfinite(t).all() or np.any(t < t0):
        raise UsageError(f"got times {t.min():g} to {t.max():g}: expected finite times from {t0:g} on")
    times, order = np.unique(t, return_inverse=True)
    return _solve(system, u0.tobytes(), t0, times.tobytes())[order]


@lru_cache(maxsize=64)
def _solve(system: System, start: bytes, t0: float, times: bytes) -> np.ndarray:
    """States at strictly increasing times; these and the initial state are the bytes of float64 vectors."""
    t, u0 = np.frombuffer(times), np.frombuffer(start)
    if len(t) == 0:
        return np.empty((0, system.state_size))
    if t[-1] == t0:
        return u0[None, :]
    equations = system.rhs
    assert equations is not None
    end, evaluations, method = t[-1] - t0, 0, method_of(system)
    span = 1.0 if system.dimensionless else end

    def rhs(tau: float, u: np.ndarray) -> np.ndarray:  # of times from t0 in spans: no unit of time, no far-away zero
        nonlocal evaluations
        evaluations += 1
        time = t0 + span * tau
        if evaluations > MAX_EVALUATIONS:
            raise _failure(system, t[-1], f"too stiff: more than {MAX_EVALUATIONS} evaluations by t = {time:g}")
        return span * np.asarray(equations(time, u))

    def solve(tau: np.ndarray | None, rtol: float, atol: float | np.ndarray) -> np.ndarray:
        # A blow-up is reported below; the overflow warnings on the way there would say nothing more.
        with np.errstate(all="ignore"):
            solution = solve_ivp(rhs, (0.0, end / span), u0, method, tau, rtol=rtol, atol=atol)
        if not solution.success or not np.isfinite(solution.y).all():
            raise _failure(system, t[-1], solution.message)
        return np.ascontiguousarray(solution.y.T)

    size: float | np.ndarray = 1.0
    if not system.dimensionless:  # a rough solution tells the size of each component; next to nothing is absolute there
        rough = np.abs(solve(None, 1e-6, 1e-100)).max(axis=0)
        size = np.where(rough > 0, rough, rough.max() or 1.0)
    tau, order = np.unique((t - t0) / span, return_inverse=True)  # times an ulp apart may meet
    return solve(tau, TOLERANCE, TOLERANCE * size)[order]


def _failure(system: System, end: float, reason: str) -> SolveError:
    return SolveError(
        f"no reference solution of {system.name} up to t = {end:.9g} ({reason}):"
        " check the equations and the initial state, or take a shorter span"
    )


def invariant_drift(system: System, u: Float[np.ndarray, "*batch n"]) -> dict[str, float | Float[np.ndarray, "*batch"]]:
    """Change of every conserved quantity since u0, name -> I(u) - I(u0), in the unit of the quantity.

    `u`: states of the true system or of a model of it.
    """
    with np.errstate(all="ignore"):  # a model may leave the region where a quantity is defined: NaN says so
        return {name: value(u) - value(system.u0) for name, value in system.invariants.items()}
