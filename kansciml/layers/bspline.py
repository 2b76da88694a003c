"""Uniform B-splines in closed form, for any order. NumPy only.

On a uniform grid every cell sees the same S + 1 polynomials in the local coordinate r in [0, 1), so a basis is one
small matrix and not a recursion: cell e holds the B-splines e - S ... e, and spline e - S + q equals
``sum_p PIECES[q, p] r**p`` there.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

OUTSIDE = ("zero", "clamp", "linear")
"""What the splines do outside the grid: fade to zero over S knots, keep their value at its end, or go on straight."""


class SplineSpec(NamedTuple):
    """What a kernel must know of a spline layer beside its tensors."""

    grid: int
    spline_order: int
    uniform: bool
    outside: str
    activation: str | None


@cache
def _cardinal_pieces(order: int) -> tuple[tuple[Fraction, ...], ...]:
    """Polynomials in r of the cardinal B-spline N_S on [q, q + 1), q = 0 ... S, lowest power first, exactly."""
    if order == 0:
        return ((Fraction(1),),)
    lower = _cardinal_pieces(order - 1)
    zero = (Fraction(0),) * order
    pieces = []
    for q in range(order + 1):
        left = lower[q] if q < order else zero
        right = lower[q - 1] if q > 0 else zero
        # N_S(x) = (x N_{S-1}(x) + (S + 1 - x) N_{S-1}(x - 1)) / S with x = q + r
        piece = [Fraction(0)] * (order + 1)
        for p in range(order):
            piece[p] += (q * left[p] + (order + 1 - q) * right[p]) / order
            piece[p + 1] += (left[p] - right[p]) / order
        pieces.append(tuple(piece))
    return tuple(pieces)


def uniform_pieces(spline_order: int) -> np.ndarray:
    """Matrix (S + 1, S + 1): row q holds the coefficients in r of the q-th non-zero B-spline of a cell."""
    pieces = _cardinal_pieces(spline_order)[::-1]  # the first non-zero spline of a cell is in its last piece
    return np.array([[float(c) for c in piece] for piece in pieces])


def uniform_knots(grid: int, spline_order: int, grid_range: tuple[float, float]) -> np.ndarray:
    """Knots (G + 2S + 1,): `grid` intervals over `grid_range`, extended by S intervals on both sides."""
    low, high = grid_range
    return low + (high - low) / grid * np.arange(-spline_order, grid + spline_order + 1)
