"""Measured memory: hand-counted cases, the same number each time, and on fake tensors as on real ones."""

import pytest
import torch
from torch import nn

from kansciml import UsageError
from kansciml.analysis.memory import measure, measure_fake, training_step

N = 1000
BYTES = 4 * N


def test_a_chain_holds_two_links_at_once_and_keeps_the_last():
    x = torch.ones(N)

    def chain():
        y = x
        for _ in range(5):
            y = y * 2
        return y

    use = measure(chain)
    assert (use.peak_bytes, use.live_bytes, use.saved_bytes) == (2 * BYTES, BYTES, 0)


def test_what_is_held_counts_and_what_is_dropped_does_not():
    x = torch.ones(N)
    assert measure(lambda: [x * k for k in range(5)]).live_bytes == 5 * BYTES
    dropped = measure(lambda: float((x * 2)[0]))
    assert dropped.peak_bytes >= BYTES and dropped.live_bytes == 0


def test_views_and_in_place_operations_take_nothing():
    x = torch.ones(N)
    assert measure(lambda: x.view(10, -1).t().mul_(1.0)[2:]).peak_bytes == 0
    assert measure(lambda: (x * 2).view(10, -1).t().add_(1)).peak_bytes == BYTES


def test_saved_tensors_count_once_each():
    x = torch.ones(N, requires_grad=True)
    assert measure(lambda: x * x).saved_bytes == BYTES  # both factors are x
    use = measure(lambda: x.exp().exp())  # exp keeps its output
    assert (use.saved_bytes, use.peak_bytes, use.live_bytes) == (2 * BYTES, 2 * BYTES, 2 * BYTES)
    with torch.no_grad():
        assert measure(lambda: x.exp().exp()).saved_bytes == 0


def test_linear_layer_keeps_its_input_and_counts_parameters_apart():
    layer, x = nn.Linear(30, 20), torch.ones(50, 30, requires_grad=True)
    forward = measure(lambda: layer(x))
    assert (forward.saved_bytes, forward.saved_apart_bytes) == (4 * 50 * 30, 4 * 30 * 20)
    assert forward.peak_bytes == forward.live_bytes == 4 * 50 * 20
    step = measure(training_step(layer, x))
    # output and cotangent; gradients of the input, the weight and the bias
    assert step.peak_bytes == 4 * (2 * 50 * 20 + 50 * 30 + 30 * 20 + 20)
    assert step.live_bytes == 4 * (50 * 30 + 30 * 20 + 20)


def test_named_buffers_count_apart():
    x, buffer = torch.ones(N, requires_grad=True), torch.ones(N)
    assert measure(lambda: x * buffer).saved_bytes == BYTES
    use = measure(lambda: x * buffer, apart=[buffer])
    assert (use.saved_bytes, use.saved_apart_bytes) == (0, BYTES)


def build():
    net = nn.Sequential(nn.Linear(40, 60), nn.SiLU(), nn.LayerNorm(60), nn.Linear(60, 10))
    return training_step(net, torch.ones(70, 40, requires_grad=True))


def test_it_is_the_same_each_time_and_on_fake_tensors():
    first = measure(build())
    assert first.peak_bytes > 0
    assert all(measure(build()) == first for _ in range(3))
    assert measure_fake(build) == first


def test_sixteen_gigabytes_are_measured_without_having_them():
    def large():
        x = torch.empty(4_000_000_000, requires_grad=True)
        return lambda: x.exp()

    use = measure_fake(large)
    assert use.peak_bytes == use.saved_bytes == 16_000_000_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_one_line():
    with pytest.raises(UsageError, match="no CUDA device"):
        measure(lambda: None, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_counts_a_chain_as_on_a_cpu():
    n = 1 << 20  # far above the allocator's rounding
    x = torch.ones(n, device="cuda", requires_grad=True)
    use = measure(lambda: x.exp().exp(), device="cuda")
    assert (use.peak_bytes, use.live_bytes, use.saved_bytes) == (8 * n, 8 * n, 8 * n)
    assert use.method == "cuda" and use.reserved_bytes >= use.peak_bytes
