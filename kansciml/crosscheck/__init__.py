"""Gates that two solvers of one problem must pass: right-hand side, trajectory, loss, gradient, training.

    from kansciml.crosscheck import crosscheck

    for gate in crosscheck("lotka", "kan"): print(gate)

Within torch alone the built-in path (own kernels, own integrators, batched replay) is held against torch modules under
SciPy's DOP853, against torchdiffeq with backprop and with the adjoint method, and against finite differences: four
implementations that share no code. With Julia, the Julia solver is held against the torch one in the same way,
and, by `gates_in_julia`, its kernels against the Lux models that they stand for, and several threads against one.

Besides the problem of a system itself, `cases_of` it are gone through: several trajectories with gaps, weights, learned
initial states and windows; inputs and time; a stiff field and a stiff solver.
"""

from kansciml.crosscheck.cases import Case, cases_of
from kansciml.crosscheck.engines import gates_in_julia
from kansciml.crosscheck.gates import (
    TOLERANCE,
    Gate,
    compare,
    compare_with_reference,
    crosscheck,
    crosscheck_case,
    crosscheck_field,
    loss_allowed,
    training_allowed,
)
from kansciml.crosscheck.reference import ReferenceSolver

__all__ = [
    "TOLERANCE",
    "Case",
    "Gate",
    "ReferenceSolver",
    "cases_of",
    "compare",
    "compare_with_reference",
    "crosscheck",
    "crosscheck_case",
    "crosscheck_field",
    "gates_in_julia",
    "loss_allowed",
    "training_allowed",
]
