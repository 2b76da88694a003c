"""`kansciml hessian` under torchrun: the first process leads, the others measure with it what it offers, one by one.

Only the leader locks, writes and speaks. A failure that all can be told of ends all at once; a process that ends
without a word breaks its connections, and torchrun ends the rest. Without torchrun every function does nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kansciml._errors import KansciError
from kansciml.runs import ranks

T = TypeVar("T")

_busy = False


class Gone(KansciError):
    """This follower has nothing left to do or to say: the leader has failed, or tells of the failure."""


def join() -> None:
    """Connect this process to the others of torchrun."""
    from torch import cuda, distributed

    if ranks.size() == 1 or distributed.is_initialized():
        return
    # gloo for what is said here and for operators on the CPU; nccl for those on GPUs
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo", timeout=ranks.PATIENCE)
    atexit.register(_leave)


def _leave() -> None:
    from torch import distributed

    distributed.destroy_process_group()
    # gloo's threads let go of their last tensors with the interpreter's lock; at its end that would abort the process
    time.sleep(0.2)


def share() -> int:
    """Processes among which this machine's memory is to be divided."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if ranks.size() > 1 else 1


@contextlib.contextmanager
def offered(job: Any) -> Iterator[None]:
    """On the leader: what is done in the block, `jobs` has the others do with `job` at the same time.

    Raises:
        KansciError: another process ended before the block did.
    """
    global _busy
    if ranks.size() > 1:
        _tell(job)
    _busy = True  # and it stays so if the block fails: the others are at its place, not waiting for a word
    with company():
        yield
    _busy = False


def send_home() -> None:
    """On the leader: end `jobs`, unless a job has failed: then the others end by themselves."""
    if ranks.size() > 1 and ranks.rank() == 0 and not _busy:
        with contextlib.suppress(RuntimeError):  # one that is gone needs not be told
            ranks.agree(None)


def jobs() -> Iterator[Any]:
    """On the others: what the leader offers, until it sends them home.

    Raises:
        Gone: the leader ended without a word.
    """
    while True:
        with company():
            job = ranks.agree(None)
        if job is None:
            return
        yield job


def together(make: Callable[[], T], identity: Callable[[T], str]) -> T:
    """make(), in all processes: if it fails in one, it fails in all. It must not wait for the others in between.

    Args:
        identity: of what was made, the same in all processes.

    Raises:
        KansciError: another process failed (the leader says how), or made something else. Gone: so on the others.
    """
    if ranks.size() == 1:
        return make()
    from torch import distributed

    made, failure, mark = None, None, ""
    try:
        made = make()
        mark = identity(made)
    except Exception as error:
        failure = error
    found: list[Any] = [None] * ranks.size()
    with company():
        distributed.all_gather_object(found, (None if failure is None else _line(failure), mark))
    lines = [line for line, _ in found]
    if any(lines):
        if ranks.rank() > 0:
            raise Gone from failure
        first = next(index for index, line in enumerate(lines) if line)
        raise failure or KansciError(f"process {first} of {ranks.size()}: {lines[first]}")
    if len({mark for _, mark in found}) > 1:
        if ranks.rank() > 0:
            raise Gone
        raise KansciError("the processes have loaded different models or data: expected the same on all machines")
    return made


@contextlib.contextmanager
def company() -> Iterator[None]:
    """What is raised where another process has ended becomes one line, on the leader alone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if ranks.size() == 1 or not any(word in text for word in ("gloo", "nccl", "connection")):
            raise
        if ranks.rank() > 0:
            raise Gone from error
        raise KansciError("another process of torchrun has ended: see its message; the same command resumes") from error


def _tell(job: Any) -> None:
    with company():
        ranks.agree(job)


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"
