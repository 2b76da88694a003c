"""What products take is what was said beforehand: three gradients and one micro-batch's graph."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError
from kansciml.analysis.hessian import HessianOperator, available_memory, supervised
from kansciml.analysis.hessian._krylov.basis_store import BLOCK_BYTES
from kansciml.analysis.memory import measure
from kansciml.layers.spline_kan import SplineKAN

cross_entropy = supervised(F.cross_entropy)
WIDTHS = (256, 960, 640, 160)


@pytest.fixture(scope="module")
def large():
    """About a million parameters, 64 samples of 256 numbers."""
    generator = torch.Generator().manual_seed(0)
    layers = [layer for a, b in zip(WIDTHS, WIDTHS[1:]) for layer in (nn.Linear(a, b), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))
    batch = torch.randn(64, WIDTHS[0], generator=generator), torch.randint(10, (64,), generator=generator)
    return net, batch


def peak(operator, *columns):
    vector = torch.ones(operator.size, *columns)
    operator.matvec(vector)
    return measure(lambda: operator.matvec(vector)).peak_bytes


def test_a_product_takes_three_gradients_and_one_micro_batch(large):
    """Accumulator, gradient with its graph, product; the vector is the caller's. The micro-batch's share: a handful of
    activation-sized tensors for each sample and hidden unit."""
    net, batch = large
    size = sum(p.numel() for p in net.parameters())
    assert size > 950_000
    gradient = 4 * size
    for micro in (2, 8):
        operator = HessianOperator(net, cross_entropy, batch, micro_batch=micro, keep_graph=False)
        activations = 4 * micro * sum(WIDTHS)
        assert 2 * gradient < peak(operator) <= 3 * gradient + 12 * activations
    whole = HessianOperator(net, cross_entropy, batch, keep_graph=False)
    assert peak(whole) > 3 * gradient + 12 * activations  # so that micro-batches are what keeps it small


def test_setting_up_takes_no_more_than_a_product(large):
    net, batch = large
    gradient = 4 * sum(p.numel() for p in net.parameters())
    use = measure(lambda: HessianOperator(net, cross_entropy, batch, micro_batch=2, keep_graph=False))
    assert use.peak_bytes <= 3 * gradient + 12 * 4 * 4 * sum(WIDTHS)  # the check takes two micro-batches at once
    assert use.live_bytes < 1e5


def test_the_plan_says_what_products_then_take(large):
    net, batch = large
    for micro in (4, 16):
        operator = HessianOperator(net, cross_entropy, batch, micro_batch=micro, keep_graph=False)
        plan = operator.memory_needed(steps=20)
        # the accumulator is the plan's second vector; the first is the caller's
        assert 0.95 <= peak(operator) / (plan.graph_bytes + plan.gradient_bytes) <= 1
        assert 0 < plan.basis_bytes - 20 * plan.gradient_bytes <= BLOCK_BYTES
        assert plan.gradient_bytes == 4 * operator.size
        assert plan.total_bytes == plan.graph_bytes + 3 * plan.gradient_bytes + plan.basis_bytes
    kept = HessianOperator(net, cross_entropy, batch, micro_batch=16, keep_graph=True)
    plan = kept.memory_needed()
    vector = torch.ones(kept.size)
    use = measure(lambda: kept.matvec(vector))
    assert use.peak_bytes <= plan.kept_graph_bytes + plan.gradient_bytes <= 2 * use.peak_bytes
    assert measure(lambda: kept.matvec(vector)).peak_bytes < use.peak_bytes  # the graphs are there already


def test_columns_share_one_graph_and_add_one_vector_each(large):
    net, batch = large
    operator = HessianOperator(net, cross_entropy, batch, micro_batch=8, keep_graph=False)
    assert peak(operator, 3) <= peak(operator) + 2.5 * 4 * operator.size


def test_graphs_are_kept_where_they_fit_and_the_plan_names_a_remedy():
    net = nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 3))
    batch = torch.randn(1000, 8), torch.randint(3, (1000,))
    roomy = HessianOperator(net, cross_entropy, batch, memory=1 << 30)
    assert roomy.graph_kept and roomy.memory_needed().fits
    text = roomy.memory_needed(steps=50, probes=2, available=1 << 30).text()
    assert "kept" in text and "50 steps x 2 probes" in text and "1.07 GB available" in text
    memory = roomy.memory_needed().kept_graph_bytes - 1
    tight = HessianOperator(net, cross_entropy, batch, memory=memory)
    plan = tight.memory_needed(steps=10, available=memory)
    assert not tight.graph_kept and not plan.fits and 100 < plan.largest_micro_batch < 1000
    assert f"micro_batch={plan.largest_micro_batch} would fit" in plan.text()
    micro = plan.largest_micro_batch
    smaller = HessianOperator(net, cross_entropy, batch, memory=memory, micro_batch=micro, keep_graph=False)
    assert smaller.memory_needed(steps=10, available=memory).fits
    assert "a basis on disk" in tight.memory_needed(steps=10_000, available=memory).text()


def test_splines_are_kept_with_the_graph_where_they_fit_and_change_nothing():
    generator = torch.Generator().manual_seed(0)
    sizes = (6, *[20] * 9, 3)
    net = nn.Sequential(*(SplineKAN(a, b, backend="torch") for a, b in zip(sizes, sizes[1:]))).double()
    batch = torch.randn(400, 6, generator=generator, dtype=torch.float64), torch.randint(3, (400,), generator=generator)
    roomy = HessianOperator(net, cross_entropy, batch, keep_graph=True)
    plan = roomy.memory_needed()
    vector = torch.ones(roomy.size, dtype=torch.float64)
    use = measure(lambda: roomy.matvec(vector))
    assert use.peak_bytes <= plan.kept_graph_bytes + plan.gradient_bytes <= 2 * use.peak_bytes
    bare = HessianOperator(net, cross_entropy, batch, keep_graph=True, memory=plan.kept_graph_bytes - 1)
    assert roomy.basis_kept and bare.graph_kept and not bare.basis_kept
    of_splines = 2 * 400 * (8 + 1) * 9 * 20 * 8  # values and slopes of 8 splines and of the activation
    assert 0.7 * of_splines <= plan.kept_graph_bytes - bare.memory_needed().kept_graph_bytes <= 1.1 * of_splines
    torch.testing.assert_close(roomy.matvec(vector), bare.matvec(vector), rtol=1e-12, atol=1e-12)


def test_available_memory_is_positive_and_less_than_a_petabyte():
    assert 1 << 20 < available_memory(torch.device("cpu")) < 1 << 50


def test_too_little_memory_is_one_line():
    net = nn.Linear(2, 2)

    def loss(module, batch):
        return module(batch.new_empty(1 << 45, 2)).mean()

    with pytest.raises(KansciError, match="micro_batch"):
        HessianOperator(net, loss, torch.ones(2, 2))
