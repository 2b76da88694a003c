"""Measuring under torchrun: all processes load the same model, and an end of one of them is the end of all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from kansciml._errors import KansciError
from kansciml.runs import ranks

T = TypeVar("T")


def together(make: Callable[[], T], identity: Callable[[T], str]) -> T:
    """make(), in all processes: the first one's before the others', who find what it downloaded.

    Args:
        identity: of what was made, the same in all processes.

    Raises:
        KansciError: another process made something else.
    """
    if ranks.size() == 1:
        return make()
    from torch import distributed

    if ranks.rank() > 0:
        ranks.agree(None)
    made = make()
    if ranks.rank() == 0:
        ranks.agree(None)
    found = [""] * ranks.size()
    distributed.all_gather_object(found, identity(made))
    if len(set(found)) > 1:
        raise KansciError("the processes have loaded different models or data: expected the same on all machines")
    return made


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
