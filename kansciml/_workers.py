"""Worker processes: how many there are, which signals reach them, and that none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from kansciml._errors import UsageError

WORKERS_VARIABLE = "KANSCIML_WORKERS"


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(workers: int | None = None, name: str = "workers") -> int:
    """`workers` (`name` in messages), or the environment variable KANSCIML_WORKERS, or the processors of this process.

    Raises:
        UsageError: not a positive number.
    """
    text = os.environ.get(WORKERS_VARIABLE) if workers is None else str(workers)
    if text is None:
        return processors()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        got = f"{WORKERS_VARIABLE}={text!r}" if workers is None else f"{name} {text}"
        raise UsageError(f"got {got}: expected a positive number of processes")
    return int(text)


@contextlib.contextmanager
def spared_interrupts() -> Iterator[None]:
    """Processes that are started within never see a Ctrl-C, which a terminal sends to all: their parent ends them.

    They inherit the mask and so are spared from their first moment on, not only once they could say that they want to
    be; for this process one that comes meanwhile counts right after.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # where it is started on the way, it lifts the mask again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending(code: int | None) -> str:
    """How a process ended, from its exit code: the name of the signal, or that code; None: it still runs."""
    if code is None or code >= 0:
        return "still running" if code is None else f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # one of the real-time signals
        return f"signal {-code}"


def end_group(process: subprocess.Popen) -> None:
    """End a process that leads a session of its own, with all that it has started, at once; wait for it."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
