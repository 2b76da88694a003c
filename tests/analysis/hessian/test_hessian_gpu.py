"""Hessians on a CUDA device: products, eigenvalues, trace and density of the same network on a CPU, in float64."""

import copy

import pytest
import torch
from support.device import DEVICE, GPU, relative
from support.hessians import cross_entropy
from torch import nn

from kansciml import KAN
from kansciml.analysis.hessian import HessianOperator, spectral_density, top_eigenvalues, trace

pytestmark = GPU
KINDS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)),
    "spline": lambda: KAN((4, 5, 3), grid=3, backend="torch"),
    "rswaf": lambda: KAN((4, 5, 3), "rswaf"),
}


@pytest.mark.parametrize("keep_graph", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_measured_is_that_of_a_cpu(kind, keep_graph):
    network = KINDS[kind]()
    x, labels = torch.randn(40, 4), torch.randint(3, (40,))
    found = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        own = copy.deepcopy(network).to(device, dtype)
        batch = x.to(device, dtype), labels.to(device)
        operator = HessianOperator(own, cross_entropy, batch, keep_graph=keep_graph)
        along = torch.linspace(-1, 1, operator.size, dtype=torch.float64).to(device, operator.dtype)
        pairs, density = top_eigenvalues(operator, 2), spectral_density(operator, steps=20, probes=3)
        estimates = trace(operator, matvecs=30).value, density.moment(1).value
        found.append((operator.matvec(along), operator.gradient(), pairs.largest[:2].copy(), estimates))
    for got, truth, close in zip(*found, (1e-4, 1e-4, 1e-4, 1e-2)):  # estimates tell rounding by a small difference
        assert relative(torch.as_tensor(got), torch.as_tensor(truth)) < close
