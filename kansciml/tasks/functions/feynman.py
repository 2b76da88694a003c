"""Formulas from the Feynman lectures in dimensionless form (Udrescu and Tegmark 2020; Liu et al. 2024, table 2).

Ranges are those of the formulas' data in the KAN paper where it has the same variables, and of the same size elsewhere.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.functions.target import Target

TURN = 2 * np.pi

TARGETS = (
    Target(
        "I.6.20",
        "feynman",
        "exp(-t^2 / 2s^2) / sqrt(2 pi s^2)",
        ((-1, 1), (0.5, 2)),
        lambda t, s: np.exp(-((t / s) ** 2) / 2) / np.sqrt(TURN * s**2),
    ),
    Target(
        "I.6.20b",
        "feynman",
        "exp(-(t - u)^2 / 2s^2) / sqrt(2 pi s^2)",
        ((-1.5, 1.5), (-1.5, 1.5), (0.5, 2)),
        lambda t, u, s: np.exp(-(((t - u) / s) ** 2) / 2) / np.sqrt(TURN * s**2),
    ),
    Target(
        "I.9.18",
        "feynman",
        "a / ((b - 1)^2 + (c - d)^2 + (e - f)^2)",
        ((-1, 1), (-1, -0.5), (-1, -0.5), (0.5, 1), (-1, -0.5), (0.5, 1)),
        lambda a, b, c, d, e, f: a / ((b - 1) ** 2 + (c - d) ** 2 + (e - f) ** 2),
    ),
    Target(
        "I.15.3x",
        "feynman",
        "(1 - a) / sqrt(1 - b^2)",
        ((-1, 1), (-0.9, 0.9)),
        lambda a, b: (1 - a) / np.sqrt(1 - b**2),
    ),
    Target(
        "I.16.6",
        "feynman",
        "(a + b) / (1 + a b)",
        ((-0.8, 0.8), (-0.8, 0.8)),
        lambda a, b: (a + b) / (1 + a * b),
    ),
    Target(
        "I.26.2",
        "feynman",
        "arcsin(n sin t)",
        ((0, 0.99), (0, TURN)),
        lambda n, t: np.arcsin(n * np.sin(t)),
    ),
    Target(
        "I.29.16",
        "feynman",
        "sqrt(1 + a^2 - 2 a cos(t - u))",
        ((-1, 1), (0, TURN), (0, TURN)),
        lambda a, t, u: np.sqrt(1 + a**2 - 2 * a * np.cos(t - u)),
    ),
    Target(
        "I.30.3",
        "feynman",
        "sin^2(n t / 2) / sin^2(t / 2)",
        ((0, 4), (0.4 * np.pi, 1.6 * np.pi)),
        lambda n, t: (np.sin(n * t / 2) / np.sin(t / 2)) ** 2,
    ),
    Target(
        "I.50.26",
        "feynman",
        "cos(a) + b cos^2(a)",
        ((0, TURN), (0, 1)),
        lambda a, b: np.cos(a) + b * np.cos(a) ** 2,
    ),
    Target(
        "II.6.15a",
        "feynman",
        "c sqrt(a^2 + b^2) / 4 pi",
        ((0, 1), (0, 1), (0, 1)),
        lambda a, b, c: c * np.hypot(a, b) / (4 * np.pi),
    ),
    Target(
        "II.35.18",
        "feynman",
        "n / (exp(a) + exp(-a))",
        ((0, 1), (-1, 1)),
        lambda n, a: n / (2 * np.cosh(a)),
    ),
    Target(
        "III.9.52",
        "feynman",
        "a sin^2((b - c) / 2) / ((b - c) / 2)^2",
        ((0, 1), (0, TURN), (0, TURN)),
        lambda a, b, c: a * np.sinc((b - c) / TURN) ** 2,
    ),
)
