"""Measures how much memory tensors take: every storage from its birth to its end, exactly and repeatably.

On a CPU the resident size of a process says little (allocators keep freed pages), so tensors are counted where PyTorch
dispatches the operations that make them. The same count works on fake tensors, which have shapes but no data: a step
that needs 16 GB can be measured on a laptop. On CUDA the allocator's own statistics are taken, which also see what
kernels allocate for themselves.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kansciml._errors import UsageError


@dataclass(frozen=True)
class MemoryUse:
    """Memory of one call, in bytes, above what was there before it.

    Args:
        peak_bytes: most bytes alive at once, of the storages made during the call.
        live_bytes: those still alive when it returned, with what it returned and a graph that hangs on that.
        saved_bytes: storages kept for the backward pass, each once, also if they were there before the call.
        saved_apart_bytes: parameters, and what the caller named, kept for the backward pass; not in `saved_bytes`.
        reserved_bytes: CUDA only: what the allocator held from the device at its peak, in all; else None.
        method: ``"dispatch"`` or ``"cuda"``.
    """

    peak_bytes: int
    live_bytes: int
    saved_bytes: int
    saved_apart_bytes: int
    reserved_bytes: int | None
    method: str


def measure(
    fn: Callable[[], Any],
    *,
    apart: Iterable[Tensor] = (),
    device: torch.device | str | None = None,
    saved: bool = True,
) -> MemoryUse:
    """Memory of ``fn()``.

    Args:
        fn: what to measure: a forward pass that returns its output (which keeps the graph alive), or a whole training
            step. Tensors made in it are counted. Gradients are only made where there are none: set them to None before.
        apart: tensors, such as buffers, that count in ``saved_apart_bytes`` if they are saved. Parameters always do.
        device: a CUDA device measures by its allocator's statistics; otherwise storages are counted at dispatch.
        saved: count what is saved for the backward pass, by hooks (which `torch.func` transforms refuse); else 0.

    Raises:
        UsageError: a CUDA device was asked for and there is none.
    """
    kept = _Saved(apart)
    hooks = kept.hooks() if saved else contextlib.nullcontext()
    if device is not None and torch.device(device).type == "cuda":
        return _measure_cuda(fn, kept, hooks, torch.device(device))
    ledger = _Ledger()
    with hooks, _Births(ledger):
        result = fn()
    live = ledger.live
    del result
    return MemoryUse(ledger.peak, live, kept.bytes, kept.apart_bytes, None, "dispatch")


def saved_for_backward(fn: Callable[[], Any], *, apart: Iterable[Tensor] = ()) -> int:
    """`MemoryUse.saved_bytes` of ``fn()`` alone, which compiled functions allow too."""
    kept = _Saved(apart)
    with kept.hooks():
        result = fn()
    del result
    return kept.bytes


def measure_fake(
    build: Callable[[], Callable[[], Any]], *, buffers: Callable[[], Iterable[Tensor]] = tuple
) -> MemoryUse:
    """Memory of ``build()()`` on fake tensors: no data are allocated, whatever the sizes.

    Args:
        build: makes layers and inputs, all inside it, and returns what to measure.
        buffers: called after `build`: tensors to count apart, as in `measure`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fn = build()
        return measure(fn, apart=buffers())


def training_step(layer: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch inputs"]) -> Callable[[], None]:
    """A function of no arguments: forward through `layer` at `x`, and backward from a cotangent of ones."""

    def step() -> None:
        y = layer(x)
        y.backward(torch.ones_like(y))

    return step


class _Ledger:
    """Bytes of the storages alive, by their identity. A storage leaves when the last tensor that uses it does."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._sizes: dict[int, tuple[int, weakref.ref]] = {}

    def knows(self, storage: torch.UntypedStorage) -> bool:
        return id(storage) in self._sizes

    def add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)
        known = self._sizes.get(key)
        if known is not None:  # an operator such as resize_ changed its size
            self.live += size - known[0]
            self._sizes[key] = (size, known[1])
        else:
            self.live += size
            self._sizes[key] = (size, weakref.ref(storage, lambda _: self._remove(key)))
        self.peak = max(self.peak, self.live)

    def _remove(self, key: int) -> None:
        self.live -= self._sizes.pop(key)[0]


def _storages(tree: Any) -> Iterable[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf.untyped_storage()


class _Births(TorchDispatchMode):
    """Enters every storage into the ledger that an operator returns and that was not among its arguments."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(storage): storage for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if id(storage) not in given or self.ledger.knows(storage):
                self.ledger.add(storage, storage.nbytes())
        return out


class _Saved:
    """Counts what autograd saves, each storage once."""

    def __init__(self, apart: Iterable[Tensor]) -> None:
        self.bytes = self.apart_bytes = 0
        # held, so that their ids stay theirs
        self._apart = {id(storage): storage for storage in _storages(list(apart))}
        self._seen: dict[int, weakref.ref] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        for storage in _storages(tensor):
            key = id(storage)
            if key in self._seen:
                continue
            self._seen[key] = weakref.ref(storage, functools.partial(self._forget, key))
            if isinstance(tensor, torch.nn.Parameter) or key in self._apart or _is_parameter_view(tensor):
                self.apart_bytes += storage.nbytes()
            else:
                self.bytes += storage.nbytes()
        return tensor

    def _forget(self, key: int, _: object) -> None:
        del self._seen[key]

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, lambda tensor: tensor)


def _is_parameter_view(tensor: Tensor) -> bool:
    """Whether it is a view, such as the transpose, of a parameter."""
    return isinstance(getattr(tensor, "_base", None), torch.nn.Parameter)


def _measure_cuda(
    fn: Callable[[], Any], kept: _Saved, hooks: contextlib.AbstractContextManager[Any], device: torch.device
) -> MemoryUse:
    if not torch.cuda.is_available():
        raise UsageError(f"got device {device}: there is no CUDA device here; leave the device out to count tensors")
    gc.collect()  # tensors in a cycle, freed during the call, would be taken off it
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with hooks:
        result = fn()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    live = torch.cuda.memory_allocated(device) - before
    del result
    reserved = torch.cuda.max_memory_reserved(device)
    return MemoryUse(peak, live, kept.bytes, kept.apart_bytes, reserved, "cuda")
