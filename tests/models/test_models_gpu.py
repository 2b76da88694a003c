"""Every family of models on a CUDA device, networks of images and operators: the outputs and gradients of a CPU."""

import copy

import pytest
import torch
from support.device import DEVICE, GPU, relative
from support.models import data, small

from kansciml.layers._kernels._triton import library
from kansciml.layers.spline_kan import set_backend

pytestmark = GPU
MODELS = ("deit-tiny", "mixer-nano", "conv-mixer-128-4", "fno-plain", "fno-wt", "fno-deq")


@pytest.mark.parametrize("variant", ["mlp", "kan-spline", "kan-rswaf", "triton"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_those_of_float64_on_a_cpu(name, variant, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions have it by default
    network = small(name, "kan-spline" if variant == "triton" else variant)
    if variant == "triton":
        if DEVICE == "cpu" or not library.available():
            pytest.skip("needs Triton and a CUDA device")
        set_backend(network, "triton")
    found = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        own = copy.deepcopy(network).to(device, dtype)
        if device == "cpu":
            set_backend(own, "auto")
        torch.manual_seed(1)
        x = data(name).to(device, dtype).requires_grad_()
        y = own(x)
        y.square().mean().backward()
        found.append((y, x.grad, torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])))
    assert max(relative(got, truth) for got, truth in zip(*found)) < 1e-3
