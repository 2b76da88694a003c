"""Learnable vector fields for neural ODEs as torch modules, and their flat parameter vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.layers.mlp import MLP
from kansciml.layers.spline_kan import SplineKAN
from kansciml.models.field_spec import FieldSpec


class VectorField(nn.Module):
    """du/dt = rate * net(z), z = (x - center) / scale (Pal & Das 2024, Eq. 3), as `FieldSpec` describes it.

    Called as ``field(t, u)`` with u of shape (..., n), in the argument order of torchdiffeq, or ``field(t, u, w)`` with
    inputs w (..., m). `t`, () or (..., 1), is used only where the field has time.
    """

    center: Tensor
    scale: Tensor
    rate: Tensor

    def __init__(self, spec: FieldSpec, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.spec = spec
        for name, value in zip(("center", "scale", "rate"), spec.normalisation()):
            self.register_buffer(name, torch.from_numpy(value).to(dtype))
        self.net: MLP | nn.Sequential
        if spec.model == "mlp":
            self.net = MLP(spec.widths, spec.activation, dtype=dtype)
        else:
            options = (spec.grid, spec.spline_order, spec.grid_range)
            pairs = zip(spec.widths[:-1], spec.widths[1:])
            self.net = nn.Sequential(*(SplineKAN(n_in, n_out, *options, dtype=dtype) for n_in, n_out in pairs))

    def forward(
        self, t: Any, u: Float[Tensor, "*batch states"], w: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, "*batch states"]:
        parts = [u] if w is None else [u, w]
        if self.spec.time:
            parts.append(torch.as_tensor(t, dtype=u.dtype).expand(*u.shape[:-1], 1))
        x = u if len(parts) == 1 else torch.cat(parts, dim=-1)
        z = (x - self.center) / self.scale
        if self.spec.squash:
            z = torch.tanh(z)
        if self.spec.input_power != 1:
            z = z**self.spec.input_power
        return self.rate * self.net(z)

    def _named_in_order(self, gradient: bool = False) -> list[Tensor]:
        """Parameters, or their gradients, in the order and shapes of `FieldSpec.layout()`, as views."""
        layers = self.net.layers if isinstance(self.net, MLP) else self.net
        found = [getattr(layers[block.layer], block.name) for block in self.spec.layout()]
        found = [p.grad if gradient else p.detach() for p in found]
        # a Linear has its outputs first; KAN layers have the layout's order already
        return [p.movedim(0, -1) for p in found] if isinstance(self.net, MLP) else found

    def load_flat(self, params: Float[np.ndarray, " parameters"] | Float[Tensor, " parameters"]) -> VectorField:
        """Set the parameters from a flat vector in the order of `FieldSpec.layout()`; returns self."""
        flat = torch.as_tensor(params)
        if flat.shape != (self.spec.n_parameters,):
            raise ValueError(f"got parameters of shape {tuple(flat.shape)}: expected ({self.spec.n_parameters},)")
        with torch.no_grad():
            for block, target in zip(self.spec.layout(), self._named_in_order()):
                target.copy_(flat[block.offset : block.offset + block.size].view(block.shape))
        return self

    def to_flat(self, gradient: bool = False) -> Float64[np.ndarray, " parameters"]:
        """The parameters, or their gradients, as a flat vector in the order of `FieldSpec.layout()`."""
        return torch.cat([a.reshape(-1) for a in self._named_in_order(gradient)]).to(torch.float64).numpy()


def refined_field(
    spec: FieldSpec, params: Float64[np.ndarray, " parameters"], grid: int
) -> tuple[FieldSpec, np.ndarray]:
    """A KAN field on a finer grid, and its flat parameters (Q,), with which it is the same function.

    Exactly where `grid` is a multiple of the present one; else refitted by least squares, see `SplineKAN.extend_grid`.

    Raises:
        ValueError: a coarser `grid`.
    """
    field = VectorField(spec).load_flat(params)
    layers: Any = field.net
    for layer in layers:
        layer.extend_grid(grid)
    finer = VectorField(replace(spec, grid=grid))
    finer.load_state_dict(field.state_dict())
    return finer.spec, finer.to_flat()
