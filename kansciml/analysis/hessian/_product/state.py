"""Saves and restores RNG, buffers and modes, and sets PyTorch up to differentiate twice."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class RandomState:
    """States of the random generators: torch's on every device in use, Python's, NumPy's, and those named."""

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self._own = [(generator, generator.get_state()) for generator in generators]
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - a data set's transforms may draw from it

    def restore(self) -> None:
        for generator, state in self._own:
            generator.set_state(state)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002


class BufferState:
    """Buffers of a module: which tensors they are, and what is in them."""

    def __init__(self, module: nn.Module) -> None:
        self._found = [
            (f"{prefix}.{name}" if prefix else name, owner, name, buffer, None if buffer is None else buffer.clone())
            for prefix, owner in module.named_modules()
            for name, buffer in owner._buffers.items()
        ]

    def changed(self) -> list[str]:
        """Names of the buffers that hold something else now."""
        return [name for name, owner, key, _, old in self._found if not _same(owner._buffers.get(key), old)]

    def restore(self) -> None:
        for _, owner, key, buffer, old in self._found:
            owner._buffers[key] = buffer
            if buffer is not None and not _same(buffer, old):
                with torch.no_grad():
                    buffer.copy_(old)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


class Keeper:
    """Keeps a module as it is while its loss is differentiated by some of its parameters.

    What must be looked after is collected once: for a small network, searching the module would take longer than the
    product.
    """

    def __init__(
        self, module: nn.Module, chosen: Sequence[nn.Parameter], generators: Sequence[torch.Generator]
    ) -> None:
        self._module, self._generators = module, generators
        self._parts = list(module.modules())
        self._parameters = list(module.parameters())
        identities = {id(p) for p in chosen}
        self._others = [p for p in self._parameters if id(p) not in identities]
        self._recurrent = any(isinstance(part, nn.RNNBase) for part in self._parts)

    @contextlib.contextmanager
    def preserved(self, buffers: bool) -> Iterator[None]:
        """Gradients on; on the way out, also after an exception, random states, modes, gradients (and buffers) are
        back. Parameters that are not chosen count as constants meanwhile, which keeps them out of the graph.
        """
        states: list[RandomState | BufferState] = [RandomState(self._generators)]
        if buffers:
            states.append(BufferState(self._module))
        modes = [part.training for part in self._parts]
        gradients = [p.grad for p in self._parameters]
        constants = [p for p in self._others if p.requires_grad]
        try:
            for p in constants:
                p.requires_grad_(False)
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            for p in constants:
                p.requires_grad_(True)
            for part, training in zip(self._parts, modes):
                if part.training != training:  # modules look for their attributes slowly
                    part.training = training
            for p, gradient in zip(self._parameters, gradients):
                if p.grad is not gradient:
                    p.grad = gradient
            for state in states:
                state.restore()

    @contextlib.contextmanager
    def twice_differentiable(self) -> Iterator[None]:
        """Attention by its formula, no fused inference paths, no cuDNN recurrent layers, no compiled graphs.

        The fused kernels have no second derivative, or none that is right. Needed in the double backward too, where
        activation checkpointing runs the forward pass again.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
            if self._recurrent:
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            # looked up, not imported: the compiler takes seconds to load
            frames = sys.modules.get("torch._dynamo.eval_frame")
            compiled = frames is not None and any(isinstance(part, frames.OptimizedModule) for part in self._parts)
            if compiled and hasattr(torch.compiler, "set_stance"):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
