"""Special functions of mathematics and physics (Liu et al. 2024, section 3.2), by SciPy; the ranges are ours."""

from __future__ import annotations

import numpy as np
from scipy import special

from kansciml.tasks.functions.target import Target

TARGETS = (
    Target(
        "ellipkinc",
        "special",
        "incomplete elliptic integral of the first kind F(phi | m)",
        ((0, 1.5), (0, 0.95)),
        special.ellipkinc,
    ),
    Target(
        "ellipeinc",
        "special",
        "incomplete elliptic integral of the second kind E(phi | m)",
        ((0, 6), (0, 1)),
        special.ellipeinc,
    ),
    Target("jv", "special", "Bessel function of the first kind J_v(x)", ((0, 4), (0, 10)), special.jv),
    Target("yv", "special", "Bessel function of the second kind Y_v(x)", ((0, 2), (1, 10)), special.yv),
    Target("kv", "special", "modified Bessel function of the second kind K_v(x)", ((0, 2), (0.5, 4)), special.kv),
    Target(
        "lpmv",
        "special",
        "associated Legendre function P_v^1(x)",
        ((0, 5), (-0.9, 0.9)),
        lambda v, x: special.lpmv(1, v, x),
    ),
    Target(
        "sph_harm",
        "special",
        "real part of the spherical harmonic Y_2^1(t, u)",
        ((0, np.pi), (0, 2 * np.pi)),
        lambda t, u: -np.sqrt(15 / (8 * np.pi)) * np.sin(t) * np.cos(t) * np.cos(u),
    ),
)
