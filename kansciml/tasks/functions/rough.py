"""Functions without the smoothness that splines and networks like: kinks, jumps, high frequencies, and all scales."""

from __future__ import annotations

import numpy as np

from kansciml.tasks.functions.target import Target


def _all_scales(x: np.ndarray) -> np.ndarray:
    return np.asarray(sum(0.5**k * np.cos(3**k * np.pi * x) for k in range(5)))


def _wave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(4 * np.pi * x) * np.cos(2 * np.pi * y))


SQUARE = ((-1.0, 1.0), (-1.0, 1.0))

TARGETS = (
    Target("kink", "rough", "|x + y / 2|", SQUARE, lambda x, y: np.abs(x + y / 2)),
    Target("disc", "rough", "1 where x^2 + y^2 < 1/2, else 0", SQUARE, lambda x, y: 1.0 * (x**2 + y**2 < 0.5)),
    Target("wave", "rough", "sin(4 pi x) cos(2 pi y)", SQUARE, _wave),
    Target("weierstrass", "rough", "sum of 2^-k cos(3^k pi x), k = 0 ... 4", ((-1.0, 1.0),), _all_scales),
)
