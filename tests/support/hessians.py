"""Matrices of known spectrum, small networks and batches, and exact Hessians by none of the operator's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kansciml.analysis.hessian import MatrixOperator, supervised

F64 = torch.float64
OUTLIERS = (100.0, 40.0, 20.0, 10.0, 5.0, -2.0)
cross_entropy, squares = supervised(F.cross_entropy), supervised(F.mse_loss)


def operator_with(eigenvalues: Any, dtype: torch.dtype = F64) -> MatrixOperator:
    """A dense symmetric matrix with the given eigenvalues and random eigenvectors."""
    values = torch.as_tensor(np.asarray(eigenvalues), dtype=F64)
    shape = len(values), len(values)
    vectors = torch.linalg.qr(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64))[0]
    return MatrixOperator((vectors * values) @ vectors.T, dtype)


def outlying(n: int = 300, scale: float = 0.01) -> np.ndarray:
    """Eigenvalues like those of a trained network: a few outliers, and a bulk close to zero."""
    return np.concatenate([OUTLIERS, scale * np.random.default_rng(0).standard_normal(n - len(OUTLIERS))])


def classes(samples: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Normal inputs (samples, *shape) and labels of three classes."""
    return torch.randn(samples, *(shape or (4,)), dtype=dtype), torch.randint(3, (samples,))


def perceptron(*middle: nn.Module) -> nn.Sequential:
    """4 -> 5 -> 3, with 43 parameters but for those of `middle`."""
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3))


class Mixer(nn.Module):
    """A mixer block: token mixing on the transposed input, channel mixing, layer norms, residuals, mean pooling."""

    def __init__(self, tokens: int = 4, width: int = 6, hidden: int = 5) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.token = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))
        self.channel = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channel(self.norms[1](x))).mean(1))


def exact_hessian(module: nn.Module, loss: Callable[..., Tensor], batch: Any) -> Tensor:
    """H over the real coordinates of the trainable parameters, differentiated as one function of a flat real vector."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sizes = [p.numel() * (2 if p.is_complex() else 1) for _, p in named]

    @sdpa_kernel(SDPBackend.MATH)  # PyTorch's other attention kernels have no second derivative
    def of_flat(theta: Tensor) -> Tensor:
        parts = {}
        for (name, p), part in zip(named, theta.split(sizes)):
            if p.is_complex():
                pairs = part.reshape(*p.shape, 2)
                parts[name] = torch.complex(pairs[..., 0], pairs[..., 1])
            else:
                parts[name] = part.reshape(p.shape)
        return loss(lambda *inputs: functional_call(module, parts, inputs), batch)

    flat = [torch.view_as_real(p.detach()) if p.is_complex() else p.detach() for _, p in named]
    return torch.autograd.functional.hessian(of_flat, torch.cat([part.reshape(-1) for part in flat]))


def relative(got: Tensor, truth: Tensor) -> float:
    """Norm of the difference over that of the truth."""
    return float(torch.linalg.norm(got - truth) / torch.linalg.norm(truth))
