"""KAN layer of reflectional switch activation functions (RSWAF), the cheaper KAN of Pal & Das (2024), Table 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kansciml.layers._kernels import rswaf
from kansciml.layers._kernels.activations import ACTIVATIONS
from kansciml.layers._kernels.rswaf import RswafSpec, RswafTensors
from kansciml.layers._kernels.tensor_values import has_values
from kansciml.layers._layer import KANLayer, checked_range
from kansciml.layers._states import bumps
from kansciml.layers._states.network import load

UPSTREAM_DENOMINATOR = 0.33
"""h of the RSWAF layers that keep it as a plain number, outside their state (Vision-KAN, early faster-kan)."""
FEWEST_NORMALISED = 3
"""Inputs from which LayerNorm leaves a number: of one it makes a constant, of two the sign of their difference."""


class RSWAFKAN(KANLayer):
    r"""KAN layer whose univariate functions are sums of reflectional switch activation functions.

    .. math:: y_o = b_o + \sum_i w_{io}\,\mathrm{act}(x_i) + \sum_i \sum_{k=1}^{G} c_{iko}\,
        \phi\!\left(\frac{z_i - g_k}{h}\right),\quad
        \phi(u) = 1 - \tanh^2 u = \mathrm{sech}^2 u,\quad z = \mathrm{LayerNorm}(x)

    Gradients are the true ones, to any order (faster-kan's are half of them). The backward pass keeps x alone. The
    basis is evaluated in float32 at least; its relative error stays below 2e-6 in the tails too (5e-6 where a plain
    composite runs, as under `torch.func` and in second derivatives, and the function is below 1e-30).

    Args:
        in_features, out_features: I and O, at least 1.
        grid: number of grid points G (default 8, as in Table 1), at least 1; a single one lies at the lower end.
        grid_range: first and last grid point. Default [-2, 2], as in Vision-KAN, the formulation that the paper
            cites for Table 1: it covers 95 % of normalised inputs. (faster-kan's later default is [-1.2, 0.2], h = 1.)
        denominator: h, the width of the functions, in units of z (default 0.33, as in Vision-KAN).
        layer_norm: normalise the input over its last axis, with a learned scale and shift. None (default): from 3
            inputs on, as of 1 or 2 it leaves nothing (True warns). Without it the grid should cover the inputs' range.
        learn_grid: make the grid points parameters (default: constants, as in Table 1).
        bias: learn one constant per output (default: none, as in Table 1).
        device, dtype: as in `torch.nn.Linear`.
        backend: ``auto`` (default) and ``torch``: PyTorch; ``triton`` (a CUDA device; experimental: tested under
            Triton's interpreter, on no device yet; in float64, and for the gradient of grid points that are learned,
            it leaves the layer to PyTorch, and any with Gaussian functions or a base branch).
        bump: ``switch`` (default) or ``gauss``, exp(-u^2), as in fast-kan.
        base_activation: act of the base branch, as of `SplineKAN` (default: None, no such branch, as in Table 1).

    Weights: `spline_weight` (I, G, O), `grid_points` (G,), a parameter if learned, else a float64 buffer, part of the
    state, `layernorm`, `bias` (O,), `base_weight` (I, O). Parameters: I G O, and 2 I for LayerNorm. NaN in a row of the
    input stays in it.

    Raises:
        ValueError: a size below 1, an unknown name, an empty grid_range, h not positive, an input whose last axis is
            not I, or a state with a LayerNorm for a layer without one.

    Source: Delis (2024), faster-kan; Li (2024), fast-kan; Chen, Gundavarapu & Wu (2024), Vision-KAN; Pal & Das
    (2024), section 4.2, Table 1.
    """

    GRID = "grid_points"
    grid_points: Tensor

    @torch.inference_mode(False)  # made there, a layer could not be trained afterwards
    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: int = 8,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        denominator: float = UPSTREAM_DENOMINATOR,
        layer_norm: bool | None = None,
        learn_grid: bool = False,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
        bump: str = "switch",
        base_activation: str | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, grid) < 1:
            raise ValueError(
                f"got in_features {in_features}, out_features {out_features}, grid {grid}:"
                " expected each to be at least 1"
            )
        self._first_range = checked_range(grid_range)
        if not (math.isfinite(denominator) and denominator > 0):
            raise ValueError(f"got denominator {denominator}: expected a positive number, the width of the functions")
        for kind, got, valid in (
            ("backend", backend, rswaf.BACKENDS),
            ("bump", bump, rswaf.BUMPS),
            ("base_activation", base_activation, (None, *ACTIVATIONS)),
        ):
            if got not in valid:
                raise ValueError(f"got {kind} {got!r}: expected one of {', '.join(map(str, valid))}")
        self.backend, self.bump, self.base_activation = backend, bump, base_activation
        if layer_norm is None:
            layer_norm = in_features >= FEWEST_NORMALISED
        elif layer_norm and in_features < FEWEST_NORMALISED:
            left = "a constant" if in_features == 1 else "the sign of their difference"
            warnings.warn(
                f"LayerNorm over {in_features} input{'s' * (in_features > 1)} leaves {left} alone:"
                " leave layer_norm out, or set it to False",
                stacklevel=2,
            )
        self.in_features, self.out_features, self.denominator = in_features, out_features, float(denominator)
        self.layernorm = nn.LayerNorm(in_features, device=device, dtype=dtype) if layer_norm else None
        self.spline_weight = nn.Parameter(torch.empty(in_features, grid, out_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        edges = (in_features, out_features)
        base = None if base_activation is None else nn.Parameter(torch.empty(edges, device=device, dtype=dtype))
        self.base_weight = base
        points = self._first_grid()
        if learn_grid:
            self.grid_points = nn.Parameter(points.to(self.spline_weight))
        else:
            self.register_buffer("grid_points", points.to(self.spline_weight.device))
        self.reset_parameters()

    def _first_grid(self) -> Tensor:
        return torch.linspace(*self._first_range, self.grid, dtype=torch.float64, device="cpu")

    @property
    def grid(self) -> int:
        """Number of grid points G."""
        return self.spline_weight.shape[1]

    @property
    def _shared(self) -> bool:
        """Whether one exponential per input can serve all grid points, as they are now (in a traced graph, then)."""
        points = self.grid_points
        if isinstance(points, nn.Parameter):
            return False
        if torch.compiler.is_compiling():
            return True
        if not has_values(points):
            low, high = self._first_range
            return self.grid == 1 or (high - low) / self.denominator <= rswaf.MAX_EXPONENT
        return rswaf.is_narrow(points, self.denominator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Glorot-uniform weights, those of the functions over I G inputs, as upstream; LayerNorm and bias neutral.

        Grid points that are learned lie as they did at first.
        """
        bound = math.sqrt(6.0 / (self.in_features * self.grid + self.out_features))
        self.spline_weight.uniform_(-bound, bound, generator=generator)
        if self.layernorm is not None:
            self.layernorm.reset_parameters()
        if self.bias is not None:
            self.bias.zero_()
        if self.base_weight is not None:
            bound = math.sqrt(6.0 / (self.in_features + self.out_features))
            self.base_weight.uniform_(-bound, bound, generator=generator)
        if isinstance(self.grid_points, nn.Parameter):
            self.grid_points.copy_(self._first_grid())

    @classmethod
    def from_fasterkan(
        cls,
        state: Mapping[str, Tensor],
        prefix: str = "",
        denominator: float | None = None,
        learn_grid: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> RSWAFKAN:
        """A layer with the weights of a faster-kan or Vision-KAN `FasterKANLayer`; equal outputs.

        Args:
            state: its state dict: `rbf.grid` (G,), `spline_linear.weight` (O, I G), and perhaps `layernorm.weight`,
                `layernorm.bias` (I,), `spline_linear.bias` (O,), `rbf.inv_denominator`.
            prefix: of the layer's keys, such as ``layers.0.`` in a whole network.
            denominator: h. Default: 1 where the state has `rbf.inv_denominator`, as that version computes
                tanh(z - g) whatever its value; else 0.33, upstream's default, which the state does not tell.
            learn_grid, device, dtype: of the layer; default: as `state` has them.

        Raises:
            ValueError: a missing or unknown key, shapes that do not fit, or a fast-kan layer.
        """
        part = bumps.part(state, prefix)
        if any(key.startswith("base_linear.") for key in part):
            raise ValueError(
                "got a state with base_linear, a fast-kan layer (Gaussian functions, another basis): expected an RSWAF"
                " layer of faster-kan or Vision-KAN; from_fast_kan reads the other"
            )
        if denominator is None:
            denominator = 1.0 if "rbf.inv_denominator" in part else UPSTREAM_DENOMINATOR
        loaded = bumps.read(state, prefix, bumps.FASTER_KAN, "faster-kan")
        return cls._of(loaded, denominator, learn_grid=learn_grid, device=device, dtype=dtype)

    @classmethod
    def from_fast_kan(
        cls,
        state: Mapping[str, Tensor],
        prefix: str = "",
        denominator: float | None = None,
        base_activation: str = "silu",
        learn_grid: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> RSWAFKAN:
        """A layer, of Gaussian functions, with the weights of a fast-kan `FastKANLayer`; equal outputs.

        Args:
            state: its state dict: `rbf.grid` (G,), `spline_linear.weight` (O, I G), and perhaps `layernorm.weight`,
                `layernorm.bias` (I,), `base_linear.weight` (O, I), `base_linear.bias` (O,).
            prefix, learn_grid, device, dtype: as of `from_fasterkan`.
            denominator: h, which the state does not tell. Default: fast-kan's, the distance of two grid points.
            base_activation: act, which the state does not tell either (default: fast-kan's).

        Raises:
            ValueError: a missing or unknown key, shapes that do not fit, or one grid point and no denominator.
        """
        loaded = bumps.read(state, prefix, bumps.FAST_KAN, "fast-kan")
        points = loaded["grid_points"].double()
        if denominator is None and len(points) < 2:
            raise ValueError("got one grid point, which has no distance to a next one: expected a denominator")
        h = float(points[-1] - points[0]) / (len(points) - 1) if denominator is None else denominator
        act = base_activation if "base_weight" in loaded else None
        return cls._of(loaded, h, bump="gauss", base_activation=act, learn_grid=learn_grid, device=device, dtype=dtype)

    @classmethod
    def _of(
        cls,
        loaded: Mapping[str, Tensor],
        denominator: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        **options: Any,
    ) -> RSWAFKAN:
        """The layer of tensors under this package's names."""
        weight = loaded["spline_weight"]
        n_in, size, n_out = weight.shape
        layer = cls(
            n_in, n_out, size, denominator=denominator, layer_norm="layernorm.weight" in loaded, bias="bias" in loaded,
            device=device or weight.device, dtype=dtype or weight.dtype, **options,
        )  # fmt: skip
        return load(layer, loaded)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.layernorm is None and prefix + "layernorm.weight" in state_dict:
            raise ValueError(
                f"got a state with {prefix}layernorm.weight for an RSWAF layer of {self.in_features} inputs without"
                " LayerNorm: expected a layer made with layer_norm=True"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _run(self, x: Tensor, narrow: torch.dtype | None) -> Tensor:
        weight, base = self._weight("spline_weight"), self._weight("base_weight")
        if narrow is not None:
            weight, base = weight.to(narrow), None if base is None else base.to(narrow)
        norm = self.layernorm
        scale, shift, eps = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
        shared = self.bump == "switch" and self._shared
        spec = RswafSpec(self.denominator, eps, shared, self.backend, self.bump, self.base_activation)
        return rswaf.apply(spec, RswafTensors(x, scale, shift, self.grid_points, weight, base))

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, grid={self.grid}, denominator={self.denominator}, "
            f"layer_norm={self.layernorm is not None}, learn_grid={isinstance(self.grid_points, nn.Parameter)}, "
            f"bias={self.bias is not None}, bump={self.bump}, base_activation={self.base_activation}"
        )
