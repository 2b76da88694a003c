"""Measuring under torchrun: all processes load the same model or none goes on, and only the first one speaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kansciml._errors import KansciError
from kansciml.runs import ranks

T = TypeVar("T")


def together(make: Callable[[], T], identity: Callable[[T], str]) -> T:
    """make(), in all processes: if it fails in one, it fails in all. It must not wait for the others in between.

    Args:
        identity: of what was made, the same in all processes.

    Raises:
        KansciError: another process failed (the first says how), or made something else. The others end in silence.
    """
    if ranks.size() == 1:
        return make()
    from torch import distributed

    made: list[T] = []
    failure: Exception | None = None
    told = ("", "")
    with company():
        for first in (True, False):  # whatever the first process has to download is then there for the others
            if (ranks.rank() == 0) is first:
                try:
                    made.append(make())
                    told = ("", identity(made[0]))
                except Exception as error:
                    failure = error
                    told = (str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}", "")
            ranks.agree(None)
        found: list[Any] = [None] * ranks.size()
        distributed.all_gather_object(found, told)
    failed = [f"process {rank} of {ranks.size()}: {line}" for rank, (line, _) in enumerate(found) if line]
    if not failed and len({mark for _, mark in found}) == 1:
        return made[0]
    if ranks.rank() > 0:
        ranks.end(1)
    different = "the processes have loaded different models or data: expected the same on all machines"
    raise failure or KansciError(failed[0] if failed else different)


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Within, the loss of another process is one line of the first process, and silently ends the others."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if ranks.size() == 1 or not any(word in text for word in ("gloo", "nccl", "connection")):
            raise
        if ranks.rank() > 0:
            ranks.end(1)
        raise KansciError("another process of torchrun has ended: see its message; the same command resumes") from error
