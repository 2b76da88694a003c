"""B-spline KAN layer (Liu et al. 2024; Pal & Das 2024, section 3): any order, any knots, only x kept for backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.layers._kernels import edges, free_knots, spline_init
from kansciml.layers._kernels.activations import ACTIVATIONS
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import check_shape, even, read
from kansciml.layers._kernels.spline_op import BACKENDS, apply
from kansciml.layers._kernels.tensor_values import has_values
from kansciml.layers._layer import KANLayer, checked_range
from kansciml.layers._refit.gather import gathered
from kansciml.layers._refit.new_knots import adaptive_knots, extended_knots
from kansciml.layers._refit.parameters import require_own
from kansciml.layers._refit.refit import RefitError
from kansciml.layers._states import efficient_kan, splines
from kansciml.layers._states.network import load
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
        learnable_knots: make the knots between the ends of the grid parameters (default: constants). No cell becomes
            narrower than 1 % of an even one, or 1e-5 of the farther end (half its first width, if that is less). Their
            gradient, and second derivatives while they are learned, are PyTorch's, whatever the backend.
        device, dtype: as in `torch.nn.Linear`.

    Attribute `keep_basis` (False): keep what follows from the input once a gradient's graph serves several backward
    passes, as for Hessian-vector products. Memory: 2 (G + S) + 2 times the input; in the C++ kernels 3.25 times it.

    Weights: `base_weight` (I, O), `spline_weight` (I, G + S, O), `spline_scale` (I, O), `bias` (O,). Buffer `knots`
    (I, G + 2S + 1), float64, part of the state, read anew in every call. Knots that are learned follow from the buffer
    `first_knots` and the parameter `knot_logits` (I, G), zero at first. NaN in a row of the input stays in that row.

    Raises:
        ValueError: a size out of range, an unknown name, an empty grid_range, or an input whose last axis is not I.
    """

    GRID = "knots"
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
        learnable_knots: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, grid) < 1 or spline_order < 0:
            raise ValueError(
                f"got in_features {in_features}, out_features {out_features}, grid {grid}, spline_order {spline_order}:"
                " expected each to be at least 1 (spline_order: at least 0)"
            )
        if learnable_knots and spline_order < 1:
            raise ValueError(
                "got learnable_knots with spline_order 0, whose steps give knots no gradient: use 1 or more"
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
        self.knot_logits = parameter(in_features, grid) if learnable_knots else None
        if learnable_knots:
            self.GRID = "first_knots"
        knots = even(in_features, grid, spline_order, self._first_range)
        self._buffers[self.GRID] = knots.to(self.spline_weight.device)  # register_buffer refuses a property's name
        self.reset_parameters()

    @property
    def knots(self) -> Tensor:
        """The knots as they are now, float64; those that are learned are made anew, so write them by `set_knots`."""
        found = self._buffers[self.GRID]
        assert found is not None
        if self.knot_logits is None:
            return found
        return free_knots.positions(found, self._weight("knot_logits"), self.spline_order)

    @knots.setter
    def knots(self, knots: Tensor) -> None:
        self.set_knots(knots)

    @property
    def grid(self) -> int:
        """Number of grid intervals G."""
        return getattr(self, self.GRID).shape[1] - 2 * self.spline_order - 1

    @property
    def grid_range(self) -> tuple[float, float]:
        """Lowest and highest end of the inputs' grids; on "meta", those that the layer was made with."""
        knots = getattr(self, self.GRID)
        if not has_values(knots):
            return self._first_range
        ends = knots[:, self.spline_order : self.spline_order + self.grid + 1]
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
        """Draw all weights anew by the layer's `init`; biases are zero. The grid stays, or is where learning began.

        ``glorot``: Glorot-uniform base weights, coefficients N(0, 0.01 / I), unit scales. ``noise``: as the paper's
        sources, splines through noise of amplitude 0.1 / G at the knots, Kaiming-uniform base weights and scales.
        ``variance``: base branch and splines each give half of unit variance on the grid. ``zero``: splines are zero.
        """
        require_own(self, "base_weight", "spline_weight", "spline_scale", "bias", "knot_logits")
        if self.knot_logits is not None:
            self.knot_logits.zero_()
        spline_init.INITS[self.init](self, generator)
        if self.bias is not None:
            self.bias.zero_()

    @torch.inference_mode(False)
    @torch.no_grad()
    def set_knots(self, knots: Float[Tensor, "inputs knots"]) -> None:
        """Replace the knots, G + 2S + 1 for each input, strictly increasing; the coefficients stay as they are.

        Raises:
            ValueError: another shape, knots not increasing or not finite, or `knot_logits` made from others.
        """
        splines.write_knots(self, knots)

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
        order, learned = self.spline_order, self.knot_logits is not None
        check_shape(knots, weight, order)
        if learned or torch.compiler.is_compiling():  # not looked at, or when the registered operators run
            cells = knots.to(torch.promote_types(dtype or weight.dtype, torch.float32)) if learned else knots
            return SplineSpec(weight.shape[1] - order, order, False, self.outside, self.base_activation), cells
        return read(knots, order, self.outside, self.base_activation, dtype or weight.dtype)

    def _first_grid(self) -> Tensor:
        return even(self.in_features, self.grid, self.spline_order, self._first_range)

    @torch.inference_mode(False)
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        splines.prepare(self, state_dict, prefix)
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
        opaque = self.knot_logits is not None
        return apply(spec, self.backend, x, cells, base, spline, scale, self.keep_basis, opaque)

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
        return splines.refit_onto(self, adaptive_knots(samples, self.grid, self.spline_order, blend), samples)

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
        return splines.refit_onto(self, extended_knots(self.knots, self.spline_order, grid), samples)

    def _rows(self, x: Tensor) -> Tensor:
        """Inputs, leading axes as one."""
        self._check_real(x)
        return x.reshape(-1, self.in_features)

    def _samples(self, x: Tensor, group: ProcessGroup | None) -> Tensor:
        return gathered(self._rows(x.detach()).to(self.knots.device, torch.float64), group)

    def edge_norms(self, x: Float[Tensor, "*batch _"] | None = None) -> Float[Tensor, "inputs outputs"]:
        r"""Size of every edge's function; differentiable, also in x.

        Args:
            x: inputs over which to take the mean of :math:`|\varphi_{io}(x_i)|` (Liu et al. 2024, Equation 2.17), at
                least one; None: mean absolute spline coefficient, scale included, plus \|base weight\|, which on a
                grid no spline exceeds. Memory does not grow with their number; with the gradient: 3 to 9 layers' time.

        Raises:
            ValueError: no inputs, or of another width.
        """
        return edges.bounds(self) if x is None else edges.norms(self, self._rows(x))

    def regularisation(
        self, l1: float = 1.0, entropy: float = 1.0, x: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, ""]:
        """l1 * sum of the edge norms, over x if given, + entropy * their entropy (Liu et al. 2024, section 2.5)."""
        return penalty(self.edge_norms(x), l1, entropy)

    @torch.no_grad()
    def edge_curves(
        self, points: int = 101
    ) -> tuple[Float64[Tensor, "points inputs"], Float64[Tensor, "points inputs outputs"]]:
        """Every edge's function over its grid: x and values there, base branch included."""
        return edges.curves(self, points)

    @classmethod
    def from_efficient_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> SplineKAN:
        """The layer of an efficient-kan layer's state, with its knots, dtype and device.

        Args:
            state_dict: ``base_weight``, ``spline_weight``, ``grid``, and ``spline_scaler`` if there is one.
            options: further arguments of this class, such as `base_activation` (efficient-kan's default: silu).

        Raises:
            ValueError: keys or shapes that are not efficient-kan's, options for weights that the state does not have.
        """
        state, order = efficient_kan.read(state_dict)
        weight = state["spline_weight"]
        own = {"spline_scale": "spline_scale" in state, "device": weight.device, "dtype": weight.dtype}
        return load(cls(weight.shape[0], weight.shape[2], weight.shape[1] - order, order, **{**own, **options}), state)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, grid={self.grid}, spline_order={self.spline_order},"
            f" grid_range={self.grid_range}, spline_scale={self.spline_scale is not None},"
            f" bias={self.bias is not None}, base_activation={self.base_activation}, outside={self.outside},"
            f" backend={self.backend}" + (", learnable_knots=True" if self.knot_logits is not None else "")
        )


def set_backend(module: nn.Module, backend: str) -> None:
    """Have all `SplineKAN` layers of a network computed by ``torch``, ``cpp``, ``triton`` or ``auto``."""
    for layer in module.modules():
        if isinstance(layer, SplineKAN):
            layer.backend = backend
