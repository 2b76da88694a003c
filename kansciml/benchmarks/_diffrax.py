"""The same loss + gradient by diffrax (Kidger 2021), for comparison: jitted, float64, one thread.

Dormand-Prince 5(4) with the maximum norm, differentiated by diffrax's recursive checkpointing, its exact gradient of
the discrete solution. Its steps are those of the torch backend but for the last one, which diffrax ends at the last
save point.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
from jaxtyping import Float64

from kansciml.backends.base import OdeProblem, Subset
from kansciml.layers.bspline import uniform_pieces
from kansciml.models.field_spec import FieldSpec


def available() -> bool:
    """Whether jax and diffrax are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jax", "diffrax"))


class DiffraxSolver:
    """An `OdeProblem` of a built-in field without inputs, all of whose series are wholly measured at the same times.

    Called as the solvers of the backends are. Several series are solved under `jax.vmap`.
    """

    backend = "diffrax"

    def __init__(self, problem: OdeProblem) -> None:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ.setdefault("XLA_FLAGS", flags)  # read when jax is first used
        import jax

        jax.config.update("jax_enable_x64", True)
        self.problem, self.inner = problem, problem.in_own_units()
        self._of: dict[int, Any] = {}

    def value_and_grad(
        self, params: Float64[np.ndarray, " P"], subset: Subset | None = None, tolerance: float | None = None
    ) -> tuple[float, Float64[np.ndarray, " P"]]:
        """Loss over the first series, as many as `subset` has, and its gradient; `tolerance`: not the problem's."""
        count = len(self.inner.series if subset is None or subset.series is None else subset.series)
        if count not in self._of:
            self._of[count] = _compiled(self.inner, count)
        loss, grad = self._of[count](params, tolerance or self.inner.rtol, tolerance or self.inner.atol)
        return float(loss), np.asarray(grad)


def _compiled(problem: OdeProblem, count: int) -> Any:
    import diffrax
    import jax
    import jax.numpy as jnp

    spec, series = problem.field, problem.series[:count]
    assert isinstance(spec, FieldSpec)
    field = _field(spec)
    t0, saveat = series[0].t0, series[0].saveat
    starts, data = (jnp.stack([getattr(one, name) for one in series]) for name in ("u0", "data"))

    def states(bound: Any, start: Any, rtol: Any, atol: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, u, args: field(args, u)),
            diffrax.Dopri5(),
            t0,
            saveat[-1],
            None,
            start,
            bound,
            saveat=diffrax.SaveAt(ts=saveat),
            stepsize_controller=diffrax.PIDController(rtol, atol, norm=lambda x: jnp.abs(x).max()),
            adjoint=diffrax.RecursiveCheckpointAdjoint(),
            max_steps=problem.max_steps,
        ).ys

    def loss(params: Any, *tolerances: Any) -> Any:
        bound = _bound(spec, params)
        if count == 1:
            found = states(bound, starts[0], *tolerances)[None]
        else:
            found = jax.vmap(lambda start: states(bound, start, *tolerances))(starts)
        return jnp.mean(((found - data) / problem.loss_scale) ** 2)

    return jax.jit(jax.value_and_grad(loss))


def _bound(spec: FieldSpec, params: Any) -> list[tuple[Any, Any]]:
    """Two arrays per layer; for a KAN base weights (I, O) and the polynomials of each cell (I, cells, S + 1, O)."""
    import jax.numpy as jnp

    layers: list[dict[str, Any]] = [{} for _ in spec.widths[1:]]
    for block in spec.layout():
        layers[block.layer][block.name] = params[block.offset : block.offset + block.size].reshape(block.shape)
    if spec.model == "mlp":
        return [(layer["weight"], layer["bias"]) for layer in layers]
    order, pieces = spec.spline_order, uniform_pieces(spec.spline_order)
    cells, found = spec.grid + 2 * order, []
    for layer in layers:
        splines = layer["spline_weight"] * layer["spline_scale"][:, None, :]
        padded = jnp.pad(splines, ((0, 0), (order, order), (0, 0)))
        windows = jnp.stack([padded[:, q : q + cells] for q in range(order + 1)], axis=2)
        found.append((layer["base_weight"], jnp.einsum("icqo,qp->icpo", windows, pieces)))
    return found


def _field(spec: FieldSpec) -> Any:
    """du/dt of the field, called as ``field(bound, u)``."""
    import jax
    import jax.numpy as jnp

    center, scale, rate = spec.normalisation()
    low, high = spec.grid_range
    cells = spec.grid + 2 * spec.spline_order
    act = {"tanh": jnp.tanh, "silu": jax.nn.silu, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[spec.activation]

    def mlp(bound: Any, z: Any) -> Any:
        for weight, bias in bound[:-1]:
            z = act(z @ weight + bias)
        return z @ bound[-1][0] + bound[-1][1]

    def kan(bound: Any, z: Any) -> Any:
        for base, polynomials in bound:
            at = (z - low) * (spec.grid / (high - low)) + spec.spline_order
            cell = jnp.floor(at)
            inside = (cell >= 0) & (cell < cells)
            powers = (at - cell)[:, None] ** jnp.arange(spec.spline_order + 1) * inside[:, None]
            own = polynomials[jnp.arange(len(z)), jnp.clip(cell, 0, cells - 1).astype(int)]
            z = jax.nn.silu(z) @ base + jnp.einsum("ip,ipo->o", powers, own)
        return z

    def field(bound: Any, u: Any) -> Any:
        z = (u - center) / scale
        if spec.squash:
            z = jnp.tanh(z)
        return rate * (mlp if spec.model == "mlp" else kan)(bound, z**spec.input_power)

    return field
