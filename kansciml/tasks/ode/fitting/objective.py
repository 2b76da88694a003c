"""What a training minimises: the misfit of a solver's trajectories, or a loss of the user's, plus penalties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from kansciml._errors import UsageError
from kansciml.backends.base import Loss, OdeSolver, Series, Subset
from kansciml.models.edge_penalty import edge_penalty
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec
from kansciml.tasks.ode.fitting.config import FitConfig, Part
from kansciml.tasks.ode.fitting.windows import gaps


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of one series, as a loss of your own is given it.

    Args:
        t: times (T,). states: measured states (T, n), NaN where nothing was measured. seen: where something was.
        weights: of the measurements, 0 where there is none. name: of the trajectory.
    """

    t: Float[Tensor, " T"]
    states: Float[Tensor, "T n"]
    seen: Bool[Tensor, "T n"]
    weights: Float[Tensor, "T n"]
    name: str

    @classmethod
    def of(cls, one: Series, rows: int) -> Measurements:
        """The first rows of a series."""
        states = torch.from_numpy(one.data[:rows])
        seen = ~states.isnan()
        weights = seen.to(states.dtype)
        if one.weights is not None:
            weights = weights * torch.from_numpy(one.weights[:rows])
        return cls(torch.from_numpy(one.saveat[:rows]), states, seen, weights, one.name)


OwnLoss = Callable[[list[Tensor], list[Measurements]], Tensor]
"""States (T, n) of each series, in the unit of the data, and what was measured -> a scalar, differentiable by torch."""


class Objective:
    """A loss and its gradient, called as ``objective(params, part)``; None: all data, at the last weight of the links.

    Args:
        solvers: of one problem, one for each weight of its links, the last one counting in the end.
        fit: its penalties are added.
        own: in place of the documented misfit of the data; the links of multiple shooting are added to it too.
        held_out: solver of the trajectories for validation, if there are some, from known initial states.
    """

    def __init__(
        self,
        solvers: Sequence[OdeSolver],
        fit: FitConfig,
        own: OwnLoss | None = None,
        held_out: OdeSolver | None = None,
    ) -> None:
        self.solvers, self.fit, self.own, self.held_out = solvers, fit, own, held_out
        field = self.solver.problem.field
        self.network = field.network if isinstance(field, HybridSpec) else field

    @property
    def solver(self) -> OdeSolver:
        """At the last weight of the links."""
        return self.solvers[-1]

    def __call__(
        self, params: Float64[np.ndarray, " P"], part: Part | None = None
    ) -> tuple[float, Float64[np.ndarray, " P"]]:
        solver, subset = (self.solver, None) if part is None else (self.solvers[part.level], part.subset)
        loss, gradient = self._misfit(solver, params, subset)
        if self.fit.l1 or self.fit.entropy:
            penalties, slope = self._penalties(params)
            loss += sum(penalties)
            gradient[: len(slope)] += slope
        return loss, gradient

    def validate(self, params: Float64[np.ndarray, " P"]) -> float:
        """The misfit of the trajectories for validation, without penalties.

        Raises:
            SolveError: it does not exist.
        """
        assert self.held_out is not None
        return self._misfit(self.held_out, params[: self.solver.problem.field.n_parameters], None)[0]

    def _misfit(self, solver: OdeSolver, params: np.ndarray, subset: Subset | None) -> tuple[float, np.ndarray]:
        if self.own is None:
            return solver.value_and_grad(params, subset)
        return solver.value_and_grad_of(self._differentiated(self.own, solver, subset), params, subset)

    def _penalties(self, params: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
        network = self.network
        assert isinstance(network, FieldSpec)
        return edge_penalty(network, params[: network.n_parameters], self.fit.l1, self.fit.entropy)

    @staticmethod
    def _differentiated(own: OwnLoss, solver: OdeSolver, subset: Subset | None) -> Loss:
        series = solver.problem.series
        picked = range(len(series)) if subset is None or subset.series is None else subset.series

        def value_and_slopes(states: Sequence[np.ndarray]) -> tuple[float, Sequence[np.ndarray]]:
            with torch.enable_grad():
                leaves = [torch.tensor(u, requires_grad=True) for u in states]
                loss = own(list(leaves), [Measurements.of(series[k], len(u)) for k, u in zip(picked, states)])
            if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
                shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise UsageError(f"the loss gave {shape}: expected a scalar tensor made from the states by torch")
            if loss.isnan():
                raise UsageError("the loss is NaN: leave out what was not measured, as in (u - one.states)[one.seen]")
            slopes = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            return loss.item(), [slope.numpy() for slope in slopes]

        return value_and_slopes

    def terms(self, params: Float64[np.ndarray, " P"], loss: float) -> dict[str, float]:
        """What the loss over all data consists of: ``data``, and what there is of ``continuity``, ``l1``, ``entropy``.

        Raises:
            SolveError: the loss does not exist.
        """
        found = {"data": loss}
        problem = self.solver.problem
        if any(one.follows is not None for one in problem.series):
            found["continuity"] = problem.continuity * float(np.mean(gaps(self.solver, params) ** 2))
        if self.fit.l1 or self.fit.entropy:
            penalties = dict(zip(("l1", "entropy"), self._penalties(params)[0]))
            found |= {name: value for name, value in penalties.items() if getattr(self.fit, name)}
        found["data"] -= sum(value for name, value in found.items() if name != "data")
        return found
