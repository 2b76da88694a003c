"""torchdiffeq's solvers, differentiated by torch: through every operation, or by the continuous adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from kansciml._errors import SolveError
from kansciml.backends._engines.drive import Drive
from kansciml.backends.base import Piece
from kansciml.backends.module_field import ModuleField, gradients
from kansciml.models.fields import VectorField


class SpecField(VectorField):
    """A built-in field as torchdiffeq is given it; the counterpart of `ModuleField`."""

    @property
    def trainable(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def gradient(self, loss: Float[Tensor, ""]) -> Float64[np.ndarray, " P"]:
        """Of a loss by the flat parameters."""
        for p, g in zip(self.trainable, gradients(loss, self.trainable)):
            p.grad = g
        return self.to_flat(gradient=True)


@dataclass(frozen=True, eq=False)
class DifferentiatedEngine:
    """Solves pieces one after the other.

    Args:
        field: of the problem. solver: bosh3, dopri5 or dopri8. adjoint: whether by ``odeint_adjoint`` (Chen et al.
            2018), of constant memory and with a gradient error of the order of the tolerance.
        count: told of every evaluation of the field at how many states.
    """

    field: SpecField | ModuleField
    solver: str
    adjoint: bool
    count: Callable[[int], None]

    def solve(
        self,
        params: Float64[np.ndarray, " P"],
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> DifferentiatedSolved:
        """See `kansciml.backends.base.Engine`; torchdiffeq counts steps anew after each save point and knot."""
        self.field.load_flat(params)
        settings = {"rtol": rtol, "atol": atol, "method": self.solver}
        with torch.set_grad_enabled(gradient):
            starts = [torch.tensor(one.start, requires_grad=gradient) for one in pieces]
            solutions = [self._solve(one, start, settings, max_steps) for one, start in zip(pieces, starts)]
        return DifferentiatedSolved(self.field, starts, solutions)

    def _solve(self, piece: Piece, u: Tensor, settings: dict[str, Any], max_steps: int) -> Tensor:
        """States at the save times, from one stop to the next.

        Stops are knots of inputs, beyond which an interval's inputs go on as they are, so that steps may reach there;
        and for dopri8 all save times, since its interpolation, a quartic, is four orders behind its steps.
        """
        drive, tau = Drive([piece]), piece.saveat
        knots = piece.inputs.t if piece.inputs is not None else np.empty(0)
        exact = self.solver == "dopri8"
        stops = np.concatenate([knots, tau]) if exact else knots
        stops = np.unique(np.append(stops[(stops > piece.t0) & (stops < tau[-1])], tau[-1]))
        interval, begin, found = drive.first, piece.t0, [u[None]] if tau[0] == piece.t0 else []
        for stop in stops[stops > piece.t0]:
            inner = tau[(tau > begin) & (tau <= stop)]
            times = np.unique(np.concatenate([[begin], inner, [stop]]))
            ends = [{"step_t": torch.tensor([end])} if exact else {} for end in (stop, begin)]
            options, backward = ({"max_num_steps": max_steps, **end} for end in ends)
            call = partial(odeint, options={**options, "norm": _largest}, **settings)
            if self.adjoint:
                given = {"adjoint_options": backward, "adjoint_params": tuple(self.field.trainable)}
                call = partial(odeint_adjoint, **call.keywords, **given)
            try:
                states = call(self._function(drive, interval), u, torch.from_numpy(times))
            except AssertionError as error:  # how torchdiffeq tells that a solve failed
                text = str(error).splitlines()[0][:120]
                if "max_num_steps" in text:
                    remedy = "raise max_steps, or loosen rtol and atol"
                    text = f"more than {max_steps} steps to one save point: {remedy}"
                raise SolveError(f"torchdiffeq could not solve the ODE: {text}") from error
            found.append(states[1 : 1 + len(inner)])
            u, begin = states[-1], stop
            interval = interval + (drive.until(interval) <= stop)
        return torch.cat(found)

    def _function(self, drive: Drive, interval: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
        if drive.present:
            knot, base, slope = (torch.from_numpy(a[interval][0:1]) for a in (drive.knots, drive.base, drive.slope))

        def function(t: Tensor, u: Tensor) -> Tensor:
            self.count(1)
            return self.field(t, u, (base + slope * (t - knot))[0]) if drive.present else self.field(t, u)

        return function


class DifferentiatedSolved:
    """Solutions that torch differentiates: see `kansciml.backends.base.Solved`."""

    def __init__(self, field: SpecField | ModuleField, starts: list[Tensor], solutions: list[Tensor]) -> None:
        self.field, self.starts, self.solutions = field, starts, solutions
        self.states = [u.detach().numpy() for u in solutions]

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        terms = [(u * torch.from_numpy(c)).sum() for u, c in zip(self.solutions, cotangents)]
        loss = torch.stack(terms).sum()
        return self.field.gradient(loss), torch.stack(gradients(loss, self.starts)).numpy()


def _largest(x: Tensor) -> Tensor:
    """The maximum norm, in which torchdiffeq is to control the error: see `kansciml.backends._engines.explicit`."""
    return x.abs().max()
