r"""Sparsity of a built-in field: L1 and entropy of a KAN's edges, L1 of an MLP's weights. NumPy only.

Liu et al. (2024), section 2.5.1, measure an edge by the mean of :math:`|\phi(x)|` over the samples that reach it. A
field is evaluated at the stages of a solver, which differ from step to step, so here an edge
:math:`\phi(x) = b\,\mathrm{silu}(x) + s \sum_g c_g B_g(x)` is measured by what its parameters alone tell, the bound

.. math:: |\phi|_1 = |b| \langle|\mathrm{silu}|\rangle + |s| \sum_g |c_g| \langle B_g\rangle

of that mean for x spread evenly over the grid (:math:`\langle\cdot\rangle`: mean over the grid range). It is zero
exactly for an edge that is zero.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float64
from scipy.special import expit

from kansciml._errors import UsageError
from kansciml.layers.bspline import uniform_pieces
from kansciml.models.field_spec import FieldSpec

SMALLEST_SHARE = 1e-12
"""Share of an edge below which the entropy's slope no longer grows, as in `kansciml.layers.regularisation`."""


@cache
def _means(grid: int, spline_order: int, grid_range: tuple[float, float]) -> tuple[float, np.ndarray]:
    """Means over the grid range of \\|silu\\|, and of each B-spline, (G + S,)."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    ends = sorted({*grid_range, min(max(0.0, grid_range[0]), grid_range[1])})  # |silu| has a kink at 0
    of_silu = 0.0
    for low, high in zip(ends[:-1], ends[1:]):
        x = (low + high) / 2 + (high - low) / 2 * nodes
        of_silu += (high - low) / 2 * float(weights @ np.abs(x * expit(x)))
    of_cell = uniform_pieces(spline_order) @ (1.0 / np.arange(1, spline_order + 2))
    of_splines = np.zeros(grid + spline_order)
    for cell in range(grid):
        of_splines[cell : cell + spline_order + 1] += of_cell / grid
    return of_silu / (ends[-1] - ends[0]), of_splines


def edge_norms(
    spec: FieldSpec, params: Float64[np.ndarray, " parameters"]
) -> list[Float64[np.ndarray, "inputs outputs"]]:
    r"""Norm :math:`|\phi_{io}|_1` of every edge of a KAN, layer by layer; of an MLP the magnitudes of its weights."""
    layers = spec.unpack(params)
    if spec.model == "mlp":
        return [np.abs(layer["weight"]) for layer in layers]
    of_silu, of_splines = _means(spec.grid, spec.spline_order, spec.grid_range)
    return [
        of_silu * np.abs(layer["base_weight"])
        + np.abs(layer["spline_scale"]) * np.einsum("igo,g->io", np.abs(layer["spline_weight"]), of_splines)
        for layer in layers
    ]


def edge_penalty(
    spec: FieldSpec, params: Float64[np.ndarray, " parameters"], l1: float, entropy: float
) -> tuple[tuple[float, float], Float64[np.ndarray, " parameters"]]:
    r"""l1 times the sum of all edge norms, entropy times the sum of the layers' entropies, and the gradient of both.

    The entropy of a layer is :math:`-\sum_{io} p_{io} \log p_{io}`, :math:`p_{io} = |\phi_{io}|_1 / |\Phi|_1` (Liu et
    al. 2024, Equations 2.18 to 2.20). At a parameter that is zero the gradient of its magnitude is taken as zero.

    Raises:
        UsageError: the entropy of an MLP is asked for.
    """
    if entropy and spec.model == "mlp":
        raise UsageError("entropy is a penalty of the edges of a KAN: leave it at 0 for an MLP, which takes l1")
    values, gradient = np.zeros(2), np.zeros_like(params)
    of_silu, of_splines = _means(spec.grid, spec.spline_order, spec.grid_range)
    for norms, layer, slope in zip(edge_norms(spec, params), spec.unpack(params), spec.unpack(gradient)):
        by_norm = np.full_like(norms, l1)
        total = norms.sum()
        values[0] += l1 * total
        if entropy and total > 0:
            shares = norms / total
            log = np.log(np.maximum(shares, SMALLEST_SHARE))
            values[1] -= entropy * float(np.sum(shares * log))
            by_share = -entropy * (log + (shares > SMALLEST_SHARE))
            by_norm += (by_share - np.sum(by_share * shares)) / total
        if spec.model == "mlp":
            slope["weight"][...] = by_norm * np.sign(layer["weight"])
            continue
        scale, spline = layer["spline_scale"], layer["spline_weight"]
        slope["base_weight"][...] = by_norm * of_silu * np.sign(layer["base_weight"])
        slope["spline_scale"][...] = by_norm * np.sign(scale) * np.einsum("igo,g->io", np.abs(spline), of_splines)
        slope["spline_weight"][...] = (by_norm * np.abs(scale))[:, None] * of_splines[:, None] * np.sign(spline)
    return (float(values[0]), float(values[1])), gradient
