"""Learnable vector fields as both ODE backends know them: sizes, options and the order of the flat parameter vector.

A field is du/dt = rate * net(z), z = (x - center) / scale, optionally squashed by tanh and raised to a power, where
`net` is an MLP or a spline KAN and x is the state u, followed by the inputs w(t) and by the time t where it has them.
All numbers are float64. PyTorch and Julia read the *same flat parameter vector*; its order is `FieldSpec.layout()`:

* MLP, per layer: ``weight`` as a C-ordered (in, out) array, then ``bias`` (out,).
* KAN, per layer: ``base_weight`` (in, out), ``spline_weight`` (in, G + S, out), ``spline_scale`` (in, out).

C-ordered (in, ..., out) is column-major (out, ..., in), so Julia reshapes the same memory to Lux's layout without
permuting, and PyTorch transposes a view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from kansciml._errors import UsageError, unknown_name
from kansciml.models.units import Units, to_digits, to_places

ACTIVATIONS = ("tanh", "silu", "gelu", "relu", "sigmoid")
MODELS = ("mlp", "kan")
OUTPUT_GAIN = 0.1
INPUT_SCALINGS = ("affine", "affine+tanh", "none", "tanh")


@dataclass(frozen=True)
class ParameterBlock:
    """One named array inside the flat parameter vector: ``params[offset:offset + size].reshape(shape)``."""

    layer: int
    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class FieldSpec:
    """A learnable vector field, independent of the framework that evaluates it.

    Args:
        model: ``"mlp"`` (Linear layers, `activation` between them) or ``"kan"`` (spline KAN layers, Pal & Das 2024,
            section 3: SiLU base branch, B-splines, one scale per edge, no bias).
        widths: layer widths from x to derivative, e.g. ``(2, 50, 2)``; the last is the state size n, the first
            n + `inputs` + `time`.
        activation: hidden activation of the MLP.
        grid: number of grid intervals G of each spline.
        spline_order: polynomial order S of each spline (3 = cubic).
        grid_range: interval covered by the grid in every layer; outside, the splines fade to zero over S knots.
        center, scale: normalisation z = (x - center) / scale; empty means 0 and 1.
        rate: factor on the output, in state units per time; empty means 1.
        squash: apply tanh to z (after normalisation).
        input_power: raise z element-wise to this odd power (3 gives the cubes some spiral tutorials feed in).
        inputs: number m of inputs w(t) that the network is fed beside the state.
        time: whether it is fed the time t, last.

    Raises:
        UsageError: unknown name, fewer than two widths, a width, grid, or order out of range, mismatched lengths.
    """

    model: str
    widths: tuple[int, ...]
    activation: str = "tanh"
    grid: int = 5
    spline_order: int = 3
    grid_range: tuple[float, float] = (-1.0, 1.0)
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    squash: bool = False
    input_power: int = 1
    inputs: int = 0
    time: bool = False

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise unknown_name("model", self.model, MODELS)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise UsageError(f"got widths {self.widths}: expected at least two positive layer widths, such as 2 50 2")
        self._check_ends()
        if self.grid < 1 or self.spline_order < 1:
            raise UsageError(
                f"got grid {self.grid} and spline_order {self.spline_order}: expected both to be at least 1"
            )
        low, high = self.grid_range
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise UsageError(f"got grid_range {self.grid_range}: expected two finite numbers, lower then higher")
        if self.input_power < 1 or self.input_power % 2 == 0:
            raise UsageError(f"got input_power {self.input_power}: expected an odd positive integer, such as 1 or 3")
        for name in ("center", "scale", "rate"):
            values = getattr(self, name)
            size = self.state_size if name == "rate" else self.widths[0]
            if values and len(values) != size:
                what = "state component" if size == self.state_size else "state component, input and time"
                raise UsageError(f"got {len(values)} values for {name}: expected {size}, one per {what}")
            if not np.all(np.isfinite(values)) or (name == "scale" and not np.all(np.array(values) > 0)):
                raise UsageError(f"got {name} {values}: expected finite numbers (scale: positive)")

    def _check_ends(self) -> None:
        if self.inputs < 0 or self.widths[0] != self.widths[-1] + self.inputs + self.time:
            fed = f" but for {self.inputs} inputs{' and time' if self.time else ''}" if self.inputs or self.time else ""
            raise UsageError(f"got widths {self.widths}: the first and last must both be the state size{fed}")

    @property
    def state_size(self) -> int:
        return self.widths[-1]

    @property
    def basis_size(self) -> int:
        """Number of B-splines per edge, G + S."""
        return self.grid + self.spline_order

    def normalisation(self) -> tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " x"], Float64[np.ndarray, " n"]]:
        """(center, scale, rate) with the defaults filled in."""
        return (
            np.array(self.center or np.zeros(self.widths[0]), dtype=np.float64),
            np.array(self.scale or np.ones(self.widths[0]), dtype=np.float64),
            np.array(self.rate or np.ones(self.state_size), dtype=np.float64),
        )

    def network_input(
        self,
        u: Float64[np.ndarray, "B n"],
        t: Float64[np.ndarray, " B"] | None = None,
        w: Float64[np.ndarray, "B m"] | None = None,
    ) -> Float64[np.ndarray, "B x"]:
        """x = (u, w, t) as this field is fed it; `w` and `t` are needed only where it has them."""
        parts = [u]
        if self.inputs:
            assert w is not None
            parts.append(w)
        if self.time:
            assert t is not None
            parts.append(t[:, None])
        return u if len(parts) == 1 else np.concatenate(parts, axis=1)

    def inputs_in(self, values: Float64[np.ndarray, "L m"]) -> Float64[np.ndarray, "L m"]:
        """Inputs as the field `in_units` is given them: normalised, of order one, and rounded as states are."""
        center, scale, _ = self.normalisation()
        own = slice(self.state_size, self.state_size + self.inputs)
        return to_places((values - center[own]) / scale[own])

    def in_units(self, units: Units) -> FieldSpec:
        """The same field with the same parameters, dv/dtau of v, its inputs as `inputs_in` gives them: see `Units`."""
        center, scale, rate = self.normalisation()
        n, m = self.state_size, self.inputs
        center[:n], scale[:n] = (center[:n] - units.origin) / units.state, scale[:n] / units.state
        center[n : n + m], scale[n : n + m] = 0.0, 1.0
        center[n + m :], scale[n + m :] = (
            to_places((center[n + m :] - units.t0) / units.time),
            to_digits(scale[n + m :] / units.time),
        )
        speeds = to_digits(rate * (units.time / units.state))
        at, size, speed = (tuple(values.tolist()) for values in (center, scale, speeds))
        return replace(self, center=at, scale=size, rate=speed)

    def layout(self) -> tuple[ParameterBlock, ...]:
        """The named arrays of the flat parameter vector, in order."""
        blocks: list[ParameterBlock] = []
        offset = 0
        for layer, (n_in, n_out) in enumerate(zip(self.widths[:-1], self.widths[1:])):
            if self.model == "mlp":
                shapes = {"weight": (n_in, n_out), "bias": (n_out,)}
            else:
                shapes = {
                    "base_weight": (n_in, n_out),
                    "spline_weight": (n_in, self.basis_size, n_out),
                    "spline_scale": (n_in, n_out),
                }
            for name, shape in shapes.items():
                blocks.append(ParameterBlock(layer, name, shape, offset))
                offset += blocks[-1].size
        return tuple(blocks)

    @property
    def n_parameters(self) -> int:
        """Number of learnable parameters: O(I+1) per MLP layer, I O (2+G+S) per KAN layer (Pal & Das, section 3.1)."""
        last = self.layout()[-1]
        return last.offset + last.size

    def unpack(self, params: Float[np.ndarray, " parameters"]) -> list[dict[str, np.ndarray]]:
        """One dict of named array views per layer."""
        layers: list[dict[str, np.ndarray]] = [{} for _ in self.widths[1:]]
        for block in self.layout():
            layers[block.layer][block.name] = params[block.offset : block.offset + block.size].reshape(block.shape)
        return layers

    def initial_parameters(self, seed: int) -> Float64[np.ndarray, " parameters"]:
        """Initial flat parameter vector, the same for every backend.

        MLP: Glorot-uniform weights, zero biases. KAN: Glorot-uniform base weights, spline coefficients
        N(0, (0.1 / sqrt(in))^2), unit scales. The last layer starts at a tenth of that (`OUTPUT_GAIN`): du/dt is then
        small, and the first trajectory stays near u0 instead of running out of the data, or to infinity.
        """
        rng = np.random.default_rng(seed)
        params = np.zeros(self.n_parameters)
        layers = self.unpack(params)
        for layer in layers:
            gain = OUTPUT_GAIN if layer is layers[-1] else 1.0
            for name, view in layer.items():
                if name in ("weight", "base_weight"):
                    bound = gain * np.sqrt(6.0 / sum(view.shape))
                    view[...] = rng.uniform(-bound, bound, view.shape)
                elif name == "spline_weight":
                    view[...] = rng.normal(0.0, gain * 0.1 / np.sqrt(view.shape[0]), view.shape)
                elif name == "spline_scale":
                    view[...] = 1.0
        return params

    def label(self) -> str:
        """Short name for tables, e.g. ``MLP 2-50-2`` or ``KAN 2-6-2 (G=5, S=3)``."""
        widths = "-".join(map(str, self.widths))
        return f"MLP {widths}" if self.model == "mlp" else f"KAN {widths} (G={self.grid}, S={self.spline_order})"
