"""Fixed points of functions as layers (Bai, Kolter & Koltun 2019): Anderson acceleration, implicit gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._kernels import autograd

GRADIENTS = ("implicit", "jacobian-free")
SMALLEST = 1e-30
"""Added to norms that residuals are divided by, so that a fixed point at zero has residual 0."""


@dataclass(frozen=True)
class Solve:
    """How an iteration ended.

    Args:
        steps: evaluations of the function.
        residual: |f(z) - z| / |f(z)| of each sample, at the z that was returned; inf where f was not finite.
        converged: whether all residuals are at most the tolerance.
    """

    steps: int
    residual: Float[Tensor, " batch"]
    converged: bool


@dataclass
class FixedPointStatus:
    """How a fixed point was found, and, once it has run, how its backward pass ended.

    Args:
        forward: of the fixed point. backward: of the adjoint equation; None before the backward pass, or without one.
    """

    forward: Solve
    backward: Solve | None = None


def _checked(start: Tensor, tolerance: float, max_steps: int, history: int, damping: float) -> None:
    if not start.is_floating_point():
        raise ValueError(f"got a start of {start.dtype}: expected a real floating-point one")
    if not (tolerance >= 0 and max_steps >= 1 and history >= 0 and 0 < damping <= 1):
        raise ValueError(
            f"got tolerance {tolerance}, max_steps {max_steps}, history {history}, damping {damping}:"
            " expected tolerance and history at least 0, max_steps at least 1, damping in (0, 1]"
        )


@torch.no_grad()
def anderson(
    function: Callable[[Tensor], Tensor],
    start: Float[Tensor, "batch ..."],
    tolerance: float = 1e-4,
    max_steps: int = 50,
    history: int = 5,
    damping: float = 1.0,
) -> tuple[Float[Tensor, "batch ..."], Solve]:
    r"""Find z with f(z) = z for every sample of a batch, by Anderson acceleration.

    .. math:: z_{k+1} = z_k + \beta r_k - (\Delta Z + \beta\,\Delta R)\,\gamma,\quad
        \gamma = \arg\min |r_k - \Delta R\,\gamma|,\quad r_k = f(z_k) - z_k

    with the last differences of z and r as the columns of :math:`\Delta Z, \Delta R`, sample by sample. No gradients.

    Args:
        function: of a batch, sample by sample.
        start: first z.
        tolerance: largest relative residual |f(z) - z| / |f(z)| of a sample to stop at (default 1e-4).
        max_steps: most evaluations of the function (default 50).
        history: differences to use (default 5); 0 is the plain iteration.
        damping: beta in (0, 1] (default 1).

    Returns:
        Each sample's z with the smallest residual seen. The `Solve` tells whether the iteration converged.

    Raises:
        ValueError: an option out of range, a complex or integer start, or a graph is recorded for elsewhere (an
            exporter, jit.trace, make_fx): the number of steps depends on the input.

    Source: Anderson (1965); Walker & Ni (2011), Anderson acceleration for fixed-point iterations.
    """
    _checked(start, tolerance, max_steps, history, damping)
    if autograd.recorded():
        raise ValueError("got a fixed point to export or trace: expected a fixed number of iterations in its place")
    z, best = start, start
    smallest = start.new_full(start.shape[:1], torch.inf)
    rows: list[tuple[Tensor, Tensor]] = []  # (z, residual) of the last steps, each (B, N)
    for step in range(1, max_steps + 1):
        image = function(z)
        flat, residual = z.flatten(1), (image - z).flatten(1)
        relative = residual.norm(dim=1) / (image.flatten(1).norm(dim=1) + SMALLEST)
        better = relative < smallest  # false for NaN
        best = torch.where(better.view(-1, *(1,) * (z.dim() - 1)), z, best)
        smallest = torch.where(better, relative, smallest)
        if bool((smallest <= tolerance).all()) or not bool(relative.isfinite().all()) or step == max_steps:
            break
        rows = [*rows[-history:], (flat, residual)] if history else []
        z = (flat + damping * residual - _correction(rows, damping)).view_as(z)
    return best, Solve(step, smallest, bool((smallest <= tolerance).all()))


def _correction(rows: list[tuple[Tensor, Tensor]], damping: float) -> Tensor | float:
    """(Delta Z + damping Delta R) gamma, (B, N), by normal equations in float64."""
    if len(rows) < 2:
        return 0.0
    last_z, last = rows[-1]
    by_residual = torch.stack([last - r for _, r in rows[:-1]], 1)  # (B, m, N)
    by_z = torch.stack([last_z - z for z, _ in rows[:-1]], 1)
    gram = (by_residual @ by_residual.mT).double()  # (B, m, m)
    right = (by_residual @ last.unsqueeze(-1)).double()  # (B, m, 1)
    # differences that are parallel up to rounding must not blow up
    ridge = 10 * torch.finfo(last.dtype).eps * gram.diagonal(dim1=1, dim2=2).sum(1)
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve_ex(gram, right)[0].nan_to_num(0.0, 0.0, 0.0).to(last.dtype)
    return ((by_z + damping * by_residual) * gamma).sum(1)


def fixed_point(
    function: Callable[[Tensor], Tensor],
    start: Float[Tensor, "batch ..."],
    tolerance: float = 1e-4,
    max_steps: int = 50,
    history: int = 5,
    damping: float = 1.0,
    gradient: str = "implicit",
) -> tuple[Float[Tensor, "batch ..."], FixedPointStatus]:
    r"""The fixed point z = f(z), differentiable in all that f uses, at the memory of one evaluation of f.

    The implicit function theorem gives the gradient of a loss L, whatever way z was found:

    .. math:: \frac{dL}{d\theta} = g^T \frac{\partial f}{\partial\theta},\quad
        g = J^T g + \frac{\partial L}{\partial z},\quad J = \frac{\partial f}{\partial z}

    and the equation for g is again one for a fixed point. There is no double backward, and no gradient to `start`.

    Args:
        function, start, tolerance, max_steps, history, damping: as in `anderson`, for both equations.
        gradient: ``implicit`` (default), or ``jacobian-free``: g = dL/dz, a descent direction where f is contractive,
            without a second equation (Fung et al. 2022).

    Returns:
        f(z), and how both searches ended; the backward pass fills in its own.

    Raises:
        ValueError: an option out of range or unknown, a complex or integer start, a graph is recorded (see `anderson`),
            forward mode, or a transform of torch.func with the implicit gradient.
        RuntimeError: a gradient is differentiated.

    Source: Bai, Kolter & Koltun (2019), Deep equilibrium models, section 3.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"got gradient {gradient!r}: expected one of {', '.join(GRADIENTS)}")
    if autograd.forward_mode() or (gradient == "implicit" and autograd.transformed()):
        raise ValueError("got a fixed point under torch.func or in forward mode: expected a backward pass of autograd")
    options: dict[str, Any] = {"tolerance": tolerance, "max_steps": max_steps, "history": history, "damping": damping}
    found, solve = anderson(function, start.detach(), **options)
    status = FixedPointStatus(solve)
    if not torch.is_grad_enabled() or autograd.transformed():
        return function(found), status
    if gradient == "jacobian-free":
        return _Adjoint.apply(function(found), None, options, status), status
    found = found.detach().requires_grad_()
    return _Adjoint.apply(function(found), found, options, status), status


class _Adjoint(torch.autograd.Function):
    """The identity; its backward pass turns dL/dz into g, which goes on into the graph of one evaluation of f.

    Without `found`, g is dL/dz.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, found: Tensor | None, options: dict[str, Any], status: FixedPointStatus
    ) -> Tensor:
        ctx.save_for_backward(image, found)
        ctx.options, ctx.status = options, status
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        image, found = ctx.saved_tensors
        g = gradient

        def adjoint(g: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(image, found, g, retain_graph=True, materialize_grads=True)
            return pulled + gradient

        if found is not None:
            if autograd.transformed(gradient):
                raise ValueError("got batched gradients of a fixed point: expected one at a time (vectorize=False)")
            g, ctx.status.backward = anderson(adjoint, gradient, **ctx.options)
        return (_Once.apply(g, gradient, image) if torch.is_grad_enabled() else g), None, None, None


class _Once(torch.autograd.Function):
    """g, which depends on the others in a way that has no derivative here.

    Unlike PyTorch's `once_differentiable`, it is reached from whatever they are made from, and never left out.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, *others: Tensor) -> Tensor:
        return g.view_as(g)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError("the gradient of a fixed point is once_differentiable: it has no derivative")
