"""Wraps any `torch.nn.Module` as a vector field: flat parameters, derivatives, and checks of what it must be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from kansciml._errors import UsageError
from kansciml.backends._kernels import InputRows, Pullback, States, Times
from kansciml.models.units import Units

EVAL_REMEDY = "put dropout and batch norm into evaluation mode, module.eval()"


@dataclass(frozen=True, eq=False)
class ModuleField:
    """Any `torch.nn.Module` as the field of an `OdeProblem` (torch backend only).

    Args:
        module: called as ``module(t, u)`` with times and states in the unit of the data, float64 on the CPU; returns
            du/dt of the shape of u. For ``gradient="replay"`` it is given batches, t (B, 1) and u (B, n), and must
            treat their rows independently (every feed-forward network does; train-mode batch norm does not); for the
            other gradients single states, t () and u (n,).
        state_size: n.
        inputs: number m of inputs; with some, the module is called as ``module(t, u, w)``, w (B, m) or (m,).
        units: set by `OdeProblem.in_own_units`: the field is then dv/dtau.

    The flat parameter vector is those of `module.parameters()` that require gradients, in their order, as float64; the
    others stay as they are. A solver converts the module to float64 in place, runs it without compilation, and leaves
    in it the parameters used last, after `kansciml.ode.train` the best ones.
    """

    module: nn.Module
    state_size: int
    inputs: int = 0
    units: Units | None = None

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.trainable)

    def initial_parameters(self, seed: int = 0) -> Float64[np.ndarray, " P"]:
        """The module's present parameters; `seed` has no effect, since the module made its own."""
        return flat([p.detach() for p in self.trainable])

    def gradient(self, loss: Float[Tensor, ""]) -> Float64[np.ndarray, " P"]:
        """Of a loss by the flat parameters."""
        return flat(gradients(loss, self.trainable))

    def label(self) -> str:
        return type(getattr(self.module, "_orig_mod", self.module)).__name__  # what torch.compile wraps

    def in_units(self, units: Units) -> ModuleField:
        """The same module as dv/dtau of v: see `Units`."""
        return replace(self, units=units)

    def inputs_in(self, values: Float64[np.ndarray, "L m"]) -> Float64[np.ndarray, "L m"]:
        """Inputs as the module `in_units` is given them: as they are."""
        return values

    def load_flat(self, params: Float64[np.ndarray, " P"]) -> None:
        values = torch.from_numpy(np.array(params, dtype=np.float64))
        with torch.no_grad():
            for p, value in zip(self.trainable, values.split([p.numel() for p in self.trainable])):
                p.copy_(value.view_as(p))

    def __call__(self, t: Tensor, v: Tensor, w: Tensor | None = None) -> Tensor:
        """dv/dtau at one state, t () and v (n,), or at a batch, t (B, 1) and v (B, n), and as many inputs w."""
        given = () if w is None else (w,)
        if self.units is None:
            return self.module(t, v, *given)
        origin, state = torch.from_numpy(self.units.origin), torch.from_numpy(self.units.state)
        du = self.module(self.units.t0 + self.units.time * t, origin + state * v, *given)
        return du * (self.units.time / state) if isinstance(du, Tensor) and du.shape == v.shape else du

    def prepare(
        self, t: Float64[np.ndarray, " B"], v: Float64[np.ndarray, "B n"], batched: bool, w: InputRows | None = None
    ) -> None:
        """Make the module ready, and refuse what would fail or go wrong later.

        Args:
            t, v, w: times, states and inputs to try it at, the initial one first; more than n of them, so that a
                module written for one state cannot mistake the batch for it.
            batched: whether batches are needed.

        Raises:
            UsageError: the module cannot be evaluated or differentiated; or (if `batched`) is wrong on a batch.
        """
        for p in self.module.parameters():
            if p.is_complex() or p.device.type != "cpu":
                raise self._error(f"has a parameter of type {p.dtype} on {p.device}", "expected real ones on the CPU")
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.module.modules()):
            raise self._error("has a batch norm in training mode, for which states depend on each other", EVAL_REMEDY)
        self.module.to(torch.float64)
        together = None
        rows = [slice(i, i + 1) for i in range(len(v))]
        try:
            single = torch.cat([self._tried(t[i], v[i], batched, None if w is None else w[i]) for i in rows])
            if batched:
                together = self._tried(t, v, batched, w)
        except UsageError as error:
            if not batched:
                raise
            self._tried(
                t[:1], v[:1], False, None if w is None else w[:1]
            )  # wrong on one state too: that is the clearer message
            raise self._unbatched(str(error)) from error
        alone = single.detach()
        if not alone[0].isfinite().all():
            raise self._error("is not finite at the initial state", "check it there and at the initial parameters")
        drawn = torch.get_rng_state()
        with torch.no_grad():  # as the integrator does
            again = self._tried(t[:1], v[:1], batched, None if w is None else w[:1])
        if not (torch.equal(drawn, torch.get_rng_state()) and torch.allclose(again[0], alone[0], rtol=1e-12, atol=0)):
            raise self._error("is random: two evaluations at one state differ", EVAL_REMEDY)
        if together is not None:
            smallest = 1e-12 * float(alone.abs().nan_to_num().max())
            if not torch.allclose(together.detach(), alone, rtol=1e-9, atol=smallest, equal_nan=True):
                raise self._unbatched("rows of a batch differ from single states")
        if self.trainable and not self._reached(single):
            raise self._error(
                "does not depend on any parameter that requires gradients",
                "is its result detached, or made in no_grad?",
            )

    def _tried(self, t: np.ndarray, v: np.ndarray, batched: bool, w: np.ndarray | None = None) -> Tensor:
        """The field at (B, n) or, not `batched`, at the only state there, as (B, n)."""
        at, times, inputs = torch.tensor(v), torch.tensor(t)[:, None], None if w is None else torch.tensor(w)
        if not batched:
            at, times, inputs = at[0], times[0, 0], None if inputs is None else inputs[0]
        at.requires_grad_(torch.is_grad_enabled())  # then torch refuses a module that changes the state in place
        got = f"fails at u of shape {tuple(at.shape)}"
        expected = "expected module(t, u) to return du/dt, float64 and of the shape of u"
        try:
            value = self(times, at, inputs)
        except Exception as error:
            text = " ".join(str(error).split())[:160]
            if not torch.is_grad_enabled():
                expected = (
                    "it works with gradients only: take those inside it by torch.enable_grad(), u.requires_grad_()"
                )
            raise self._error(f"{got} ({type(error).__name__}: {text})", expected) from error
        if not isinstance(value, Tensor):
            raise self._error(f"returns a {type(value).__name__} at u of shape {tuple(at.shape)}", expected)
        if value.shape != at.shape or value.dtype != torch.float64:
            what = f"returns {value.dtype} of shape {tuple(value.shape)} at u of shape {tuple(at.shape)}"
            raise self._error(what, expected)
        return value.reshape(len(v), -1)

    def _reached(self, value: Tensor) -> bool:
        """Whether `value` depends on a parameter that is to be trained."""
        if not value.requires_grad:
            return False
        return any(g is not None for g in torch.autograd.grad(value.sum(), self.trainable, allow_unused=True))

    def _error(self, got: str, remedy: str) -> UsageError:
        return UsageError(f"the field {self.label()} {got}: {remedy}")

    def _unbatched(self, reason: str) -> UsageError:
        return self._error(
            f"cannot be replayed ({reason})",
            'accept t of shape (B, 1) and u of shape (B, n), or use gradient="backprop"',
        )


class ModuleKernel:
    """A torch module as a field kernel: NumPy in, NumPy out."""

    def __init__(self, field: ModuleField, params: Float64[np.ndarray, " P"]) -> None:
        field.load_flat(params)
        self.field = field

    def rhs(self, t: float, u: np.ndarray, out: np.ndarray) -> None:
        out[:] = self.batch(u[None], np.full(1, t))[0]

    def batch(self, u: States, t: Times, w: InputRows | None = None) -> States:
        with torch.no_grad():  # a copy of u, which the module may change
            return self._called(t, torch.from_numpy(u.copy()), w).numpy()

    def _called(self, t: Times, u: Tensor, w: InputRows | None) -> Tensor:
        return self.field(torch.from_numpy(t)[:, None], u, None if w is None else torch.from_numpy(w))

    def linearise(
        self, t: Times, u: States, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "B n n"], Pullback]:
        states = torch.from_numpy(u).requires_grad_()
        f = self._called(t, states, w)
        # Rows are independent, so one product per component gives that row of every Jacobian
        rows = [gradients(f[:, i].sum(), [states])[0] for i in range(u.shape[-1])]

        def pullback(cotangent: np.ndarray) -> np.ndarray:
            return flat(gradients(f, self.field.trainable, torch.from_numpy(cotangent)))

        return torch.stack(rows, dim=1).numpy(), pullback


def gradients(f: Tensor, inputs: Sequence[Tensor], cotangent: Tensor | None = None) -> list[Tensor]:
    """Of `f` by each input; zeros by what it does not depend on. The graph is kept."""
    if not f.requires_grad or not inputs:
        return [torch.zeros_like(x) for x in inputs]
    return list(torch.autograd.grad(f, inputs, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True))


def flat(tensors: Sequence[Shaped[Tensor, ...]]) -> Float64[np.ndarray, " P"]:
    """All numbers as one float64 vector, a copy."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(x.reshape(-1).to(torch.float64) for x in tensors)]).numpy()


def eager() -> AbstractContextManager:
    """A region in which `torch.compile` has no effect: its graphs are for one shape and for one backward pass each."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
