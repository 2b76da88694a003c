"""Batch normalisation over the samples of all processes, so that DDP computes what one process would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def synchronised(model: nn.Module, world: int) -> Iterator[None]:
    """Within, the batch normalisations of `model` take their statistics over all of `world` processes.

    torch's SyncBatchNorm does this on a GPU alone; here it works on every device. Each process has to hold equally
    many samples. Mean and variance are averaged one after the other, which loses no digits, and their gradients too.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    changed = [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)] if world > 1 else []
    for norm in changed:
        vars(norm)["forward"] = partial(_forward, norm, world)
    try:
        yield
    finally:
        for norm in changed:
            del vars(norm)["forward"]


def _forward(norm: nn.modules.batchnorm._BatchNorm, world: int, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean = _average(wide.mean(axes), world)
    centred = wide - mean.view(shape)
    variance = _average(centred.square().mean(axes), world)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            count = world * x.numel() // x.shape[1]
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var.dtype), share)
    y = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.to(x.dtype)


class _Average(torch.autograd.Function):
    """Mean over the processes. Every process's loss depends on it, so that its gradient is averaged alike."""

    @staticmethod
    def forward(ctx, value: Tensor, world: int) -> Tensor:
        ctx.world = world
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / world

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _average(gradient, ctx.world), None  # itself differentiable


def _average(value: Tensor, world: int) -> Tensor:
    return _Average.apply(value, world)
