"""Gradient methods and solvers of the torch backend, by name. Torch-free."""

from __future__ import annotations

from kansciml._errors import unknown_name

_TORCHDIFFEQ = {"3": "bosh3", "5": "dopri5", "8": "dopri8"}
_SOLVERS = {
    "replay": {"3": "bosh3", "5": "dopri5", "8": "dop853", "stiff": "Radau", "BDF": "BDF"},
    "backprop": _TORCHDIFFEQ,
    "adjoint": _TORCHDIFFEQ,
}
GRADIENTS = tuple(_SOLVERS)
DEFAULT_GRADIENT = "replay"


def names(gradient: str | None = None) -> dict[str, str]:
    """Own names of solvers by all names of theirs; raises UsageError for an unknown gradient method."""
    if gradient is not None and gradient not in GRADIENTS:
        raise unknown_name("gradient", gradient, GRADIENTS)
    found = _SOLVERS[gradient or DEFAULT_GRADIENT]
    return {**found, **{name: name for name in found.values()}}


def solver_name(solver: str, gradient: str = DEFAULT_GRADIENT) -> str:
    """A solver's own name, of a general one (3, 5, 8, stiff) or itself.

    Raises:
        UsageError: unknown gradient method, or a solver that it does not differentiate.
    """
    known = names(gradient)
    if solver not in known:
        raise unknown_name(f"solver in {'torch' if gradient == DEFAULT_GRADIENT else 'torchdiffeq'}:", solver, known)
    return known[solver]
