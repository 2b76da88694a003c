"""A trained neural ODE, without the data that it was trained on: slopes, trajectories, and a folder to keep it in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Num

from kansciml._errors import UsageError
from kansciml.backends.base import OdeProblem, OdeSolver, Times
from kansciml.models.hybrid_spec import HybridSpec, Spec
from kansciml.models.inputs import Inputs
from kansciml.models.lux_field import LuxField
from kansciml.tasks.ode.evaluation import EVALUATION_TOLERANCE, Metrics
from kansciml.tasks.ode.trajectory import Clock

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField


@dataclass(frozen=True, eq=False)
class OdeModel:
    """A trained neural ODE.

    Args:
        problem: its field, units and solver; the initial states, times and inputs of the series it was trained on.
        params: trained parameters (P,): the field's, then the learned initial states (see `OdeProblem`).
        metrics: errors on the data that it was trained on.
        labels, input_labels: names of the state components, and of the inputs.
        about: what else is known: see `kansciml.tasks.ode.trained.saved`.
    """

    problem: OdeProblem
    params: Float64[np.ndarray, " P"]
    metrics: Metrics
    labels: tuple[str, ...]
    input_labels: tuple[str, ...]
    about: Mapping[str, Any]
    _solver: OdeSolver = dataclasses.field(repr=False)

    @property
    def field(self) -> Spec | LuxField | ModuleField:
        return self.problem.field

    @property
    def series_names(self) -> list[str]:
        """Names of the trajectories that it was trained on; the index stands for one without a name."""
        return [one.name or str(k) for k, one in enumerate(self.problem.series)]

    @property
    def clock(self) -> Clock | None:
        """How the table that was trained on told times, by which `read_table` and `read_inputs` read others; None:
        models of earlier versions do not say."""
        told = self.about.get("clock")
        return None if told is None else Clock(str(told["column"]), str(told["since"]))

    @property
    def estimates(self) -> dict[str, float]:
        """Estimated values of the parameters of known terms, by name: see `Physics`."""
        return self.field.estimates(self.params) if isinstance(self.field, HybridSpec) else {}

    def __call__(
        self,
        u: Num[np.ndarray, "*batch n"] | Sequence[Any],
        t: float | Num[np.ndarray, "*batch"] | Sequence[Any] | None = None,
        inputs: Num[np.ndarray, "*batch m"] | Sequence[Any] | None = None,
    ) -> Float64[np.ndarray, "*batch n"]:
        """du/dt at states (..., n) and a time, or one for each state (...); default the first series' `t0`; at inputs
        (..., m) where the field has them.

        Raises:
            UsageError: wrong shapes. SolveError: the field is not finite there.
        """
        n, m = self.field.state_size, self.field.inputs
        u = np.asarray(u, dtype=np.float64)
        if u.ndim == 0 or u.shape[-1] != n:
            raise UsageError(f"got states of shape {u.shape}: expected (..., {n})")
        batch = u.shape[:-1]
        t = np.asarray(self.problem.t0 if t is None else t, dtype=np.float64)
        if t.shape not in ((), batch):
            raise UsageError(f"got times of shape {t.shape}: expected one number or {batch}")
        w = None if inputs is None else np.asarray(inputs, dtype=np.float64)
        shape, expected = None if w is None else w.shape, (*batch, m) if m else None
        if shape != expected:
            raise UsageError(f"got inputs of shape {shape}: expected {expected}")
        rows = None if w is None else w.reshape(-1, m)
        return self._solver.rhs(u.reshape(-1, n), t.ravel() if t.ndim else t, self.params, rows).reshape(u.shape)

    def trajectory(
        self,
        t: Times | None = None,
        tolerance: float = EVALUATION_TOLERANCE,
        *,
        u0: Num[np.ndarray, " n"] | Sequence[float | int] | None = None,
        t0: float | None = None,
        inputs: Inputs | None = None,
        series: int = 0,
    ) -> Float64[np.ndarray, "T n"]:
        """States (T, n) from an initial state on.

        Args:
            t: times (T,) in any order, repeats allowed, or one number; each at or after `t0`; None: those that the
                series was saved at, of a loaded model its last.
            tolerance: rtol and atol, in the units of the problem (default 1e-10).
            u0, t0, inputs: initial state, its time, and inputs that cover the times (default: those of the series).
            series: which of those it was trained on gives what is not given; learned initial states are the learned.

        Raises:
            UsageError: a time before t0 or not finite, inputs that do not cover the times, wrong shapes.
            SolveError: the solution does not reach the last time.
        """
        count = len(self.problem.series)
        if not 0 <= series < count:
            raise UsageError(f"got series {series}: expected an index below {count}")
        start = None if u0 is None else np.asarray(u0, dtype=np.float64)
        return self._solver.trajectory(
            self.params, t, tolerance, tolerance, series=series, u0=start, t0=t0, inputs=inputs
        )

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder, which `kansciml.ode.load` reads in any process and KanSciML.load in Julia: see
        `kansciml.tasks.ode.trained.saved`; returns the folder.

        Raises:
            UsageError: the folder holds something else. KansciError: it cannot be written.
        """
        from kansciml.tasks.ode.trained.saved import save_model

        return save_model(self, Path(folder))
