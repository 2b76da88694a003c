"""Errors of PyHessian's algorithms and of ours at the same number of products, against an exact spectrum in float64."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from kansciml.analysis.hessian import HessianOperator, lanczos, spectral_density, trace
from kansciml.benchmarks._hessian import pyhessian_like as rival
from kansciml.benchmarks._hessian.cases import Problem, cross_entropy, make_problem
from kansciml.benchmarks._measuring import Report, silent

SMALL: dict[str, Any] = {
    "image_size": 8, "channels": 1, "patch": 4, "width": 10, "depth": 1, "kan_hidden": (3, 3), "grid": 3, "classes": 10,
}  # fmt: skip
SMALL_IMAGES, SMALL_STEPS = 32, 30
THRESHOLDS = (1e-1, 1e-2, 1e-3)
"""Shares of the largest eigenvalue above which eigenvalues are counted."""
DEFLATE = 5
PRODUCTS = rival.ITERATIONS
SLACK = 1.05
"""Ratio of errors up to which ours count as equal."""
RESOLVED = 1e-5
"""Relative error below which float32 does not tell methods apart."""

THEIRS, SAME, BETTER = "PyHessian's algorithm", "kansciml, same probe and steps", "kansciml, deflated"


class Counting:
    """An operator that counts its products."""

    def __init__(self, operator: HessianOperator) -> None:
        self.operator, self.products = operator, 0
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.fingerprint = operator.fingerprint

    def matvec(self, vector: Tensor) -> Tensor:
        """H v, counted."""
        self.products += 1 if vector.ndim == 1 else vector.shape[1]
        return self.operator.matvec(vector)


def small_problem() -> Problem:
    """A mixer of less than 1500 parameters in float64, whose spectrum can be computed."""
    return make_problem(SMALL_IMAGES, SMALL_STEPS, dtype=torch.float64, **SMALL)


def exact_spectrum(problem: Problem) -> np.ndarray:
    """All eigenvalues, ascending, from the whole Hessian in float64."""
    operator = problem.operator(keep_graph=True)
    columns = [operator.matvec(unit) for unit in torch.eye(operator.size, dtype=torch.float64)]
    matrix = torch.stack(columns)
    return torch.linalg.eigvalsh((matrix + matrix.T) / 2).numpy()


class Density(NamedTuple):
    """An estimated spectrum: nodes and weights (which sum to n), and a count for each of `THRESHOLDS`."""

    nodes: np.ndarray
    weights: np.ndarray
    counts: list[float]


def density_errors(exact: np.ndarray, found: Density) -> dict[str, float]:
    """Relative errors of an estimated spectrum against all eigenvalues, ascending.

    Of the trace; of the extreme eigenvalues, by the largest |eigenvalue|; the Wasserstein-1 distance of the densities,
    by the mean |eigenvalue|; of the counts, by n.
    """
    size, scale = len(exact), float(np.abs(exact).max())
    distance = wasserstein_distance(exact, found.nodes, v_weights=np.maximum(found.weights, 0))
    errors = {
        "trace": abs(found.nodes @ found.weights / exact.sum() - 1),
        "largest eigenvalue": abs(found.nodes.max() - exact[-1]) / scale,
        "smallest eigenvalue": abs(found.nodes.min() - exact[0]) / scale,
        "density (Wasserstein-1)": distance / float(np.abs(exact).mean()),
    }
    for share, count in zip(THRESHOLDS, found.counts):
        errors[f"count above {share:g} of the largest"] = abs(count - int((exact > share * scale).sum())) / size
    return {name: float(error) for name, error in errors.items()}


def by_rival(product: rival.Product, start: rival.Vector, size: int, levels: np.ndarray) -> Density:
    """PyHessian's density of one probe, read as it can be read."""
    nodes, weights = rival.density(product, start, PRODUCTS)
    return Density(nodes, size * weights, [size * float(weights[nodes > level].sum()) for level in levels])


def by_ours(operator: Counting, seed: int, deflate: int, levels: np.ndarray) -> Density:
    """Our density from one probe, with at most `PRODUCTS` products in all."""
    steps = PRODUCTS if not deflate else (PRODUCTS - 2 * deflate) // 2
    found = spectral_density(operator, steps=steps, probes=1, seed=seed, deflate=deflate, basis="memory")
    return Density(
        np.concatenate([found.locked, found.nodes[0]]),
        np.concatenate([np.ones(len(found.locked)), (operator.size - len(found.locked)) * found.weights[0]]),
        [found.count_above(float(level)).value for level in levels],
    )


def compare(seeds: int, report: Report = silent) -> dict[str, Any]:
    """Root mean square errors over `seeds` probes of the densities, and of trace and largest eigenvalue by themselves.

    Both sides have the same float32 model; truth is float64. Trace and largest eigenvalue: PyHessian's own methods end
    by themselves, and ours get as many products as those took.
    """
    truth = small_problem()
    exact = exact_spectrum(truth)
    single = Problem(copy.deepcopy(truth.module), truth.batch).to(torch.float32)
    operator = single.operator(keep_graph=True)
    product = rival.kept(single.module, cross_entropy, single.batch)
    levels = np.array(THRESHOLDS) * float(np.abs(exact).max())
    errors: dict[str, list[dict[str, float]]] = {THEIRS: [], SAME: [], BETTER: []}
    used: dict[str, int] = {THEIRS: PRODUCTS}
    alone: dict[str, list[tuple[float, float, int]]] = {"trace": [], "largest eigenvalue": []}
    for seed in range(seeds):
        report(f"accuracy: probe {seed + 1} of {seeds}")
        signs = signs_of(operator, seed)
        errors[THEIRS].append(density_errors(exact, by_rival(product, signs, operator.size, levels)))
        for name, deflate in ((SAME, 0), (BETTER, DEFLATE)):
            counting = Counting(operator)
            errors[name].append(density_errors(exact, by_ours(counting, seed, deflate, levels)))
            used[name] = max(used.get(name, 0), counting.products)
        for name, row in _alone(operator, product, single, exact, seed).items():
            alone[name].append(row)
    rows = [
        {"quantity": name, **{side: _rms([row[name] for row in found]) for side, found in errors.items()}}
        for name in errors[THEIRS][0]
    ]
    scale = float(np.abs(exact).max())
    return {
        "parameters": len(exact),
        "images": SMALL_IMAGES,
        "probes": seeds,
        "largest": scale,
        "trace": float(exact.sum()),
        "products": used,
        "rows": rows,
        "alone": [
            {
                "quantity": name,
                THEIRS: _rms([row[0] for row in found]),
                "kansciml": _rms([row[1] for row in found]),
                "products": float(np.mean([row[2] for row in found])),
            }
            for name, found in alone.items()
        ],
    }


def signs_of(operator: HessianOperator, seed: int) -> rival.Vector:
    """The probe that `spectral_density` draws first for this seed, by parameter."""
    draws = np.random.default_rng([seed, 0]).integers(0, 2, operator.size, dtype=np.int8)
    flat = torch.from_numpy(draws).to(operator.dtype).mul_(2).sub_(1)
    return list(operator.split(flat).values())


def _alone(
    operator: HessianOperator, product: rival.Product, problem: Problem, exact: np.ndarray, seed: int
) -> dict[str, tuple[float, float, int]]:
    """Relative errors of (theirs, ours) and the products both were given, by quantity."""
    generator = torch.Generator().manual_seed(seed)
    theirs, count = rival.trace(product, problem.parameters, generator)
    count = max(count, 4)
    ours = trace(operator, matvecs=count, seed=seed).value
    found = {"trace": (abs(theirs / exact.sum() - 1), abs(ours / exact.sum() - 1), count)}
    theirs, count = rival.largest_eigenvalue(product, problem.parameters, generator)
    dominant = exact[np.abs(exact).argmax()]
    start = torch.randn(operator.size, generator=generator)
    ritz = lanczos(operator, start, count, basis="memory").ritz()[0]
    ours = ritz[np.abs(ritz).argmax()]
    found["largest eigenvalue"] = (abs(theirs / dominant - 1), abs(ours / dominant - 1), count)
    return found


def _rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def no_worse(theirs: float, ours: float) -> bool:
    """Whether an error is at most `SLACK` times another, or too small for float32 to tell."""
    return ours <= max(SLACK * theirs, RESOLVED)
