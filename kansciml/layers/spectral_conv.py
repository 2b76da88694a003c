"""Spectral convolution on two-dimensional grids (Li et al. 2021): weights on the lowest Fourier modes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

TRANSFORMS = ("auto", "matmul", "fft")
MATMUL_MODES = 32
"""Most modes per axis that ``auto`` takes by matrix products; above, an FFT needs less time."""


class FourierBasis(NamedTuple):
    """Matrices of the transforms between a grid H x W and its lowest modes, real parts and imaginary parts apart."""

    columns: Tensor  # (W, 2 m2): cos, -sin
    rows: Tensor  # (4 m1, H): cos, sin; rows 0 ... m1 - 1, -m1 ... -1
    rows_back: Tensor  # (H, 4 m1), divided by H
    columns_back: Tensor  # (2 m2, W), divided by W; a column stands for its complex conjugate too


def fourier_basis(
    size: tuple[int, int],
    modes: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> FourierBasis:
    """The transforms that `SpectralConv2d` needs: the same for all its uses on a grid, so that many can share them.

    Args:
        size: points H, W of the grid. modes: m1, m2, as in `SpectralConv2d`.
        dtype, device: of the result, evaluated in float64.

    Raises:
        ValueError: more modes than the grid has, or a dtype that is not a real floating-point one.
    """
    _check_real("dtype", dtype)
    (h, w), (m1, m2) = size, modes
    if 2 * m1 > h or m2 > w // 2 + 1:
        raise ValueError(
            f"got a grid of {h} x {w} points for modes {m1}, {m2}: expected at least {2 * m1} x {max(1, 2 * (m2 - 1))}"
            " points; choose fewer modes, or a finer grid"
        )

    def phases(wavenumbers: Tensor, points: int) -> Tensor:
        # a tensor of the number, since exporters have no remainder of a tensor by a number left open
        turns = wavenumbers[:, None] * torch.arange(points, device=device) % torch.full((), points, device=device)
        return turns.double() * (2 * math.pi / points)

    low = torch.arange(m1, device=device)
    vertical = phases(torch.cat([low, low - m1]), h)  # (2 m1, H)
    k = torch.arange(m2, device=device)
    horizontal = phases(k, w)  # (m2, W)
    cos, sin = horizontal.cos(), horizontal.sin()
    # a real field's other columns are complex conjugates, but for the constant one and that of an even W's last
    share = (2.0 - ((k == 0) | (2 * k == w)).double())[:, None] / w
    rows = torch.cat([vertical.cos(), vertical.sin()])
    found = (torch.cat([cos, -sin]).T, rows, rows.T / h, torch.cat([cos * share, -sin * share]))
    return FourierBasis(*(matrix.to(dtype).contiguous() for matrix in found))


def _check_real(what: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise ValueError(
            f"got {what} {dtype}: expected a real floating-point one; convert integers with .float(), and give the real"
            " and imaginary parts of complex fields as channels"
        )


class SpectralConv2d(nn.Module):
    r"""Convolution by multiplication of the lowest Fourier modes with a matrix each; other modes become zero.

    .. math:: y = \mathcal F^{-1}\Big[\sum_i \hat x_i(k_1, k_2)\, R_{io}(k_1, k_2)\Big],\quad
        k_1 = -m_1, \dots, m_1 - 1,\quad k_2 = 0, \dots, m_2 - 1

    on real fields, of which the modes with negative :math:`k_2` are the complex conjugates. The weights belong to
    modes, not to points: a layer approximates the same operator on every grid that has its modes.

    With few modes the transforms are matrix products: fewer operations where most modes would be thrown away, the same
    speed on any grid, and no complex numbers, for which `torch.compile` makes no code. The modes alone are kept for
    backward. On CUDA, TF32 products round these transforms too.

    Args:
        in_channels, out_channels: I and O, at least 1.
        modes: m1 and m2, at least 1.
        transform: ``matmul``, ``fft``, or ``auto`` (default: ``matmul`` up to 32 modes per axis).
        device, dtype: as in `torch.nn.Linear`. Computed in the wider dtype of input and weights, and in float32 at
            least, also under autocast; the output has the input's dtype.

    Grids: H >= 2 m1 and W >= 2 (m2 - 1) points. `weight` (2, 2 m1, m2, I, O): real and imaginary parts, then k1 = 0 ...
    m1 - 1, -m1 ... -1. Real numbers, since casts of modules spoil complex parameters and safetensors has no complex128.
    The I O imaginary parts at k = 0 have no effect on a real field, and those of k2 = 0 only their difference.

    Raises:
        ValueError: a size below 1, an unknown transform, another shape of input, a grid with too few points, complex
            or integer input or weights, a basis of another grid or of fewer digits.

    Source: Li et al. (2021), Fourier neural operator for parametric partial differential equations, section 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: tuple[int, int],
        transform: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(modes) != 2 or min(in_channels, out_channels, *modes) < 1:
            raise ValueError(
                f"got in_channels {in_channels}, out_channels {out_channels}, modes {tuple(modes)}:"
                " expected each to be at least 1, and two modes"
            )
        if transform not in TRANSFORMS:
            raise ValueError(f"got transform {transform!r}: expected one of {', '.join(TRANSFORMS)}")
        _check_real("weights of", dtype or torch.get_default_dtype())
        self.in_channels, self.out_channels, self.modes = in_channels, out_channels, (modes[0], modes[1])
        self.transform = transform
        shape = (2, 2 * modes[0], modes[1], in_channels, out_channels)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Real and imaginary parts uniform in [0, 1 / (I O)), as in the source's code."""
        self.weight.uniform_(0.0, 1.0 / (self.in_channels * self.out_channels), generator=generator)

    @property
    def uses_matmul(self) -> bool:
        """Whether the transforms are matrix products."""
        return self.transform == "matmul" or (self.transform == "auto" and max(self.modes) <= MATMUL_MODES)

    @property
    def complex_weight(self) -> Complex[Tensor, "inputs outputs rows columns"]:
        """A copy of the weights as complex numbers: the two corners of the source, one above the other."""
        real, imaginary = self.weight.detach().permute(0, 3, 4, 1, 2)
        return torch.complex(real, imaginary)

    @torch.no_grad()
    def set_complex_weight(self, weight: Complex[Tensor, "inputs outputs rows columns"]) -> None:
        """Set the weights from complex ones, laid out as `complex_weight`.

        Raises:
            ValueError: another shape, or real weights.
        """
        if not weight.is_complex():
            raise ValueError(f"got weights of {weight.dtype}: expected complex ones")
        expected = (self.in_channels, self.out_channels, 2 * self.modes[0], self.modes[1])
        if weight.shape != expected:
            raise ValueError(f"got weights of shape {tuple(weight.shape)}: expected {expected}, (I, O, 2 m1, m2)")
        self.weight.copy_(torch.stack([weight.real, weight.imag]).permute(0, 3, 4, 1, 2))

    def forward(
        self, x: Float[Tensor, "batch _ height width"], basis: FourierBasis | None = None
    ) -> Float[Tensor, "batch _ height width"]:
        """Apply it; `basis`: `fourier_basis` of the input's grid (None: made anew)."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"got input of shape {tuple(x.shape)}: expected (B, {self.in_channels}, H, W)")
        _check_real("input of", x.dtype)
        _check_real("weights of", self.weight.dtype)
        dtype = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)
        size = (x.shape[2], x.shape[3])
        if basis is None:
            basis = fourier_basis(size, self.modes, dtype, x.device)
        else:
            basis = self._checked(basis, size, dtype)
        with torch.autocast(x.device.type, enabled=False):
            real, imaginary = _mix(self._analyse(x.to(dtype), basis), self.weight.to(dtype))
            return self._synthesise(real, imaginary, basis, size).to(x.dtype)

    def _checked(self, basis: FourierBasis, size: tuple[int, int], dtype: torch.dtype) -> FourierBasis:
        """A basis of this grid and these modes, in the dtype to compute in."""
        (w, columns), (rows, h) = basis.columns.shape, basis.rows.shape
        m1, m2 = self.modes
        if (h, w) != size or (rows, columns) != (4 * m1, 2 * m2):
            raise ValueError(
                f"got a basis of {h} x {w} points for modes {rows // 4}, {columns // 2}:"
                f" expected {size[0]} x {size[1]} points for modes {m1}, {m2}"
            )
        if torch.promote_types(basis.columns.dtype, dtype) != basis.columns.dtype:
            raise ValueError(f"got a basis of {basis.columns.dtype} to compute in {dtype}: make it in {dtype}")
        return FourierBasis(*(matrix.to(dtype) for matrix in basis))

    def _analyse(self, x: Tensor, basis: FourierBasis) -> Tensor:
        """(B, I, H, W) -> modes (2, m2, B, I, 2 m1)."""
        m1, m2 = self.modes
        if not self.uses_matmul:
            modes = torch.fft.fft(torch.fft.rfft(x)[..., :m2], dim=-2)
            modes = torch.cat([modes[..., :m1, :], modes[..., -m1:, :]], -2)
            return torch.view_as_real(modes).permute(4, 3, 0, 1, 2)
        b, i, h, w = x.shape
        half = torch.mm(basis.columns.T, x.reshape(-1, w).T)  # (2 m2, B I H)
        # (cos - i sin) (real + i imaginary), all four products at once
        products = torch.mm(half.view(-1, h), basis.rows.T).view(2, m2, b, i, 2, 2 * m1)
        real, imaginary = products.unbind(0)
        return torch.stack([real[..., 0, :] + imaginary[..., 1, :], imaginary[..., 0, :] - real[..., 1, :]])

    def _synthesise(self, real: Tensor, imaginary: Tensor, basis: FourierBasis, size: tuple[int, int]) -> Tensor:
        """Modes, two of (m2, B, O, 2 m1) -> (B, O, H, W)."""
        (m1, m2), (h, w) = self.modes, size
        b, o = real.shape[1:3]
        if not self.uses_matmul:
            modes = torch.complex(real, imaginary).permute(1, 2, 3, 0)
            middle = modes.new_zeros(b, o, h - 2 * m1, m2)
            columns = torch.fft.ifft(torch.cat([modes[..., :m1, :], middle, modes[..., m1:, :]], -2), dim=-2)
            return torch.fft.irfft(columns, n=w)
        # (cos + i sin) (real + i imaginary)
        pairs = torch.stack([real, -imaginary, imaginary, real]).view(2, 2, m2, b, o, 2 * m1)
        rows = pairs.permute(0, 2, 3, 4, 1, 5).reshape(-1, 4 * m1)  # (2 m2 B O, 4 m1)
        half = torch.mm(rows, basis.rows_back.T)  # (2 m2 B O, H)
        return torch.mm(half.view(2 * m2, -1).T, basis.columns_back).view(b, o, h, w)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, transform={self.transform}"


def _mix(modes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Complex matrix products mode by mode: (2, K2, B, I, K1) with (2, K1, K2, I, O) -> two of (K2, B, O, K1).

    The modes are the batch of two real products, each of real and imaginary parts together: every weight is read once.
    Their operands have to be contiguous, as a batch of many small matrices is multiplied one by one otherwise.
    """
    _, k2, b, i, k1 = modes.shape
    o = weight.shape[-1]
    rows = modes.permute(4, 1, 0, 2, 3).reshape(k1 * k2, 2 * b, i)
    found = [torch.bmm(rows, part.reshape(k1 * k2, i, o)).view(k1, k2, 2, b, o).unbind(2) for part in weight]
    (real_real, imaginary_real), (real_imaginary, imaginary_imaginary) = found
    real, imaginary = real_real - imaginary_imaginary, real_imaginary + imaginary_real
    return real.permute(1, 2, 3, 0), imaginary.permute(1, 2, 3, 0)
