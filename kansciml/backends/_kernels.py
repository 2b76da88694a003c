"""The built-in fields in NumPy: one state at a time for the integrator, all states at once for the gradient.

`FieldKernel` binds a parameter vector and gives three things: ``rhs`` (n,) -> (n,), as few NumPy calls as possible;
``batch`` (B, n) -> (B, n); and `linearise`, the Jacobians du/dt by u at B states with a function that pulls B
cotangents back to the parameters. Derivatives are written by hand and tested against torch's autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Float64
from scipy.special import erf, expit

from kansciml.layers.bspline import uniform_pieces
from kansciml.models.field_spec import FieldSpec

Rhs = Callable[[float, np.ndarray, np.ndarray], None]
"""``rhs(t, u, out)`` writes du/dt at the state u (n,) into out (n,)."""
Pullback = Callable[[np.ndarray], np.ndarray]
"""Cotangents (B, n) -> gradient (P,) of sum(cotangent * f) by the parameters."""


States = Float64[np.ndarray, "B n"]
Times = Float64[np.ndarray, " B"]
InputRows = Float64[np.ndarray, "B m"]
Slopes = Float64[np.ndarray, "B out"]
"""du/dt, (B, n); of a network beside known terms its outputs."""


class FieldKernel(Protocol):
    """A field with its parameters bound."""

    @property
    def rhs(self) -> Rhs | None:
        """Writes du/dt at one state into an array; None where it takes inputs or, built-in, time: see `batch`."""

    def batch(self, u: States, t: Times, w: InputRows | None = None) -> Slopes:
        """du/dt at states and times, and at inputs where the field has them."""

    def linearise(
        self, t: Times, u: States, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "B out n"], Pullback]:
        """Jacobians, [b, i, j] = d f_i / d u_j, at times, states and inputs, and the pullback."""


class CountedKernel:
    """A field's kernel that tells `count` at how many states it is evaluated; derivatives are not counted."""

    def __init__(self, kernel: FieldKernel, count: Callable[[int], None]) -> None:
        self._kernel, self._count = kernel, count
        self.linearise = kernel.linearise
        self.rhs = kernel.rhs and self._counted(kernel.rhs)

    def _counted(self, rhs: Rhs) -> Rhs:
        count = self._count

        def counted(t: float, u: np.ndarray, out: np.ndarray) -> None:
            count(1)
            rhs(t, u, out)

        return counted

    def batch(self, u: States, t: Times, w: InputRows | None = None) -> Slopes:
        self._count(len(u))
        return self._kernel.batch(u, t, w)


def _gelu_slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


def _silu_slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    s = expit(x)
    return s * (1 + x * (1 - s))


# activation -> (value of x, slope from x and the value)
_ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "silu": (lambda x: x * expit(x), _silu_slope),
    "gelu": (lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))), _gelu_slope),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x, y: (x > 0).astype(np.float64)),
    "sigmoid": (expit, lambda x, y: y * (1 - y)),
}


class _Normalisation:
    """z = squash((u - center) / scale) ** power, element-wise, and its slope."""

    def __init__(self, spec: FieldSpec) -> None:
        self.center, scale, self.rate = spec.normalisation()
        self.inverse_scale = 1.0 / scale
        self.squash, self.power = spec.squash, spec.input_power

    def __call__(self, u: np.ndarray) -> np.ndarray:
        z = (u - self.center) * self.inverse_scale
        if self.squash:
            z = np.tanh(z)
        return z if self.power == 1 else z**self.power

    def slope(self, u: np.ndarray) -> np.ndarray:
        z = (u - self.center) * self.inverse_scale
        slope = np.broadcast_to(self.inverse_scale, z.shape)
        if self.squash:
            z = np.tanh(z)
            slope = slope * (1 - z * z)
        return slope if self.power == 1 else slope * (self.power * z ** (self.power - 1))


class MLPKernel:
    """MLP field with bound parameters."""

    def __init__(self, spec: FieldSpec, params: np.ndarray) -> None:
        self.spec = spec
        self.norm = _Normalisation(spec)
        self.value, self.slope = _ACTIVATIONS[spec.activation]
        self.layers = [(layer["weight"], layer["bias"]) for layer in spec.unpack(params)]
        self.rhs = None if spec.inputs or spec.time else self._make_rhs()

    def _make_rhs(self) -> Rhs:
        norm, value = self.norm, self.value
        weights = [w for w, _ in self.layers]
        biases = [b for _, b in self.layers]
        plain = not norm.squash and norm.power == 1
        if plain:  # the normalisation is affine: fold it into the first layer
            biases[0] = biases[0] - (norm.center * norm.inverse_scale) @ weights[0]
            weights[0] = weights[0] * norm.inverse_scale[:, None]
        weights[-1], biases[-1] = weights[-1] * norm.rate, biases[-1] * norm.rate
        hidden = [(w, b, np.empty(len(b))) for w, b in zip(weights[:-1], biases[:-1])]
        last_weight, last_bias = weights[-1], biases[-1]
        in_place = value is np.tanh

        def rhs(t: float, u: np.ndarray, out: np.ndarray) -> None:
            z = u if plain else norm(u)
            for w, b, h in hidden:
                np.dot(z, w, out=h)
                h += b
                z = np.tanh(h, out=h) if in_place else value(h)
            np.dot(z, last_weight, out=out)
            out += last_bias

        return rhs

    def batch(self, u: States, t: Times | None = None, w: InputRows | None = None) -> Slopes:
        z = self.norm(self.spec.network_input(u, t, w))
        for weight, b in self.layers[:-1]:
            z = self.value(z @ weight + b)
        weight, b = self.layers[-1]
        return (z @ weight + b) * self.norm.rate

    def linearise(
        self, t: Times | None, u: States, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "B out n"], Pullback]:
        x = self.spec.network_input(u, t, w)
        inputs, slopes = [self.norm(x)], []
        for weight, b in self.layers[:-1]:
            h = inputs[-1] @ weight + b
            y = self.value(h)
            inputs.append(y)
            slopes.append(self.slope(h, y))
        # Jacobian as (B, in, out), from the output side
        jacobian = self.layers[-1][0] * self.norm.rate
        for (weight, _), slope in zip(self.layers[-2::-1], slopes[::-1]):
            jacobian = np.matmul(weight, slope[:, :, None] * jacobian)
        jacobian = self.norm.slope(x)[:, :, None] * jacobian

        def pullback(cotangent: np.ndarray) -> np.ndarray:
            grads: list[np.ndarray] = []
            c = cotangent * self.norm.rate
            for i in range(len(self.layers) - 1, -1, -1):
                grads[:0] = [(inputs[i].T @ c).ravel(), c.sum(axis=0)]
                if i:
                    c = (c @ self.layers[i][0].T) * slopes[i - 1]
            return np.concatenate(grads)

        return jacobian[:, : u.shape[1]].transpose(0, 2, 1), pullback


class _SplineLayer:
    """One KAN layer with bound weights."""

    def __init__(self, spec: FieldSpec, layer: dict[str, np.ndarray]) -> None:
        self.base, self.spline, self.scale = layer["base_weight"], layer["spline_weight"], layer["spline_scale"]
        self.n_in, self.basis_size, self.n_out = self.spline.shape
        self.order, self.grid = spec.spline_order, spec.grid
        low, high = spec.grid_range
        self.per_cell = spec.grid / (high - low)
        self.offset = spec.spline_order - low * self.per_cell  # position of x = 0 in cells from the first knot
        self.cells = spec.grid + 2 * spec.spline_order
        self.pieces = uniform_pieces(spec.spline_order)
        self.weight = self.spline * self.scale[:, None, :]

    def make_rhs(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """x (I,), out (O,) -> out, by looking up each input's polynomial coefficients: no basis is formed."""
        n_in, n_out, order, cells = self.n_in, self.n_out, self.order, self.cells
        padded = np.zeros((n_in, cells + order, n_out))  # splines a cell near the edge lacks are zeros
        padded[:, order : order + self.basis_size] = self.weight
        windows = np.lib.stride_tricks.sliding_window_view(padded, order + 1, axis=1)  # (I, cells, O, S + 1)
        # per input and cell, S + 1 polynomial coefficients and the base weight; first and last cell: outside the knots
        table = np.zeros((n_in, cells + 2, order + 2, n_out))
        table[:, 1:-1, : order + 1] = np.moveaxis(windows @ self.pieces, -1, 2)
        table[:, :, order + 1] = self.base[:, None, :]
        rows = table.reshape(n_in * (cells + 2), order + 2, n_out)
        first = np.arange(n_in) * (cells + 2) + 1.0
        powers = np.ones((n_in, order + 2))
        flat_powers = powers.reshape(-1)
        r, silu = powers[:, 1], powers[:, order + 1]
        higher = [(powers[:, p - 1], powers[:, p]) for p in range(2, order + 1)]
        u, cell = np.empty((2, n_in))
        row = np.empty(n_in, dtype=np.intp)
        coefficients = np.empty((n_in, order + 2, n_out))
        flat_coefficients = coefficients.reshape(-1, n_out)
        per_cell, offset, last = self.per_cell, self.offset, float(cells)

        def layer(x: np.ndarray, out: np.ndarray) -> np.ndarray:
            np.multiply(x, per_cell, out=u)
            np.add(u, offset, out=u)
            np.floor(u, out=cell)
            np.subtract(u, cell, out=r)
            for lower, power in higher:
                np.multiply(lower, r, out=power)
            expit(x, out=silu)
            np.multiply(silu, x, out=silu)
            np.maximum(cell, -1.0, out=cell)
            np.minimum(cell, last, out=cell)
            np.add(cell, first, out=cell)
            row[:] = cell
            rows.take(row, axis=0, out=coefficients, mode="clip")
            return np.dot(flat_powers, flat_coefficients, out=out)

        return layer

    def basis(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """B-splines and their slopes at x (B, I), each (I, B, G + S)."""
        u = np.ascontiguousarray(x.T) * self.per_cell + self.offset  # (I, B)
        cell = np.floor(u)
        inside = (cell >= 0) & (cell < self.cells)
        cell = np.where(inside, cell, 0.0)
        r = np.where(inside, u - cell, 0.0)
        exponents = np.arange(self.order + 1)
        powers, slopes = np.zeros((2, *u.shape, self.order + 1))
        powers[..., 0] = inside
        for p in range(1, self.order + 1):
            np.multiply(powers[..., p - 1], r, out=powers[..., p])
        np.multiply(powers[..., :-1], exponents[1:] * self.per_cell, out=slopes[..., 1:])
        width = self.basis_size + 2 * self.order  # a cell near the edge also sees splines the layer does not have
        index = (np.arange(u.size) * width)[:, None] + cell.astype(np.intp).reshape(-1, 1) + exponents
        dense = np.zeros((2, u.size * width))
        for target, values in zip(dense, (powers, slopes)):
            target[index] = values.reshape(-1, self.order + 1) @ self.pieces.T
        return tuple(dense.reshape(2, *u.shape, width)[..., self.order : self.order + self.basis_size])

    def linearise(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Callable]:
        """Output (B, O), Jacobian (B, I, O), and the pullback of cotangents (B, O) to this layer's parameters."""
        basis, slopes = self.basis(x)
        s = expit(x)
        silu, silu_slope = x * s, s * (1 + x * (1 - s))
        rows = basis.transpose(1, 0, 2).reshape(len(x), -1)  # (B, I (G + S))
        y = silu @ self.base + rows @ self.weight.reshape(-1, self.n_out)
        jacobian = np.matmul(slopes, self.weight)  # (I, B, O)
        jacobian += silu_slope.T[:, :, None] * self.base[:, None, :]

        def pullback(cotangent: np.ndarray) -> list[np.ndarray]:
            weight = (rows.T @ cotangent).reshape(self.weight.shape)
            scale = np.einsum("imo,imo->io", weight, self.spline)
            return [(silu.T @ cotangent).ravel(), (weight * self.scale[:, None, :]).ravel(), scale.ravel()]

        return y, jacobian.transpose(1, 0, 2), pullback

    def batch(self, x: np.ndarray) -> np.ndarray:
        rows = self.basis(x)[0].transpose(1, 0, 2).reshape(len(x), -1)
        return (x * expit(x)) @ self.base + rows @ self.weight.reshape(-1, self.n_out)


class KANKernel:
    """Spline KAN field with bound parameters."""

    def __init__(self, spec: FieldSpec, params: np.ndarray) -> None:
        self.spec = spec
        self.norm = _Normalisation(spec)
        self.layers = [_SplineLayer(spec, layer) for layer in spec.unpack(params)]
        self.rhs = None if spec.inputs or spec.time else self._make_rhs()

    def _make_rhs(self) -> Rhs:
        norm = self.norm
        plain = not norm.squash and norm.power == 1
        center, inverse_scale, rate = norm.center, norm.inverse_scale, norm.rate
        z0 = np.empty(len(center))
        layers = [(layer.make_rhs(), np.empty(layer.n_out)) for layer in self.layers]

        def rhs(t: float, u: np.ndarray, out: np.ndarray) -> None:
            if plain:
                z = np.subtract(u, center, out=z0)
                z *= inverse_scale
            else:
                z = norm(u)
            for layer, buffer in layers:
                z = layer(z, buffer)
            np.multiply(z, rate, out=out)

        return rhs

    def batch(self, u: States, t: Times | None = None, w: InputRows | None = None) -> Slopes:
        z = self.norm(self.spec.network_input(u, t, w))
        for layer in self.layers:
            z = layer.batch(z)
        return z * self.norm.rate

    def linearise(
        self, t: Times | None, u: States, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "B out n"], Pullback]:
        x = self.spec.network_input(u, t, w)
        z = self.norm(x)
        jacobians, pullbacks = [], []
        for layer in self.layers:
            z, jacobian, pull = layer.linearise(z)
            jacobians.append(jacobian)
            pullbacks.append(pull)
        total = self.norm.slope(x)[:, :, None] * jacobians[0]
        for jacobian in jacobians[1:]:
            total = np.matmul(total, jacobian)
        total = total * self.norm.rate

        def pullback(cotangent: np.ndarray) -> np.ndarray:
            grads: list[np.ndarray] = []
            c = cotangent * self.norm.rate
            for i in range(len(self.layers) - 1, -1, -1):
                grads[:0] = pullbacks[i](c)
                if i:
                    c = np.matmul(jacobians[i], c[:, :, None])[:, :, 0]
            return np.concatenate(grads)

        return total[:, : u.shape[1]].transpose(0, 2, 1), pullback


def bind(spec: FieldSpec, params: Float64[np.ndarray, " P"]) -> FieldKernel:
    """The kernel of a built-in field with a flat parameter vector."""
    return MLPKernel(spec, params) if spec.model == "mlp" else KANKernel(spec, params)
