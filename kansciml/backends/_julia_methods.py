"""Gradient methods of the Julia backend, by name, what solvers they go with, and the packages that bring them."""

from __future__ import annotations

from kansciml._errors import UsageError, unknown_name
from kansciml.backends._engines.methods import SOLVERS, named_in

SENSEALGS = (
    "Replay",
    "GaussAdjoint",
    "InterpolatingAdjoint",
    "QuadratureAdjoint",
    "BacksolveAdjoint",
    "ForwardDiff",
    "ForwardDiffSensitivity",
    "ReverseDiffAdjoint",
)
"""``Replay``: exact discrete gradient by replaying the accepted steps; ``ForwardDiff``: dual numbers through the
solver; the others are SciMLSensitivity's."""
DEFAULT_SENSEALG = "Replay"
NATIVE_SENSEALGS = ("Replay", "ForwardDiff")

PACKAGES = {
    "BS3": "OrdinaryDiffEqLowOrderRK",
    "Vern8": "OrdinaryDiffEqVerner",
    "Rodas5P": "OrdinaryDiffEqRosenbrock",
    "FBDF": "OrdinaryDiffEqBDF",
    "KenCarp4": "OrdinaryDiffEqSDIRK",
    "AutoTsit5": "OrdinaryDiffEqRosenbrock",
}
"""What is loaded for solvers, by their names in OrdinaryDiffEq (AutoTsit5 switches to Rosenbrock23)."""
EXPLICIT_SOLVERS = tuple(name for name, kind in SOLVERS["Julia"].items() if kind != "stiff")
REPLAYED_SOLVERS = (*EXPLICIT_SOLVERS, "Rodas5P")
"""Those that ``Replay`` knows; for the others ``ForwardDiff`` takes its place."""


def checked_sensealg(sensealg: str) -> str:
    """Itself. Raises UsageError for an unknown one."""
    if sensealg not in SENSEALGS:
        raise unknown_name("sensealg", sensealg, SENSEALGS)
    return sensealg


def solver_name(solver: str) -> str:
    """A solver's own name in Julia, of a general one or itself; raises UsageError for an unknown one."""
    return named_in("Julia", solver)


def solved_by(solver: str, sensealg: str, n_inputs: int) -> tuple[str, str]:
    """A solver's own name, and the gradient method to take with it.

    Raises:
        UsageError: unknown solver, or one that this method does not go with.
    """
    name = solver_name(solver)
    if sensealg == "Replay" and name not in REPLAYED_SOLVERS:
        return name, "ForwardDiff"
    if sensealg not in NATIVE_SENSEALGS and (name not in EXPLICIT_SOLVERS or n_inputs):
        raise UsageError(
            f"got sensealg {sensealg} with solver {name} and {n_inputs} inputs: it needs an explicit solver"
            f" ({', '.join(EXPLICIT_SOLVERS)}) and no inputs; take {DEFAULT_SENSEALG}"
        )
    return name, sensealg


def needed_packages(sensealg: str, solver: str) -> list[tuple[str, str]]:
    """Packages beside KanSciML, each after what needs it."""
    packages = [
        (f"sensealg {sensealg}", "" if sensealg in NATIVE_SENSEALGS else "SciMLSensitivity"),
        (f"solver {solver}", PACKAGES.get(solver, "")),
    ]
    return [(what, package) for what, package in packages if package]
