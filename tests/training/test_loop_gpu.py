"""The training loop on a CUDA device: what it computes on a CPU, resumed too, in bfloat16, and the device's memory."""

from dataclasses import replace

import pytest
import torch
from support.device import DEVICE, GPU, NOT_REHEARSED, relative
from torch import nn
from torch.nn import functional as F

from kansciml import KAN
from kansciml.training.loop import LoopConfig, train

pytestmark = GPU
CONFIG = LoopConfig(epochs=2, batch_size=32, learning_rate=0.01, warmup=0.5, log_every=2, checkpoint_steps=3)


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    found = torch.randn(4, 32, 6, generator=generator)
    return [(x, (x.square().sum(1) > 6).long()) for x in found]


def loss(module, batch):
    x, target = batch
    return F.cross_entropy(module(x), target), {"count": len(x)}


def trained(folder, accelerator, precision="32", loss=loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(6), KAN((6, 8, 2), grid=3))
    config = replace(CONFIG, accelerator=accelerator, precision=precision)
    return model, train(model, config, batches=batches, loss=loss, folder=folder)


def weights(model):
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


@pytest.mark.parametrize("precision, close", [("32", 1e-4), ("bf16-mixed", 0.05)])
def test_it_trains_as_on_a_cpu(tmp_path, precision, close):
    expected, told = trained(tmp_path / "cpu", "cpu")
    found, also = trained(tmp_path / "device", DEVICE, precision=precision)
    assert next(found.parameters()).device.type == DEVICE
    assert relative(weights(found), weights(expected)) < close
    assert also.history[-1]["loss"] == pytest.approx(told.history[-1]["loss"], rel=close)


def test_it_goes_on_where_it_stopped(tmp_path):
    steps = []

    def failing(module, batch):
        steps.append(len(steps))
        if len(steps) == 7:
            raise ZeroDivisionError
        return loss(module, batch)

    whole, _ = trained(tmp_path / "whole", DEVICE)
    with pytest.raises(ZeroDivisionError):
        trained(tmp_path / "parts", DEVICE, loss=failing)
    again, _ = trained(tmp_path / "parts", DEVICE, loss=failing)
    assert len(steps) == 7 + 2 and torch.equal(weights(again), weights(whole))  # the checkpoint is of step 6


@NOT_REHEARSED
def test_the_peak_is_the_devices(tmp_path):
    torch.cuda.reset_peak_memory_stats()
    _, told = trained(tmp_path, DEVICE)
    assert 0 < told.peak_memory < 1 << 30
