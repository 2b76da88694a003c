"""Sets up Lightning Fabric, gives this process its part of a batch, and seeds random numbers by step."""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import UsageError
from kansciml.training._config import LoopConfig


def make_fabric(config: LoopConfig) -> Any:
    """A launched Fabric: under torchrun on its processes, else on one device of this machine.

    Raises:
        UsageError: a device that this machine does not have.
    """
    from lightning_fabric import Fabric  # slow to import
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from kansciml.training._precision import Mixed

    # Fabric's own plugins: mixed precision rounds inputs to bfloat16, and "64" rounds outputs to float32
    mixed = Mixed() if config.precision == "bf16-mixed" else None
    devices, nodes = 1, 1
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        nodes = int(os.environ.get("WORLD_SIZE", 1)) // devices
    strategy = "ddp" if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator=config.accelerator, strategy=strategy, devices=devices, num_nodes=nodes, plugins=mixed
        )
        if mixed is not None:
            mixed.device_type = fabric.device.type
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"got accelerator {config.accelerator}, {devices} device(s), precision {config.precision}: {reason}"
        ) from error
    if fabric.world_size > 1 and not connected:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Threads of a gloo group that outlive the interpreter abort the process; for NCCL Fabric itself does this."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def move_model(model: nn.Module, fabric: Any, config: LoopConfig) -> None:
    """Put a model on its device, in its precision and memory layout, before the optimiser sees its parameters."""
    if config.precision == "64":
        # not `.to(torch.float64)`, which would drop the imaginary part of complex weights
        wide = {torch.complex64: torch.complex128}
        model._apply(lambda t: t.to(wide.get(t.dtype, torch.float64 if t.is_floating_point() else t.dtype)))
    model.to(fabric.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out


class Batching:
    """Takes a batch of all devices, gives this process's equal part of it on its device.

    Args:
        fabric: names device, rank and number of processes.
        config: `precision` and `channels_last` are applied to floating-point tensors.
    """

    def __init__(self, fabric: Any, config: LoopConfig) -> None:
        self.fabric, self.config = fabric, config

    def __call__(self, batch: Any) -> Any:
        """Raises UsageError where the samples cannot be shared out equally."""
        if self.fabric.world_size > 1:
            batch = _each(batch, self._slice)
        batch = self.fabric.to_device(batch)
        if self.config.precision == "64" or self.config.channels_last:
            batch = _each(batch, self._convert)
        return batch

    def _slice(self, tensor: Tensor) -> Tensor:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        size = tensor.shape[0] if tensor.ndim else 0
        if size == 0 or size % world:
            raise UsageError(
                f"got a batch with a tensor of shape {tuple(tensor.shape)} on {world} processes: expected a number of"
                " samples that they can share equally (choose such a batch size and leave out an odd last batch)"
            )
        return tensor[rank * size // world : (rank + 1) * size // world]

    def _convert(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if self.config.precision == "64":
            tensor = tensor.double()
        if self.config.channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def _each(batch: Any, change: Any) -> Any:
    from lightning_utilities.core.apply_func import apply_to_collection

    return apply_to_collection(batch, Tensor, change)


def seed_step(device: torch.device, *what: object) -> None:
    """Set torch's global generators (CPU and `device`) from what identifies a step; call it inside `fork_rng`."""
    seed = int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "little") >> 1
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def peak_memory(device: torch.device) -> int:
    """Most bytes allocated so far: on a CUDA device by tensors, elsewhere by the process (0 where unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of a GPU, or of the machine."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "out of memory" in text
    )
