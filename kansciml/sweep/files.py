"""Files of a sweep's tasks where machines share no disk: is the results folder the same, and bringing files home."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kansciml._errors import KansciError
from kansciml._files import make_folder, write_bytes
from kansciml.runs.lock import HOLDER, FolderInUse, folder_lock
from kansciml.runs.records import load_record

PATIENCE_S = 120.0
"""How long a task waits for another process in its folder that shows no sign of life."""
_POLL_S = 0.5
_LAST = "record.json"
"""What says that all other files are there, and so is written last."""


def shares(probe: str, token: str) -> bool:
    """Whether the file `probe` that another process wrote is seen here, with `token` in it."""
    try:
        return Path(probe).read_text() == token
    except (OSError, UnicodeDecodeError):
        return False


def scratch_folder(sweep: str) -> Path:
    """This user's folder for a sweep's tasks on a machine that does not see the results; the same one each time.

    A task that is repeated on the same machine resumes there.

    Raises:
        KansciError: somebody else's folder or link has its name.
    """
    owner = os.getuid() if hasattr(os, "getuid") else 0
    root = Path(tempfile.gettempdir()) / f"kansciml-{owner}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700, parents=True)
    state = root.lstat()
    if root.is_symlink() or not root.is_dir() or (hasattr(os, "getuid") and state.st_uid != owner):
        raise KansciError(f"{root} belongs to somebody else: set TMPDIR of the worker to a folder of your own")
    return make_folder(root / sweep)


def discard_scratch(sweep: str) -> None:
    """Remove what `scratch_folder` made for a sweep; none is no error."""
    shutil.rmtree(scratch_folder(sweep), ignore_errors=True)


def packed(folder: Path) -> dict[str, bytes]:
    """Relative path -> contents of the files of a run, its checkpoints among them; locks and half-written files not."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    }


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a run into its folder, each in one step and ``record.json`` last.

    A record that is finished there stays as it is: another process has brought it.

    Raises:
        KansciError: a path outside the folder, another process at work in it, or an unwritable one.
    """
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise KansciError(f"got a file {name!r} from a worker: expected a path inside {folder}")
    make_folder(folder)
    with folder_lock(folder):
        if is_done(folder):
            return
        for name in sorted(files, key=lambda name: name == _LAST):
            write_bytes(folder / name, files[name])


def is_done(folder: Path) -> bool:
    """Whether a finished record lies in `folder`."""
    try:
        return load_record(folder).status == "finished"
    except KansciError:
        return False


def wait_for_folder(folder: Path, patience_s: float = PATIENCE_S) -> None:
    """Return once nobody holds the lock of `folder`, or the run in it is finished.

    The operating system drops the lock of a process that ended on this machine. A file server may keep that of a
    machine that is gone, so the wait ends once no file of the folder has changed for `patience_s` seconds.

    Raises:
        KansciError: then, with what to do.
    """
    make_folder(folder)
    seen, since = _signature(folder), time.monotonic()
    while not is_done(folder):
        try:
            with folder_lock(folder):
                return
        except FolderInUse as error:
            now = _signature(folder)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > patience_s:
                raise KansciError(
                    f"{error}; it has written nothing for {patience_s:.0f} s: if it ran on a machine that is gone, "
                    f"remove {folder / '.lock'} and repeat the command"
                ) from error
        time.sleep(_POLL_S)


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files of a run."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # removed or renamed in this moment
            state = path.stat()
            if path.name not in (".lock", HOLDER):
                found.append((str(path), state.st_size, state.st_mtime_ns))
    return tuple(found)
