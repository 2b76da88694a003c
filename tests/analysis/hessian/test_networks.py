"""Extreme eigenvalues, moments, counts and traces of real networks against their exact Hessians."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.hessians import F64, Mixer, cross_entropy, exact_hessian, squares
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kansciml.analysis.hessian import HessianOperator, MatrixOperator, spectral_density, top_eigenvalues
from kansciml.analysis.hessian import trace as estimate_trace
from kansciml.layers.attention import Attention
from kansciml.layers.spline_kan import SplineKAN

GROUPS, PROBES, STEPS = 10, 20, 50
INSIDE = 0.683
NETS = ("mlp", "kan", "mixer", "attention")


class AttentionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention, self.head = nn.LayerNorm(6), Attention(6, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.head((x + self.attention(self.norm(x))).mean(1))


def build(name):
    """A network, its inputs and targets, and the loss."""
    generator = torch.Generator().manual_seed(NETS.index(name))
    nets = {
        "mlp": lambda: nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)),
        "kan": lambda: nn.Sequential(SplineKAN(3, 5, backend="torch"), SplineKAN(5, 1, backend="torch")),
        "mixer": lambda: Mixer(hidden=8),
        "attention": AttentionBlock,
    }
    net = nets[name]().double()
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=F64)
            parameter.copy_(0.4 * noise + (1.0 if parameter.dim() == 1 else 0.0))
    shape = {"mlp": (64, 4), "kan": (64, 3)}.get(name, (48, 4, 6))
    x = torch.randn(shape, generator=generator, dtype=F64)
    if name in ("mlp", "kan"):
        x = x.clamp(-2, 2) / 2.1
        return net, (x, torch.sin(3 * x[:, :1]) * x[:, 1:2]), squares
    return net, (x, torch.randint(3, (48,), generator=generator)), cross_entropy


@functools.cache
def trained(name):
    """Operator, exact Hessian, and its eigenvalues in ascending order, after some steps of Adam."""
    net, batch, loss = build(name)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(150):
            optimiser.zero_grad(set_to_none=True)
            loss(net, batch).backward()
            optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    hessian = exact_hessian(net, loss, batch)
    return HessianOperator(net, loss, batch), hessian, torch.linalg.eigvalsh(hessian).numpy()


def statistics(spectrum, values):
    """(estimate, truth): moments 1 to 4, counts above a hundredth and a thousandth of the largest eigenvalue."""
    found = [(spectrum.moment(p), np.mean(values**p)) for p in (1, 2, 3, 4)]
    return found + [(spectrum.count_above(t), np.sum(values > t)) for t in (1e-2 * values[-1], 1e-3 * values[-1])]


@pytest.mark.parametrize("name", NETS)
def test_products_and_both_ends_are_exact(name):
    operator, hessian, values = trained(name)
    assert 100 <= operator.size <= 700 and values[-1] > 0
    vectors = torch.randn(operator.size, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    truth = hessian @ vectors
    assert torch.linalg.norm(operator.matvec(vectors) - truth) <= 1e-12 * torch.linalg.norm(truth)
    pairs = top_eigenvalues(operator, 2)
    assert pairs.largest == pytest.approx(values[::-1][:2], rel=1e-8)
    assert pairs.smallest == pytest.approx(values[:2], rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kan", "mixer"])
def test_moments_and_counts_lie_within_their_errors(name):
    """Of 10 times 20 probes. |t| > 3 has a chance of 0.7 %: of 60 numbers 3 or more are beyond in 1 % of cases.

    Within one standard error lie 68 %. The numbers of one group are correlated, so that the 10 groups count, not the
    60 numbers: a standard deviation of 15 %; counts amid a dense bulk may be too careful, but never too sure.
    """
    matrix, values = MatrixOperator(trained(name)[1]), trained(name)[2]
    many = spectral_density(matrix, steps=STEPS, probes=GROUPS * PROBES)
    scores = []
    for first in range(0, GROUPS * PROBES, PROBES):
        rows = slice(first, first + PROBES)
        part = replace(many, alpha=many.alpha[rows], beta=many.beta[rows], lengths=many.lengths[rows])
        found = statistics(part, values)
        # Where all eigenvalues above the threshold are deflated the count is exact, and its error rounding alone
        errors = [np.hypot(one.standard_error, 1e-12 * abs(truth)) for one, truth in found]
        scores.append([(one.value - truth) / error for (one, truth), error in zip(found, errors)])
    sizes = np.abs(scores)
    assert (sizes > 3).sum() <= 2 and sizes.max() < 4.5, sizes.max(0)
    assert (sizes <= 1).mean() > INSIDE - 0.4, (sizes <= 1).mean(0)
    assert (sizes[:, :4] <= 1).mean() < INSIDE + 0.31, (sizes <= 1).mean(0)


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
@pytest.mark.parametrize("name", NETS)
def test_traces_lie_within_four_of_their_errors(name, method):
    matrix, truth = MatrixOperator(trained(name)[1]), trained(name)[2].sum()
    found = estimate_trace(matrix, matvecs=60, method=method)
    assert abs(found.value - truth) <= 4 * found.standard_error + 1e-12 * abs(truth)
    assert found.standard_error < 0.2 * abs(truth)
