"""One process per results folder. The operating system drops the lock of a dead process, so none goes stale."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kansciml._errors import KansciError
from kansciml._files import write_failure, write_text

HOLDER = ".holder"
"""File that names the process at work, for whoever is turned away."""


class FolderInUse(KansciError):
    """Another process works in the folder. Exit code 1."""


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock`` within; the file stays when the lock is released or its process killed.

    Raises:
        FolderInUse: another process works in the folder.
        KansciError: the lock file cannot be written.
    """
    holder = folder / HOLDER
    try:
        holding = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        name = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "unknown"
        raise FolderInUse(f"{folder} is in use by another process ({name}): wait for it, or end it") from error
    except OSError as error:
        raise write_failure(folder / ".lock", error) from error
    with holding:
        write_text(holder, f"pid {os.getpid()}\n")
        yield
