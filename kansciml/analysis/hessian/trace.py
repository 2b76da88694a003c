"""Trace of a symmetric operator from few products, with a standard error: XTrace, Hutch++ and Hutchinson."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..._errors import UsageError, unknown_name
from ._probes import Estimate, check_counts, rademacher
from .symmetric import SymmetricOperator, not_finite

FEWEST = {"xtrace": 4, "hutch++": 6, "hutchinson": 1}
METHODS = tuple(FEWEST)


def trace(operator: SymmetricOperator, *, matvecs: int = 100, method: str = "xtrace", seed: int = 0) -> Estimate:
    """Estimate tr A with at most `matvecs` products; exact, with standard error 0, if `matvecs` >= n.

    * ``"xtrace"`` (Epperly, Tropp and Webber 2024, SIAM J. Matrix Anal. Appl. 45(1)): of m / 2 test vectors each in
      turn is left out, A is deflated by its products with the others, and the rest of the trace taken from the one left
      out; the mean of these exchangeable estimates. The standard error is their standard deviation / sqrt(m / 2), as in
      the paper; they are not independent, and it comes out up to a quarter too small where the spectrum decays fast.
      Most accurate for spectra that fall off, never much worse than Hutchinson with half the products.
    * ``"hutch++"`` (Meyer, Musco, Musco and Woodruff 2021): m / 3 products span a range, m / 3 give the trace on it,
      m / 3 Rademacher probes the trace of the rest. Unbiased, and its standard error that of independent probes.
    * ``"hutchinson"``: the mean of z^T A z over m Rademacher probes z. Needs no memory but one vector.

    Computed in float64. Memory: n x 3 matvecs / 2 float64 for XTrace, n x 2 matvecs / 3 for Hutch++.

    Args:
        operator: A, n x n. matvecs: at least 4 (XTrace), 6 (Hutch++) or 1; rounded down to halves or thirds.
        method: ``"xtrace"``, ``"hutch++"`` or ``"hutchinson"``. seed: of the test vectors.

    Returns:
        The estimate; `Estimate.probes` is m / 2, m / 3 or m. NaN as standard error of one Hutchinson probe.

    Raises:
        UsageError: an unknown method, or too few products.
        KansciError: products that are not finite.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    check_counts(seed, matvecs=matvecs)
    if matvecs >= operator.size:
        return Estimate(_exact(operator), 0.0, operator.size)
    if matvecs < FEWEST[method]:
        raise UsageError(f"got {matvecs} products: expected at least {FEWEST[method]} for {method}")
    rng = np.random.default_rng([seed, 2, 0, 0, 0])  # five numbers: apart from the seeds of probes and eigenvalues
    if method == "hutchinson":
        samples = torch.cat([_samples(operator, _signs(rng, operator, 1)) for _ in range(matvecs)])
    elif method == "hutch++":
        samples = _hutch_pp(operator, rng, matvecs // 3)
    else:
        samples = _xtrace(operator, rng, matvecs // 2)
    return Estimate.over(samples.cpu().numpy())


def _exact(operator: SymmetricOperator) -> float:
    total = 0.0
    for index in range(operator.size):
        unit = torch.zeros(operator.size, 1, dtype=torch.float64, device=operator.device)
        unit[index] = 1
        total += float(_products(operator, unit)[index, 0])
    return total


def _products(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    """A V, one column at a time (the operator decides about blocks no better than this about memory), in float64."""
    out = torch.empty_like(vectors)
    for index in range(vectors.shape[1]):
        out[:, index] = operator.matvec(vectors[:, index].to(operator.dtype).contiguous())
    if not torch.isfinite(out).all():
        raise not_finite()
    return out


def _signs(rng: np.random.Generator, operator: SymmetricOperator, count: int) -> Tensor:
    return rademacher(rng, operator, count).to(torch.float64)


def _samples(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    return (vectors * _products(operator, vectors)).sum(0)


def _hutch_pp(operator: SymmetricOperator, rng: np.random.Generator, count: int) -> Tensor:
    basis = torch.linalg.qr(_products(operator, _signs(rng, operator, count)))[0]
    known = _samples(operator, basis).sum()
    rest = _signs(rng, operator, count)
    rest -= basis @ (basis.T @ rest)
    return known + _samples(operator, rest)


def _xtrace(operator: SymmetricOperator, rng: np.random.Generator, count: int) -> Tensor:
    size = operator.size
    tests = torch.from_numpy(rng.standard_normal((count, size)).T.copy()).to(operator.device)
    tests *= math.sqrt(size) / torch.linalg.vector_norm(tests, dim=0)  # uniform on the sphere of radius sqrt n
    basis, r = torch.linalg.qr(_products(operator, tests))
    image = _products(operator, basis)
    core = basis.T @ image
    if float(r.diagonal().abs().min()) <= 1e-13 * float(r.diagonal().abs().max()):
        # The range of A has fewer dimensions than there are test vectors: the basis holds all of it.
        return core.trace().expand(count)
    # Leaving test vector i out of the range takes the direction basis @ s_i out of the basis, with s_i the normalised
    # i-th column of R^-T: it is orthogonal to all columns of R but the i-th.
    leave = torch.linalg.inv(r).T
    leave /= torch.linalg.vector_norm(leave, dim=0)
    along = basis.T @ tests  # all of shape (count, count): column i belongs to test vector i
    image_along = image.T @ tests  # Q^T A Omega
    inside = along - leave * (leave * along).sum(0)  # coordinates of the part of w_i in the reduced basis
    squared = size - inside.square().sum(0)  # |w_i|^2 outside the reduced basis
    quadratic = (
        (tests * (basis @ r)).sum(0) - 2 * (inside * image_along).sum(0) + (inside * (core @ inside)).sum(0)
    )  # the part of w_i outside, with A: w'Aw - 2 w'AQp + p'Q'AQp
    scale = (size - count + 1) / squared  # the part outside is uniform in n - count + 1 dimensions
    return core.trace() - (leave * (core @ leave)).sum(0) + scale * quadratic
