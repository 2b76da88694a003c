"""What follows from the values that a constant of a layer has when a kernel runs.

The layer keeps nothing of it, so that nothing can be older than the constant, however that was written. What was found
is remembered beside the values and holds while these are the same. To compare values on a device would wait for it, so
there the version of the tensor tells.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import _disable_current_modes


class Known:
    """What was found out of a tensor, by a key, and the values that it was found from.

    Attributes:
        values: a copy of the tensor.
        compared: the values are compared each time, so that they are surely the present ones.
    """

    def __init__(self, tensor: Tensor) -> None:
        key = id(tensor)
        self.tensor = weakref.ref(tensor, lambda _: _KNOWN.pop(key, None))
        self.compared = tensor.is_cpu and has_values(tensor)
        self.version = None if tensor.is_inference() else tensor._version
        self.values = tensor.detach().clone()
        self.found: dict[Hashable, Any] = {}

    def holds(self, tensor: Tensor) -> bool:
        if self.tensor() is not tensor:
            return False
        if self.compared:
            return torch.equal(tensor, self.values)
        same = tensor.shape == self.values.shape and tensor.device == self.values.device
        return same and not tensor.is_inference() and tensor._version == self.version


_KNOWN: dict[int, Known] = {}
"""By the id of the tensor; an entry goes with it."""


def known(tensor: Tensor, key: Hashable, find: Callable[..., Any], *arguments: Any) -> Known | None:
    """What is known of a tensor as it is now; ``found[key]`` is ``find(values, *arguments)``.

    None where the values must not be looked at: a graph is being recorded of them, gradients shall flow through them,
    or there are several, as under `vmap`.
    """
    entry = _KNOWN.get(id(tensor))
    if entry is None or key not in entry.found or _watched() or tensor.requires_grad or not entry.holds(tensor):
        if not _constant(tensor):
            return None
        with _apart():
            if entry is None or not entry.holds(tensor):
                entry = _KNOWN[id(tensor)] = Known(tensor)
            if key not in entry.found:
                entry.found[key] = find(entry.values, *arguments)
    return entry


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor has any, unlike one on "meta"."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def _watched() -> bool:
    """Whether operations may be recorded, counted, or differentiated forwards."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._is_tracing() or forward_ad._current_level >= 0


def _constant(tensor: Tensor) -> bool:
    """Whether the values may be looked at now."""
    if type(tensor) is not Tensor and not isinstance(tensor, FakeTensor):
        return False
    if tensor.requires_grad or torch._C._is_tracing() or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        return False
    return not torch._C._len_torch_dispatch_stack() or get_proxy_mode() is None


@contextmanager
def _apart() -> Iterator[None]:
    """Within, nothing is recorded, counted or differentiated, and tensors are ordinary ones."""
    with _disable_current_modes(), torch._C._DisableFuncTorch(), torch.inference_mode(False), torch.no_grad():
        yield
