"""One process per results folder. The operating system drops the lock of a dead process, so none goes stale."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from kansciml._errors import KansciError
from kansciml._files import write_failure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """Context manager that holds ``folder/.lock``, which names the process for whoever is turned away.

    The file stays when the lock is released: removing it would let a third process lock a new file while a second
    one still locks the removed one.

    Raises (on entering):
        KansciError: another process works in the folder, or the lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_failure(self.path, error) from error
        try:
            _lock(file)
        except OSError as error:
            holder = os.read(file, 100).decode(errors="replace").strip()
            os.close(file)
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):  # no locks on this file system
                raise KansciError(
                    f"cannot lock {self.path}: {error.strerror}: choose a results folder on another disk"
                ) from error
            raise KansciError(
                f"{self.path.parent} is in use by another process ({holder or 'unknown'}): wait for it, or end it"
            ) from error
        self._file = file
        os.ftruncate(file, 0)
        os.write(file, f"pid {os.getpid()}\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)  # and with it goes the lock
            self._file = None


def _lock(file: int) -> None:
    """Lock the open file without waiting; OSError if another process holds it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, which others must be able to read
    msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    os.lseek(file, 0, os.SEEK_SET)
