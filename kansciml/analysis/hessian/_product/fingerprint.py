"""Identifies what a Hessian is of in 32 bytes: half-finished work is resumed only with the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.analysis.hessian._product.batches import Batches, leaves


def fingerprint(module: nn.Module, names: Sequence[str], batches: Batches, dtype: torch.dtype) -> bytes:
    """SHA-256 over all parameters and buffers, the modes, the chosen names and the batches, by their bytes."""
    digest = hashlib.sha256(f"{list(names)} {dtype}".encode())
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__name__} {part.training}".encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(_bytes_of(tensor))
    for batch, weight in batches.whole():
        digest.update(f"{type(batch).__name__} {weight}".encode())
        for path, leaf in leaves(batch):
            digest.update(path.encode())
            if isinstance(leaf, Tensor):
                digest.update(_bytes_of(leaf))
            elif isinstance(leaf, np.ndarray) and leaf.dtype.kind != "O":
                digest.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
            else:
                digest.update(repr(leaf).encode())
    return digest.digest()


def _bytes_of(tensor: Tensor) -> bytes:
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return f"{tuple(tensor.shape)} {tensor.dtype}".encode() + flat.view(torch.uint8).numpy().tobytes()
