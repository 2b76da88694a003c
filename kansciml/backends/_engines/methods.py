"""Solvers and gradient methods of every backend, by name, and the Julia packages that bring them. Torch-free."""

from __future__ import annotations

from kansciml._errors import UsageError, unknown_name

GENERAL = ("3", "5", "8", "stiff")
"""Names that every backend has: explicit of that order, or implicit."""
SOLVERS = {
    "torch": {"BDF": "stiff", "bosh3": "3", "dopri5": "5", "dop853": "8", "Radau": "stiff"},
    "torchdiffeq": {"bosh3": "3", "dopri5": "5", "dopri8": "8"},
    "Julia": {
        "BS3": "3",
        "Tsit5": "5",
        "Vern8": "8",
        "Rodas5P": "stiff",
        "FBDF": "stiff",
        "KenCarp4": "stiff",
        "AutoTsit5": "stiff",
    },
}
"""Of each library its solvers, by their own names, and what they are in general."""
PREFERRED = {"Radau", "Rodas5P"}
"""Those that "stiff" stands for; of the explicit ones there is one of each order."""
GRADIENTS = ("replay", "backprop", "adjoint")
DEFAULT_GRADIENT = "replay"
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


def library_of(gradient: str | None = None) -> str:
    """The library that solves with a gradient method of torch; raises UsageError for an unknown one."""
    if gradient is not None and gradient not in GRADIENTS:
        raise unknown_name("gradient", gradient, GRADIENTS)
    return "torch" if gradient in (None, DEFAULT_GRADIENT) else "torchdiffeq"


def names_in(library: str) -> dict[str, str]:
    """Own names of the solvers of a library, by all names of theirs."""
    own = SOLVERS[library]
    general = {kind: name for name, kind in own.items() if kind != "stiff" or name in PREFERRED}
    return {**{kind: general[kind] for kind in GENERAL if kind in general}, **{name: name for name in own}}


def named_in(library: str, solver: str) -> str:
    """A solver's own name in a library, of a general one or itself.

    Raises:
        UsageError: the library does not have it.
    """
    known = names_in(library)
    if solver not in known:
        raise unknown_name(f"solver in {library}:", solver, known)
    return known[solver]


def solver_name(solver: str, gradient: str = DEFAULT_GRADIENT) -> str:
    """A solver's own name in torch, of a general one (3, 5, 8, stiff) or itself.

    Raises:
        UsageError: unknown gradient method, or a solver that it does not differentiate.
    """
    return named_in(library_of(gradient), solver)


def alike_in(library: str, solver: str) -> str:
    """The solver, or, where only another library has it, the general name of its kind."""
    kinds = {name: kind for own in SOLVERS.values() for name, kind in own.items()}
    return solver if solver in names_in(library) else kinds.get(solver, solver)


def checked_sensealg(sensealg: str) -> str:
    """Itself. Raises UsageError for an unknown one."""
    if sensealg not in SENSEALGS:
        raise unknown_name("sensealg", sensealg, SENSEALGS)
    return sensealg


def solved_by(solver: str, sensealg: str, n_inputs: int) -> tuple[str, str]:
    """A solver's own name in Julia, and the gradient method to take with it.

    Raises:
        UsageError: unknown solver, or one that this method does not go with.
    """
    name = named_in("Julia", solver)
    if sensealg == "Replay" and name not in REPLAYED_SOLVERS:
        return name, "ForwardDiff"
    if sensealg not in NATIVE_SENSEALGS and (name not in EXPLICIT_SOLVERS or n_inputs):
        raise UsageError(
            f"got sensealg {sensealg} with solver {name} and {n_inputs} inputs: it needs an explicit solver"
            f" ({', '.join(EXPLICIT_SOLVERS)}) and no inputs; take {DEFAULT_SENSEALG}"
        )
    return name, sensealg


def needed_packages(sensealg: str, solver: str) -> list[tuple[str, str]]:
    """Julia packages beside KanSciML, each after what needs it."""
    packages = [
        (f"sensealg {sensealg}", "" if sensealg in NATIVE_SENSEALGS else "SciMLSensitivity"),
        (f"solver {solver}", PACKAGES.get(solver, "")),
    ]
    return [(what, package) for what, package in packages if package]
