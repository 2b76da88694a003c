"""Gates within Julia: the Lux model of a field against its kernels, and one number of threads against another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kansciml.backends.base import OdeProblem, OdeSolver, Subset
from kansciml.backends.julia import DEFAULT_SENSEALG, JuliaBackend
from kansciml.crosscheck.cases import cases_of
from kansciml.crosscheck.gates import TOLERANCE, Gate, label, relative
from kansciml.models.field_spec import FieldSpec
from kansciml.tasks.ode.problem import make_problem
from kansciml.tasks.ode.system import System

LUX_MODEL, THREADS = 1e-12, 1e-14
"""Allowed in loss and gradient, relative."""
COARSE, EARLY = 1e-3, Subset(share=0.1)
"""Tolerance and part of the data of gate 7. Rounding differs in the two ways and moves the steps: over all data, or at
a tight tolerance, a change of the parameters in their last bit makes up to 2e-8 in the gradient of a KAN."""


def gates_in_julia(
    system: System,
    field: FieldSpec,
    julia: JuliaBackend,
    other: JuliaBackend,
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Iterator[Gate]:
    """Gates 7 and 8 for one system and field; `other`: a started backend with another number of threads."""
    problem = make_problem(system, field, tolerance, tolerance)
    yield from lux_gates(problem, julia, system.name, problem.initial_parameters(seed))
    several = next(iter(cases_of(problem, seed)))
    yield from thread_gates(several.problem, julia, other, f"{system.name}, {several.name}", several.params)


def lux_gates(problem: OdeProblem, julia: JuliaBackend, name: str, params: np.ndarray) -> Iterator[Gate]:
    """Gate 7: loss and gradient by the Lux model of a built-in field, differentiated by ForwardDiff, and by kernels;
    with an explicit solver, also of a stiff system."""
    coarse = replace(problem, rtol=COARSE, atol=COARSE, solver="5")
    kernels, model = (julia.solver(coarse, DEFAULT_SENSEALG, lux=lux) for lux in (False, True))
    of, pair = f" of the first tenth at tolerance {COARSE:g}", f"{label(kernels)} / {label(model)}"
    yield from _between(7, kernels, model, name, params, EARLY, pair, of, LUX_MODEL)


def thread_gates(
    problem: OdeProblem, julia: JuliaBackend, other: JuliaBackend, name: str, params: np.ndarray
) -> Iterator[Gate]:
    """Gate 8: loss and gradient of several trajectories, by two workers with different numbers of threads."""
    counts = " / ".join(f"julia, {backend.versions['threads']} threads" for backend in (julia, other))
    yield from _between(8, julia.solver(problem), other.solver(problem), name, params, None, counts, "", THREADS)


def _between(
    number: int,
    a: OdeSolver,
    b: OdeSolver,
    name: str,
    params: np.ndarray,
    part: Subset | None,
    pair: str,
    of: str,
    allowed: float,
) -> Iterator[Gate]:
    found = zip(*(solver.value_and_grad(params, part) for solver in (a, b)))
    for quantity, (one, other) in zip(("loss", "gradient"), found):
        told, field = f"{quantity}{of}, relative", a.problem.field.label()
        yield Gate(name, field, pair, number, told, relative(one, other), allowed)
    a.close()
    b.close()
