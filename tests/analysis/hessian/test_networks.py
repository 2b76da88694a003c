"""Products, extreme eigenvalues, moments, counts and traces of real networks against their exact Hessians."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kansciml.analysis.hessian import HessianOperator, MatrixOperator, spectral_density, supervised, top_eigenvalues
from kansciml.analysis.hessian import trace as estimate_trace
from kansciml.layers.attention import Attention
from kansciml.layers.spline_kan import SplineKAN

SEEDS, PROBES, STEPS = 20, 40, 60
INSIDE = 0.683
NETS = ("mlp", "kan", "mixer", "attention")


class MixerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class AttentionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention, self.head = nn.LayerNorm(6), Attention(6, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.head((x + self.attention(self.norm(x))).mean(1))


def build(name):
    """A network, its inputs and targets, and the criterion."""
    generator = torch.Generator().manual_seed(NETS.index(name))
    nets = {
        "mlp": lambda: nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)),
        "kan": lambda: nn.Sequential(SplineKAN(3, 5, backend="torch"), SplineKAN(5, 1, backend="torch")),
        "mixer": MixerBlock,
        "attention": AttentionBlock,
    }
    net = nets[name]().double()
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.4 * noise + (1.0 if parameter.dim() == 1 else 0.0))
    shape = {"mlp": (64, 4), "kan": (64, 3)}.get(name, (48, 4, 6))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name in ("mlp", "kan"):
        x = x.clamp(-2, 2) / 2.1
        return net, x, torch.sin(3 * x[:, :1]) * x[:, 1:2], F.mse_loss
    return net, x, torch.randint(3, (48,), generator=generator), F.cross_entropy


def of_flat(net, x, y, criterion):
    """The loss as a function of one flat vector, by none of the operator's code."""
    names, sizes = [n for n, _ in net.named_parameters()], [p.numel() for p in net.parameters()]
    shapes = [p.shape for p in net.parameters()]

    def loss(theta):
        parts = {n: part.reshape(s) for n, part, s in zip(names, theta.split(sizes), shapes)}
        return criterion(functional_call(net, parts, (x,)), y)

    return loss


@functools.cache
def trained(name):
    """Operator, exact Hessian, and its eigenvalues in ascending order, after some steps of Adam."""
    net, x, y, criterion = build(name)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(150):
            optimiser.zero_grad(set_to_none=True)
            criterion(net(x), y).backward()
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
        hessian = torch.autograd.functional.hessian(of_flat(net, x, y, criterion), theta)
    return HessianOperator(net, supervised(criterion), (x, y)), hessian, torch.linalg.eigvalsh(hessian).numpy()


def statistics(spectrum, values):
    """(estimate, truth): moments 1 to 4, counts above a hundredth and a thousandth of the largest eigenvalue."""
    found = [(spectrum.moment(p), np.mean(values**p)) for p in (1, 2, 3, 4)]
    return found + [(spectrum.count_above(t), np.sum(values > t)) for t in (1e-2 * values[-1], 1e-3 * values[-1])]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NETS)
def test_products_and_both_ends_are_exact(name):
    operator, hessian, values = trained(name)
    assert 100 <= operator.size <= 700 and values[-1] > 0
    vectors = torch.randn(operator.size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = hessian @ vectors
    assert torch.linalg.norm(operator.matvec(vectors) - truth) <= 1e-12 * torch.linalg.norm(truth)
    pairs = top_eigenvalues(operator, 2)
    assert pairs.largest == pytest.approx(values[::-1][:2], rel=1e-8)
    assert pairs.smallest == pytest.approx(values[:2], rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_moments_and_counts_lie_within_their_errors_for_each_of_20_seeds(name):
    """With 40 probes |t| > 3 has a chance of 0.5 %: of 120 numbers 0.6 are expected beyond, and 4 or more in 0.3 %.

    Within one standard error lie 68 %. The numbers of one seed are correlated, so that the 20 seeds count, not the 120
    numbers: a standard deviation of 10 %; counts amid a dense bulk may be too careful, but never too sure.
    """
    matrix, values = MatrixOperator(trained(name)[1]), trained(name)[2]
    scores = []
    for seed in range(SEEDS):
        found = statistics(spectral_density(matrix, steps=STEPS, probes=PROBES, seed=seed), values)
        # Where all eigenvalues above the threshold are deflated the count is exact, and its error rounding alone
        errors = [np.hypot(one.standard_error, 1e-12 * abs(truth)) for one, truth in found]
        scores.append([(one.value - truth) / error for (one, truth), error in zip(found, errors)])
    sizes = np.abs(scores)
    assert (sizes > 3).sum() <= 3 and sizes.max() < 4.5, sizes.max(0)
    assert (sizes <= 1).mean() > INSIDE - 0.3, (sizes <= 1).mean(0)
    assert (sizes[:, :4] <= 1).mean() < INSIDE + 0.3, (sizes <= 1).mean(0)


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
@pytest.mark.parametrize("name", NETS)
def test_traces_lie_within_four_of_their_errors(name, method):
    matrix, truth = MatrixOperator(trained(name)[1]), trained(name)[2].sum()
    found = estimate_trace(matrix, matvecs=60, method=method)
    assert abs(found.value - truth) <= 4 * found.standard_error + 1e-12 * abs(truth)
    assert found.standard_error < 0.2 * abs(truth)
