"""Finds the spectral measure of a Lanczos run's start vector by Gauss and Gauss-Radau quadrature.

The measure mu of a unit vector v, mu(S) = sum over eigenvalues in S of (eigenvector . v)^2, has the Gauss rule whose
nodes are the eigenvalues of T and whose weights are the squared first entries of T's eigenvectors (Golub and Welsch
1969).
"""

from __future__ import annotations

import numpy as np

from .orthogonality import eigen


def gauss(alpha: np.ndarray, beta: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, ascending, and weights, which sum to 1; where `length` < steps, padded by the last node with weight 0."""
    nodes, weights = np.zeros(len(alpha)), np.zeros(len(alpha))
    if length:
        values, vectors = eigen(alpha[:length], beta[: length - 1])
        nodes[:length], nodes[length:] = values, values[-1]
        weights[:length] = vectors[0] ** 2
    return nodes, weights


def mass_bounds(
    alpha: np.ndarray, beta: np.ndarray, length: int, thresholds: np.ndarray, resolution: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sharp bounds on mu((-inf, t]) for each threshold t: (thresholds,), (thresholds,).

    The Chebyshev-Markov-Stieltjes inequalities for the Gauss-Radau rule with a node at t: the mass below t is at least
    the sum of the weights left of t, and at most that with the weight of t, for every measure with these m moments
    (Golub and Meurant 2010, section 6.2, for the rule). Where the Krylov space was exhausted the Gauss rule is the
    measure, and both bounds are equal; nodes within `resolution` (relative to the spectrum) of t then count as t.
    """
    lower, upper = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    if length == 0:
        return lower, upper
    alpha, off, out = alpha[:length], beta[: length - 1], beta[length - 1]
    nodes, weights = gauss(alpha, beta[:length], length)
    scale = np.abs(nodes).max()
    for index, threshold in enumerate(thresholds):
        if out == 0 or not np.isfinite(threshold):
            lower[index] = upper[index] = weights[nodes <= threshold + resolution * scale].sum()
            continue
        last = _last_pivot(alpha - threshold, off, scale)
        if abs(last) <= np.finfo(float).eps * scale:  # t is a Gauss node: the other one of Radau is infinite
            values, shares = nodes, weights
        else:
            values, vectors = eigen(np.append(alpha, threshold + out**2 / last), np.append(off, out))
            shares = vectors[0] ** 2
        at = int(np.abs(values - threshold).argmin())
        lower[index], upper[index] = shares[:at].sum(), shares[: at + 1].sum()
    return lower, upper


def _last_pivot(diagonal: np.ndarray, off: np.ndarray, scale: float) -> float:
    """One over the last diagonal entry of the inverse of a symmetric tridiagonal matrix."""
    tiny = np.finfo(float).eps ** 2 * max(scale, np.finfo(float).tiny)
    pivot = diagonal[0]
    for entry, coupling in zip(diagonal[1:], off):
        pivot = entry - coupling**2 / (pivot if abs(pivot) > tiny else tiny)
    return float(pivot)
