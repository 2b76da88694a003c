"""PyHessian's algorithms (Yao et al. 2020, arXiv:1912.07145), written anew: the same steps in the same order.

Compared line by line with its source of July 2025 (commit de8cf23): vectors are lists of tensors in the parameters'
dtype, one per parameter, and every sum and product goes over them one by one. Data are given in one of two ways:

* a loader (`recomputed`): every product computes the loss and its gradient with a graph again, batch by batch;
* a single batch (`kept`): the gradient's graph is made once.

The density is stochastic Lanczos quadrature from random signs, by default 1 probe and 100 iterations: every new vector
is made orthogonal to all before it once, one after another (modified Gram-Schmidt), and divided by its norm + 1e-6; the
off-diagonal of T is the norm before that; T is a float32 matrix, and decomposed as a general one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Vector = list[Tensor]
Product = Callable[[Vector], Sequence[Tensor]]
Loss = Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]

ITERATIONS, TOLERANCE = 100, 1e-3
"""Defaults: iterations of each algorithm, and the relative change at which trace and power iteration stop."""


def recomputed(module: nn.Module, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]]) -> Product:
    """v -> H v as with a loader: loss, gradient with its graph and product of each batch, again for each v."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def product(vector: Vector) -> Sequence[Tensor]:
        total, samples = [torch.zeros_like(p) for p in parameters], 0
        for batch in batches:
            size = len(batch[0])
            gradients = _gradients(module, loss, batch, parameters)
            parts = torch.autograd.grad(gradients, parameters, vector)
            total = [so_far + part * float(size) + 0.0 for so_far, part in zip(total, parts)]
            samples += size
        total = [part / float(samples) for part in total]
        _dot(total, vector).item()  # the Rayleigh quotient, which comes with each of its products
        return total

    return product


def kept(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]) -> Product:
    """v -> H v as with a single batch, whose gradient keeps its graph."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = _gradients(module, loss, batch, parameters)
    return lambda vector: torch.autograd.grad(gradients, parameters, vector, retain_graph=True)


def _gradients(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], parameters: Sequence[Tensor]) -> Vector:
    """Through `backward` and a copy of each gradient, as there; the cycle of that is broken at once."""
    module.zero_grad()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
        loss(module, batch).backward(create_graph=True)
    copies = [p.grad + 0.0 for p in parameters if p.grad is not None]
    module.zero_grad()
    return copies


def density(
    product: Product, start: Vector, iterations: int = ITERATIONS, fresh: torch.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of one probe, each (iterations,).

    Args:
        product: H v. start: random signs. fresh: draws a new vector where the recurrence breaks down.
    """
    vector = _normalised(start)
    basis: list[Vector] = [vector]
    w: Vector = []
    matrix = torch.zeros(iterations, iterations)
    beta = torch.zeros(())
    for step in range(iterations):
        if step:
            beta = torch.sqrt(_dot(w, w))
            matrix[step, step - 1] = matrix[step - 1, step] = beta.item()
            if beta.item() == 0:
                w = [torch.randn(p.shape, generator=fresh, dtype=p.dtype) for p in start]
            vector = orthonormal(w, basis)
            basis.append(vector)
        for part in start:  # made in every iteration there too, and not used
            torch.zeros_like(part)
        image = product(vector)
        alpha = _dot(image, vector)
        matrix[step, step] = alpha.item()
        w = _add(image, vector, -alpha)
        if step:
            w = _add(w, basis[-2], -beta)
    values, vectors = torch.linalg.eig(matrix)
    weights = vectors[0] ** 2
    return values.real.double().numpy(), weights.real.double().numpy()


def trace(
    product: Product, shapes: Sequence[Tensor], generator: torch.Generator, iterations: int = ITERATIONS
) -> tuple[float, int]:
    """Hutchinson's mean, ended when one more sample changes it by less than 0.1 %; and how many products it took."""
    samples: list[float] = []
    before = 0.0
    for _ in range(iterations):
        signs = random_signs(shapes, generator)
        samples.append(_dot(product(signs), signs).item())
        now = float(np.mean(samples))
        if abs(now - before) / (abs(before) + 1e-6) < TOLERANCE:
            break
        before = now
    return float(np.mean(samples)), len(samples)


def largest_eigenvalue(
    product: Product, shapes: Sequence[Tensor], generator: torch.Generator, iterations: int = ITERATIONS
) -> tuple[float, int]:
    """The eigenvalue of largest size by power iteration, ended at a change of 0.1 %; and how many products it took."""
    vector = _normalised([torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in shapes])
    before = None
    count = 0
    while count < iterations:
        image = product(vector)
        count += 1
        value = _dot(image, vector).item()
        vector = _normalised(list(image))
        if before is not None and abs(before - value) / (abs(before) + 1e-6) < TOLERANCE:
            break
        before = value
    return value, count


def random_signs(shapes: Sequence[Tensor], generator: torch.Generator) -> Vector:
    """Independent signs, of the shapes and dtypes given."""
    draws = [torch.randint(0, 2, p.shape, generator=generator).to(p.dtype) for p in shapes]
    return [draw.mul_(2).sub_(1) for draw in draws]


def orthonormal(w: Vector, basis: Sequence[Vector]) -> Vector:
    """`w` less its parts along each vector of `basis` in turn, once, and divided by its norm + 1e-6."""
    for vector in basis:
        w = _add(w, vector, -_dot(w, vector))
    return _normalised(w)


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.add, [torch.sum(a * b) for a, b in zip(first, second)])


def _add(first: Sequence[Tensor], second: Sequence[Tensor], factor: Tensor) -> Vector:
    for a, b in zip(first, second):
        a.add_(b * factor)  # in place, as there
    return list(first)


def _normalised(vector: Vector) -> Vector:
    norm = torch.sqrt(_dot(vector, vector)).item()
    return [part / (norm + 1e-6) for part in vector]
