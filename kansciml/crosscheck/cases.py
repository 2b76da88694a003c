"""Problems with what single trajectories do not have, made from the data of a system, to hold backends against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kansciml.backends._engines.relaxing import EXPLICIT, relaxing
from kansciml.backends.base import OdeProblem, Series
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.fitting.windows import in_windows, prepared

ROWS = 12
"""Rows of data of a case, at most."""
STIFFNESS = 100.0
"""Ratio of the fastest rate of the stiff case to one over its time span."""


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, with parameters to compare solvers at."""

    name: str
    problem: OdeProblem
    params: np.ndarray


def cases_of(problem: OdeProblem, seed: int = 0) -> Iterator[Case]:
    """Cases made from the first trajectory of the problem of a built-in field.

    * ``several``: two trajectories of unequal length with gaps and weights, cut into windows, all starts learned;
    * ``inputs``: two trajectories, one driven by a linear and one by a held input, and by the time; left out for a
      field that has inputs or the time already;
    * ``stiff``: a field whose rates differ by a factor of 100, by an implicit solver; left out where the problem has
      one already.
    """
    field = problem.field
    assert isinstance(field, FieldSpec)
    first, second = _two(problem.series[0], np.random.default_rng(seed))
    two = replace(problem, series=(first, second))
    windows = replace(in_windows(prepared(two, FitConfig(learn_u0=True)), ROWS // 2), continuity=3.0)
    yield Case("several", windows, windows.initial_parameters(seed))
    if not (field.inputs or field.time):
        driven = _driven(two)
        yield Case("inputs", driven, driven.initial_parameters(seed))
    if problem.solver in EXPLICIT:  # else the problem itself is stiff
        one = _thinned(problem.series[0])
        _, scale, rate = field.normalisation()
        n = field.state_size
        rates = np.geomspace(1.0, STIFFNESS, n) / (one.saveat[-1] - one.t0)
        params = relaxing(field, seed, rates * scale[:n] / rate)
        yield Case("stiff", replace(problem, series=(one,), solver="stiff"), params)


def _thinned(one: Series) -> Series:
    """A few rows of the first third of its time span, at least half a dozen of its first ones."""
    count = max(6, int(np.searchsorted(one.saveat, one.t0 + (one.saveat[-1] - one.t0) / 3, side="right")))
    rows = slice(None, count, -(-min(count, len(one.saveat)) // ROWS))
    weights = None if one.weights is None else one.weights[rows]
    return replace(one, saveat=one.saveat[rows], data=one.data[rows], weights=weights)


def _two(one: Series, rng: np.random.Generator) -> tuple[Series, Series]:
    """The series with gaps and weights, and its last two thirds."""
    one = _thinned(one)
    count = len(one.saveat)
    data = one.data.copy()
    data[1 + count // 3, 0], data[-2] = np.nan, np.nan
    first = replace(one, data=data, weights=rng.uniform(0.5, 2.0, data.shape), name="first")
    rest = count // 3
    start = np.where(np.isnan(one.data[rest]), one.u0, one.data[rest])
    second = replace(first, u0=start, t0=float(one.saveat[rest]), saveat=one.saveat[rest:], data=one.data[rest:],
                     weights=None, name="second")  # fmt: skip
    return first, second


def _driven(problem: OdeProblem) -> OdeProblem:
    field = problem.field
    assert isinstance(field, FieldSpec)
    begin, end = problem.series[0].t0, float(problem.series[0].saveat[-1])
    shares = np.array([0.0, 0.07, 0.31, 0.52, 0.68, 0.9, 1.0])
    knots, values = begin + shares * (end - begin), np.sin(7.0 * shares)[:, None]
    knots[-1] = end
    center, scale, _ = field.normalisation()
    fed = replace(
        field,
        widths=(field.widths[0] + 2, *field.widths[1:]),
        center=(*center.tolist(), 0.0, (begin + end) / 2),
        scale=(*scale.tolist(), 5.0, 2.5 * (end - begin)),  # within one interval of a KAN's grid, which has kinks
        inputs=1,
        time=True,
    )
    pairs = zip(problem.series, ("linear", "held"))
    return replace(problem, field=fed, series=tuple(replace(one, inputs=Inputs(knots, values, k)) for one, k in pairs))
