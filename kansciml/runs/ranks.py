"""The processes of one `torchrun`: the first leads (record, pictures, words), the others follow into the same training.

A leader that finds its run finished, or fails before it starts, sends the others home; nobody waits for ever. Without
torchrun, or with one process, every function returns at once.
"""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""PyTorch's half hour is less than one process may work alone for; one that ends without a word, torchrun notices."""

_told = False


def rank() -> int:
    """Number of this process among all of this torchrun, from 0."""
    return int(os.environ.get("RANK", 0)) if size() > 1 else 0


def size() -> int:
    """Number of processes of this torchrun; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def join() -> None:
    """Connect this process to the others; the training loop then uses the same connection."""
    import torch
    from torch import distributed

    if size() == 1 or distributed.is_initialized():
        return
    # gloo for what is said here: no GPU is chosen before the training loop chooses it
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    atexit.register(distributed.destroy_process_group)


def agree(value: T) -> T:
    """The leader's `value`, on every process; all of them have to call it."""
    if size() == 1:
        return value
    import torch
    from torch import distributed

    box: list[Any] = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def call() -> None:
    """The leader is about to train: the others, who wait in `called`, come along. Any further time does nothing."""
    _tell(True)


def send_home() -> None:
    """The leader will not train: the others, who wait in `called`, leave. After `call` it does nothing."""
    _tell(False)


def called() -> bool:
    """On a follower: wait for the leader's word; whether there is a training to join."""
    join()
    return agree(False)


def end(code: int) -> NoReturn:
    """End this process, whose work is done and written, without the interpreter's own end.

    There, a thread of gloo's that comes back from its last work asks for an interpreter that is closing, and that
    aborts the process, which torchrun takes for a failure of all.
    """
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell(word: bool) -> None:
    global _told
    if size() > 1 and rank() == 0 and not _told:
        join()
        agree(word)
        _told = True


def device_of(accelerator: str) -> torch.device:
    """The device of this process: under torchrun the GPU of its number. What is not there the loop will refuse."""
    import torch

    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if size() > 1 else 0)
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
