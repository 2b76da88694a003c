"""Convolution with a learnable function on every edge: a KAN layer over patches (Drokin 2024; Pal & Das, note 4)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kansciml.layers._kernels.autograd import autocast_dtype, gradient, graph_is_kept, plain_wanted, watched
from kansciml.layers._kernels.edges import branches, weights
from kansciml.layers._kernels.free_knots import blocks, of_splines
from kansciml.layers._kernels.spline_op import apply
from kansciml.layers.bspline import SplineSpec
from kansciml.layers.spline_kan import SplineKAN

Pair = int | tuple[int, int]
BLOCK = 1 << 16
"""Splines that are evaluated at a time on a CPU, so that the temporaries stay small."""


class KANConv2d(SplineKAN):
    r"""2-D convolution whose weights are learnable univariate functions.

    .. math:: y_o(p) = b_o + \sum_{c,k} \varphi_{cko}(x_c(s p + d k)), \quad
        \varphi(x) = w\,\mathrm{act}(x) + s \sum_m c_m B_m(x)

    The same as `SplineKAN` on unfolded patches whose knots are shared by the taps of a channel. So the splines are
    evaluated once per pixel and not once per tap, and an ordinary grouped convolution over them, and over act(x), does
    the rest. For backward that keeps G + S + 2 numbers per padded pixel and channel. With `backend` ``cpp`` or
    ``triton`` the kernels of `SplineKAN` run over patches, group by group, and k^2 numbers are kept.

    Parameters: C (O / groups) k^2 (2 + G + S) with the defaults: 2 + G + S times those of `torch.nn.Conv2d`.

    Args:
        in_channels, out_channels: C and O, multiples of `groups`.
        kernel_size, stride, padding, dilation: one number, or one for rows and one for columns (1, 0, 1 by default).
            The border is padded with zeros, which the functions see.
        groups: blocks of channels that are connected among themselves alone; C for a depthwise convolution.
        bias: learn one constant per output channel (default: none).
        options: as of `SplineKAN`: grid, spline_order, grid_range, spline_scale, base_activation, outside, init,
            backend (``auto``: PyTorch's convolution), learnable_knots, device, dtype.

    Weights are those of a `SplineKAN` from channels to (O / groups) k^2 taps: `base_weight` (C, T), `spline_weight`
    (C, G + S, T), `spline_scale` (C, T); `bias` (O,). `update_grid`, `extend_grid`, `edge_norms` and `regularisation`
    take images (N, C, H, W), of which every pixel is a sample of its channel.

    Raises:
        ValueError: sizes out of range, channels that groups do not divide, what `SplineKAN` refuses, or an input that
            is no batch of images of C channels, or smaller than the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = False,
        **options: Any,
    ) -> None:
        if groups < 1 or min(in_channels, out_channels) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"got in_channels {in_channels}, out_channels {out_channels}, groups {groups}: expected multiples of"
                " groups, all at least 1"
            )
        kernel = _pair("kernel_size", kernel_size)
        taps = out_channels // groups * kernel[0] * kernel[1]
        # plain numbers, which are read while the layer below is made and draws its weights
        self.in_channels, self.out_channels, self.groups, self.kernel_size = in_channels, out_channels, groups, kernel
        super().__init__(in_channels, taps, **options)
        self.stride, self.dilation = _pair("stride", stride), _pair("dilation", dilation)
        self.padding = _pair("padding", padding, 0)
        if bias:
            self.bias = nn.Parameter(self.spline_weight.new_zeros(out_channels))

    @property
    def fan_in(self) -> int:
        """Edges into an output: C / groups k^2."""
        return self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]

    @property
    def fan_out(self) -> int:
        """Edges out of an input pixel: O / groups k^2."""
        return self.out_features

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        if isinstance(x, fx.Proxy):
            return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})
        weight = self._weight("spline_weight")
        self._check_images(x, weight)
        narrow = autocast_dtype(x)
        if self.backend in ("cpp", "triton"):
            return self._over_patches(x, narrow)
        rows, columns = self.padding
        maps = self._maps(F.pad(x, (columns, columns, rows, rows)) if rows or columns else x)
        filters, bias = self._filters(), self._weight("bias")
        if narrow is not None:
            maps, filters, bias = maps.to(narrow), filters.to(narrow), None if bias is None else bias.to(narrow)
        return F.conv2d(maps, filters, bias, self.stride, 0, self.dilation, self.groups)

    def _over_patches(self, x: Tensor, narrow: torch.dtype | None) -> Tensor:
        """The output by the spline layer's kernels, one group after the other."""
        names = ("base_weight", "spline_weight", "spline_scale")
        weights, bias = [self._weight(name) for name in names], self._weight("bias")
        spec, cells = self._read(weights[1])
        axis, taps = int(spec.uniform), self.kernel_size[0] * self.kernel_size[1]
        cells = cells.to(torch.promote_types(weights[1].dtype, torch.float32)).repeat_interleave(taps, axis)
        patches = F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride).transpose(1, 2)
        n = len(patches)
        rows = patches.flatten(0, 1).tensor_split(self.groups, 1)  # each (N pixels, C / groups k^2)
        parts = [None if w is None else self.by_output(w if narrow is None else w.to(narrow)) for w in weights]
        found = []
        for group, own in enumerate(zip(rows, cells.tensor_split(self.groups, axis))):
            base, spline, scale = (None if w is None else w[group].movedim(-1, 1).flatten(0, 1) for w in parts)
            base, scale = (None if w is None else w.squeeze(1) for w in (base, scale))
            assert spline is not None
            found.append(apply(spec, self.backend, *own, base, spline, scale, self.keep_basis, not spec.uniform))
        y = torch.cat(found, 1)
        y = y if bias is None else y + bias.to(y.dtype)
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        height, width = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sides)
        return y.reshape(n, height, width, self.out_channels).permute(0, 3, 1, 2)

    def _maps(self, x: Tensor) -> Tensor:
        """act(x), if there is a base branch, and the splines at x, of each channel: (N, C (1 + G + S), H, W)."""
        n, c, height, width = x.shape
        spec, cells = self._read(self._weight("spline_weight"))
        flat = x.transpose(0, 1).reshape(c, n * height * width)
        found = _whole(flat, cells, spec) if plain_wanted() else _Maps.apply(flat, cells, spec, self.keep_basis)
        return found.reshape(c * found.shape[1], n, height, width).transpose(0, 1)

    def _filters(self) -> Tensor:
        """The weights as those of the convolution over `_maps`, (O, C / groups (1 + G + S), *kernel)."""
        whole = weights(*map(self._weight, ("base_weight", "spline_weight", "spline_scale")))
        parts = self.by_output(whole).permute(0, 3, 1, 2, 4)  # (groups, O / groups, C / groups, 1 + G + S, k^2)
        return parts.reshape(self.out_channels, -1, *self.kernel_size)

    def by_output(self, weight: Float[Tensor, "inputs *splines taps"]) -> Float[Tensor, "groups _ _ _ _"]:
        """A weight, or what has its shape, as (groups, C / groups, splines or 1, O / groups, k^2)."""
        groups, rows, columns = self.groups, *self.kernel_size
        return weight.reshape(groups, self.in_channels // groups, -1, self.out_channels // groups, rows * columns)

    def _check_images(self, x: Tensor, weight: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"got input of shape {tuple(x.shape)}: expected (N, {self.in_channels}, H, W)")
        reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(self.dilation, self.kernel_size, self.padding)]
        if any(size < least for size, least in zip(x.shape[2:], reach)):
            raise ValueError(f"got images of {x.shape[2]} x {x.shape[3]}: expected at least {reach[0]} x {reach[1]}")
        if autocast_dtype(x) is None and x.dtype != weight.dtype:
            raise ValueError(f"got input of {x.dtype}: expected {weight.dtype}, the dtype of the weights")

    def _rows(self, x: Tensor) -> Tensor:
        self._check_images(x, self._weight("spline_weight"))
        return super()._rows(x.movedim(1, -1))

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        rest = super().extra_repr().split(", ", 2)[2]
        return f"{sizes}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, {rest}"


def _whole(x: Tensor, cells: Tensor, spec: SplineSpec, derivative: int = 0) -> Tensor:
    """act and the splines at x (C, n), or a derivative, (C, 1 + G + S, n), in operations that any recorder follows."""
    return branches(spec, x, cells, derivative)[0]


def _times_derivative(cotangent: Tensor, x: Tensor, cells: Tensor, spec: SplineSpec, derivative: int) -> Tensor:
    """The cotangents (C, 1 + G + S, n) of the maps times their first or second derivative, summed: (C, n)."""
    found = torch.empty_like(x)
    for block in blocks(spec, x, BLOCK):
        found[:, block] = (cotangent[..., block] * _whole(x[:, block], cells, spec, derivative)).sum(1)
    return found


class _Maps(torch.autograd.Function):
    """`_whole` that keeps x alone, block by block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor, spec: SplineSpec, keep: bool) -> Tensor:
        ctx.save_for_backward(x, cells)
        ctx.options = spec, keep
        maps = x.new_empty(len(x), spec.grid + spec.spline_order + (spec.activation is not None), x.shape[1])
        for block in blocks(spec, x, BLOCK):
            maps[..., block] = _whole(x[:, block], cells, spec)
        return maps

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (x, cells), (spec, keep), wanted = ctx.saved_tensors, ctx.options, ctx.needs_input_grad[:2]
        (cotangent,), graph = cotangents, torch.is_grad_enabled()
        if watched(cotangent) or (graph and wanted[1]):
            function = partial(_whole, spec=spec)
            return *gradient(function, wanted, cotangent, [x, cells], graph), None, None
        gx = _Gradient.apply(cotangent, x, cells, spec, keep) if wanted[0] else None
        if not wanted[1]:
            return gx, None, None, None
        total, first = torch.zeros_like(cells), int(spec.activation is not None)
        for block in blocks(spec, x, BLOCK):
            total += of_splines(spec, x[:, block].to(cells.dtype), cells, cotangent[:, first:, block])
        return gx, total, None, None


class _Gradient(torch.autograd.Function):
    """The gradient of `_Maps` in x; its own gradients in closed form, the third derivative through `_whole`."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, x: Tensor, cells: Tensor, spec: SplineSpec, keep: bool) -> Tensor:
        ctx.save_for_backward(cotangent, x, cells)
        ctx.options, ctx.kept = (spec, keep), None
        return _times_derivative(cotangent, x, cells, spec, 1)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:
        (cotangent, x, cells), (spec, keep) = ctx.saved_tensors, ctx.options
        if torch.is_grad_enabled() or watched(*along):
            found = gradient(lambda one, at: _first(at, cells, spec, one), [True, True], along[0], [cotangent, x], True)
            return *found, None, None, None
        shared = ctx.kept
        if shared is None:
            shared = _whole(x, cells, spec, 1), _times_derivative(cotangent, x, cells, spec, 2)
            if keep and graph_is_kept():  # the same for all products to come
                ctx.kept = shared
        return along[0].unsqueeze(1) * shared[0], along[0] * shared[1], None, None, None


def _first(x: Tensor, cells: Tensor, spec: SplineSpec, cotangent: Tensor) -> Tensor:
    found = gradient(lambda at: _whole(at, cells, spec), [True], cotangent, [x], True)[0]
    assert found is not None
    return found


def _pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """Of rows and of columns."""
    found = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) != 2 or min(found) < least:
        raise ValueError(f"got {name} {value}: expected one or two numbers of at least {least}")
    return found[0], found[1]
