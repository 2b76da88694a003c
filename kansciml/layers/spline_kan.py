"""B-spline KAN layer (Liu et al. 2024; Pal & Das 2024, section 3): any order, any knots, only x kept for backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.layers._kernels import efficient_kan, spline_init
from kansciml.layers._kernels.activations import ACTIVATIONS, activate
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import check, check_shape, even, read
from kansciml.layers._kernels.plain import Weights
from kansciml.layers._kernels.spline_op import BACKENDS, apply
from kansciml.layers._kernels.tensor_values import has_values
from kansciml.layers._layer import KANLayer, checked_range
from kansciml.layers._refit.gather import gathered
from kansciml.layers._refit.new_knots import adaptive_knots, extended_knots
from kansciml.layers._refit.parameters import require_own, resize
from kansciml.layers._refit.refit import RefitError, refit
from kansciml.layers.bspline import OUTSIDE, SplineSpec
from kansciml.layers.regularisation import penalty

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SplineKAN(KANLayer):
    r"""KAN layer with a learnable univariate function on every edge.

    .. math:: y_o = b_o + \sum_i w_{io}\,\mathrm{act}(x_i) + s_{io} \sum_{m=1}^{G+S} c_{imo} B_m(x_i)

    Parameters: I O (2 + G + S) with the defaults, as in section 3.1 of the paper. The backward pass keeps x alone; the
    basis is evaluated in float32 at least.

    Args:
        in_features, out_features: I and O, at least 1.
        grid: number of grid intervals G (default 5).
        spline_order: polynomial order S, at least 0 (default 3, cubic).
        grid_range: interval the grid covers (default [-1, 1]).
        spline_scale: learn one factor per edge on the spline (default), as the paper counts it.
        bias: learn one constant per output (default: none, as in the paper).
        base_activation: ``silu`` (default), ``gelu``, ``tanh``, ``relu``, ``identity``, or None for no base branch.
        outside: the splines outside the grid: ``zero`` (default: they fade to zero over S knots, as in the paper's
            sources), ``clamp`` (constant), ``linear`` (go on straight).
        init: ``glorot`` (default), ``noise``, ``variance`` or ``zero``; see `reset_parameters`.
        backend: ``auto`` (default: C++ on a CPU where it was built, else PyTorch), ``torch``, ``cpp``, ``triton`` (a
            CUDA device, orders 1 to 5; experimental: tested under Triton's interpreter, on no device yet; in float64
            it leaves the layer to PyTorch).
        device, dtype: as in `torch.nn.Linear`.

    Attribute `keep_basis` (False): keep what follows from the input once a gradient's graph serves several backward
    passes, as for Hessian-vector products. Memory: 2 (G + S) + 2 times the input; in the C++ kernels 3.25 times it.

    Weights: `base_weight` (I, O), `spline_weight` (I, G + S, O), `spline_scale` (I, O), `bias` (O,). Buffer `knots`
    (I, G + 2S + 1), float64, part of the state, read anew in every call. NaN in a row of the input stays in that row.

    Raises:
        ValueError: a size out of range, an unknown name, an empty grid_range, or an input whose last axis is not I.
    """

    GRID = "knots"
    knots: Tensor
    keep_basis: bool = False

    @torch.inference_mode(False)  # made or changed there, a layer could not be trained afterwards
    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        spline_scale: bool = True,
        bias: bool = False,
        base_activation: str | None = "silu",
        outside: str = "zero",
        init: str = "glorot",
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, grid) < 1 or spline_order < 0:
            raise ValueError(
                f"got in_features {in_features}, out_features {out_features}, grid {grid}, spline_order {spline_order}:"
                " expected each to be at least 1 (spline_order: at least 0)"
            )
        self._first_range = checked_range(grid_range)
        for kind, got, valid in (
            ("base_activation", base_activation, (None, *ACTIVATIONS)),
            ("outside", outside, OUTSIDE),
            ("init", init, tuple(spline_init.INITS)),
            ("backend", backend, BACKENDS),
        ):
            if got not in valid:
                raise ValueError(f"got {kind} {got!r}: expected one of {', '.join(map(str, valid))}")
        self.in_features, self.out_features = in_features, out_features
        self.spline_order, self.outside, self.base_activation = spline_order, outside, base_activation
        self.init, self.backend = init, backend

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        edges = (in_features, out_features)
        self.base_weight = None if base_activation is None else parameter(*edges)
        self.spline_weight = parameter(in_features, grid + spline_order, out_features)
        self.spline_scale = parameter(*edges) if spline_scale else None
        self.bias = parameter(out_features) if bias else None
        knots = even(in_features, grid, spline_order, self._first_range)
        self.register_buffer("knots", knots.to(self.spline_weight.device))
        self.reset_parameters()

    @property
    def grid(self) -> int:
        """Number of grid intervals G."""
        return self.knots.shape[1] - 2 * self.spline_order - 1

    @property
    def grid_range(self) -> tuple[float, float]:
        """Lowest and highest end of the inputs' grids; on "meta", those that the layer was made with."""
        if not has_values(self.knots):
            return self._first_range
        ends = self.knots[:, self.spline_order : self.spline_order + self.grid + 1]
        return float(ends.min()), float(ends.max())

    @property
    def fan_in(self) -> int:
        """Edges into an output."""
        return self.in_features

    @property
    def fan_out(self) -> int:
        """Edges out of an input."""
        return self.out_features

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew by the layer's `init`; biases are zero. The grid stays.

        ``glorot``: Glorot-uniform base weights, coefficients N(0, 0.01 / I), unit scales. ``noise``: as the paper's
        sources, splines through noise of amplitude 0.1 / G at the knots, Kaiming-uniform base weights and scales.
        ``variance``: base branch and splines each give half of unit variance on the grid. ``zero``: splines are zero.
        """
        require_own(self, "base_weight", "spline_weight", "spline_scale", "bias")
        spline_init.INITS[self.init](self, generator)
        if self.bias is not None:
            self.bias.zero_()

    @torch.inference_mode(False)
    @torch.no_grad()
    def set_knots(self, knots: Float[Tensor, "inputs knots"]) -> None:
        """Replace the knots, G + 2S + 1 for each input, strictly increasing; the coefficients stay as they are.

        Raises:
            ValueError: another shape, knots not increasing or not finite.
        """
        check_shape(knots, self.spline_weight, self.spline_order)
        check(knots)
        knots = knots.detach().to(self.knots.device, self.knots.dtype)
        if knots.shape == self.knots.shape and not self.knots.is_inference():
            self.knots.copy_(knots)
        else:
            self.knots = knots.clone()

    @property
    def spec(self) -> SplineSpec:
        """What the kernels are told of this layer as it is now."""
        return self._read(self.spline_weight)[0]

    @property
    def cells(self) -> Tensor:
        """What the kernels read of the knots as they are now, see `evaluate`."""
        return self._read(self.spline_weight)[1]

    def _read(self, weight: Tensor, dtype: torch.dtype | None = None) -> tuple[SplineSpec, Tensor]:
        """`spec` and `cells`, for weights of `dtype` (default: their own)."""
        knots = self._buffers["knots"] if "knots" in self._buffers else self.knots
        assert knots is not None
        order = self.spline_order
        check_shape(knots, weight, order)
        if torch.compiler.is_compiling():  # the registered operators look at the knots when they run
            return SplineSpec(weight.shape[1] - order, order, False, self.outside, self.base_activation), knots
        return read(knots, order, self.outside, self.base_activation, dtype or weight.dtype)

    def _first_grid(self) -> Tensor:
        return even(self.in_features, self.grid, self.spline_order, self._first_range)

    @torch.inference_mode(False)
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        knots, weight = (state_dict.get(prefix + name) for name in ("knots", "spline_weight"))
        own = self._parameters.get("spline_weight")
        if knots is not None and weight is not None and own is not None and weight.shape != own.shape:
            size = knots.shape[-1] - self.spline_order - 1
            expected = (self.in_features, size + self.spline_order + 1), (self.in_features, size, self.out_features)
            if size > self.spline_order and (knots.shape, weight.shape) == expected:
                resize(own, weight)  # a state of another grid, as after `extend_grid`
                self.knots = self.knots.new_empty(knots.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def basis(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch inputs splines"]:
        """The G + S B-splines of each input at x. Differentiable in x."""
        self._check_real(x)
        spec, cells = self._read(self.spline_weight)
        values = evaluate(spec, x.reshape(-1, self.in_features).t().to(cells.dtype), cells)[0]  # (I, P, N)
        return values.permute(2, 0, 1).reshape(*x.shape, -1).to(x.dtype)

    def _check_real(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(f"got input of {x.dtype}: expected real floating-point numbers")
        self._check(x)

    def _run(self, x: Tensor, narrow: torch.dtype | None) -> Tensor:
        base, spline, scale = map(self._weight, ("base_weight", "spline_weight", "spline_scale"))
        spec, cells = self._read(spline)
        if narrow is not None:
            base, spline, scale = (None if w is None else w.to(narrow) for w in (base, spline, scale))
        return apply(spec, self.backend, x, cells, base, spline, scale, self.keep_basis)

    @torch.inference_mode(False)
    @torch.no_grad()
    def update_grid(
        self, x: Float[Tensor, "*batch inputs"], blend: float = 0.02, group: ProcessGroup | None = None
    ) -> RefitError:
        """Move the knots to where the inputs are and refit the coefficients, so that the function stays.

        Args:
            x: inputs that the layer sees, finite; at least a few per interval.
            blend: 0 puts equally many inputs into each interval, 1 spaces the knots evenly (and keeps the fast path).
            group: ranks of `torch.distributed` (default: all) that call this together, each with inputs of its own,
                perhaps none; those of all count.

        Returns:
            The refit's error over these inputs: how much the splines' outputs changed there.

        Raises:
            ValueError: no inputs, not finite ones or of another width, or a `spline_weight` made from others.
        """
        samples = self._samples(x, group)
        return self._refit(adaptive_knots(samples, self.grid, self.spline_order, blend), samples)

    @torch.inference_mode(False)
    @torch.no_grad()
    def extend_grid(
        self, grid: int, x: Float[Tensor, "*batch inputs"] | None = None, group: ProcessGroup | None = None
    ) -> RefitError:
        """Refine to `grid` intervals: exactly where `grid` is a multiple of the present one, else by least squares.

        Off the grid, splines that fade (`outside` ``zero``) do so over S of the new, narrower cells. `spline_weight`
        stays the same parameter, frozen or not, in another shape, without its gradient: an optimiser with moments of
        the old shape refuses its next step.

        Args:
            grid: new number of intervals, at least the present one.
            x: inputs over which to fit and to tell the error; None: points spread over the grid.
            group: as in `update_grid`.

        Raises:
            ValueError: a smaller `grid`, inputs or a `spline_weight` as in `update_grid`.
        """
        if grid < self.grid:
            raise ValueError(f"got grid {grid}: expected at least {self.grid}, the present one")
        samples = None if x is None else self._samples(x, group)
        return self._refit(extended_knots(self.knots, self.spline_order, grid), samples)

    def _samples(self, x: Tensor, group: ProcessGroup | None) -> Tensor:
        self._check_real(x)
        return gathered(x.detach().reshape(-1, self.in_features).to(self.knots.device, torch.float64), group)

    def _refit(self, knots: Tensor, samples: Tensor | None) -> RefitError:
        require_own(self, "spline_weight")
        coefficients, error = refit(
            self.spline_weight.detach(), self.knots, knots, self.spline_order, samples, self.outside, self.spline_scale
        )
        resize(self.spline_weight, coefficients)
        self.spline_weight.copy_(coefficients)
        self.set_knots(knots)
        return error

    def edge_norms(self) -> Float[Tensor, "inputs outputs"]:
        """Mean absolute spline coefficient of every edge, scale included, plus |base weight|; differentiable.

        The size of an edge's function without data; on a grid no spline exceeds it.
        """
        norms = self.spline_weight.abs().mean(1)
        if self.spline_scale is not None:
            norms = norms * self.spline_scale.abs()
        return norms if self.base_weight is None else norms + self.base_weight.abs()

    def regularisation(self, l1: float = 1.0, entropy: float = 1.0) -> Float[Tensor, ""]:
        """l1 * sum of the edge norms + entropy * their entropy (Liu et al. 2024, section 2.5); always finite."""
        return penalty(self.edge_norms(), l1, entropy)

    @torch.no_grad()
    def edge_curves(
        self, points: int = 101
    ) -> tuple[Float64[Tensor, "points inputs"], Float64[Tensor, "points inputs outputs"]]:
        """Every edge's function over its grid: x and values there, base branch included."""
        order = self.spline_order
        low, high = self.knots[:, order].double(), self.knots[:, order + self.grid].double()
        x = low + (high - low) * torch.linspace(0, 1, points, dtype=torch.float64, device=low.device)[:, None]
        spec, cells = self._read(self.spline_weight, torch.float64)
        base, spline, scale = (
            None if w is None else w.double() for w in (self.base_weight, self.spline_weight, self.spline_scale)
        )
        assert spline is not None
        y = torch.einsum("ipn,ipo->nio", evaluate(spec, x.t(), cells)[0], Weights(base, spline, scale).scaled)
        return x, y if base is None else y + activate(self.base_activation, x).unsqueeze(-1) * base

    @classmethod
    def from_efficient_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> SplineKAN:
        """The layer of an efficient-kan layer's state, with its knots, dtype and device.

        Args:
            state_dict: ``base_weight``, ``spline_weight``, ``grid``, and ``spline_scaler`` if there is one.
            options: further arguments of this class, such as `base_activation` (efficient-kan's default: silu).

        Raises:
            ValueError: keys or shapes that are not efficient-kan's.
        """
        state, order = efficient_kan.read(state_dict)
        weight = state["spline_weight"]
        own = {"spline_scale": "spline_scale" in state, "device": weight.device, "dtype": weight.dtype}
        layer = cls(weight.shape[0], weight.shape[2], weight.shape[1] - order, order, **{**own, **options})
        layer.load_state_dict(state)
        return layer

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, grid={self.grid}, spline_order={self.spline_order},"
            f" grid_range={self.grid_range}, spline_scale={self.spline_scale is not None},"
            f" bias={self.bias is not None}, base_activation={self.base_activation}, outside={self.outside},"
            f" backend={self.backend}"
        )


def set_backend(module: nn.Module, backend: str) -> None:
    """Have all `SplineKAN` layers of a network computed by ``torch``, ``cpp``, ``triton`` or ``auto``."""
    for layer in module.modules():
        if isinstance(layer, SplineKAN):
            layer.backend = backend
