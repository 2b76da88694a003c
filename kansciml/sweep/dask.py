"""Tasks of a sweep on the workers of a Dask scheduler: many machines, with or without a disk that all of them see.

Dask itself hands a task whose worker died to another worker, up to its setting ``allowed-failures``; only then does
that count as one failed attempt here. A task that is started a second time finds what the first one left: a finished
record, or checkpoints.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError
from kansciml.sweep import files
from kansciml.sweep.process import execute, running_tasks

CONNECT_S = 15.0
"""How long the scheduler may take to answer."""
END_S = 20.0
"""How long tasks may take to save their state after Ctrl-C."""
_ASK_EVERY_S = 1.0
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://")


def check_address(address: str) -> None:
    """Refuse what is no address of a scheduler, before anything is written.

    Raises:
        UsageError: then.
    """
    if not address.startswith(_SCHEMES):
        raise UsageError(f"got --scheduler {address!r}: expected local, or an address such as tcp://host:8786")


class DaskPool:
    """A client of the scheduler at `address`.

    Raises:
        KansciError: Dask is not installed, or the scheduler does not answer.
    """

    slots = None

    def __init__(self, address: str, sweep: str, log: Callable[[str], None], timeout_s: float = CONNECT_S) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise KansciError(f"--scheduler {address} needs Dask: pip install 'kansciml[sweep]'") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in one line each, below
        try:
            self._client = Client(address, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:  # a timeout is an OSError
            raise KansciError(
                f"no Dask scheduler answers at {address} within {timeout_s:.0f} s: start one with `dask scheduler`, "
                "or check address and firewall"
            ) from error
        self.root: Path | None = Path.cwd()
        self._address, self._sweep, self._log = address, sweep, log
        self._futures: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._asked, self._running, self._warned = 0.0, 0, False

    def submit(self, text: str, key: str) -> Future[dict[str, Any]]:
        """Hand the task over; the result is fetched as soon as it is there, before its worker can be lost."""
        outer: Future[dict[str, Any]] = Future()
        # retries=0: the sweep counts attempts, and waits before each
        inner = self._client.submit(execute, text, key=f"kansciml-{key}", pure=False, retries=0)
        with self._lock:
            self._futures[key] = inner

        def fetch(done: Any) -> None:
            try:
                outcome = done.result()
            except BaseException as error:  # whatever it is belongs to the thread that waits for `outer`
                outer.set_exception(_translated(error))
            else:
                outer.set_result(outcome)
            with self._lock:
                self._futures.pop(key, None)

        inner.add_done_callback(fetch)
        return outer

    def running(self, handed: int) -> int:
        """Tasks at work on the workers; asked for at most once a second."""
        now = time.monotonic()
        if now - self._asked < _ASK_EVERY_S:
            return min(self._running, handed)
        self._asked = now
        if self._client.status in ("closed", "closing"):
            raise KansciError(f"lost the scheduler at {self._address}: the same command resumes the sweep")
        with contextlib.suppress(OSError, RuntimeError):
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            tasks = self._client.processing()
            self._running = sum(min(one["nthreads"], len(tasks.get(name, ()))) for name, one in workers.items())
            if not workers and not self._warned:
                self._log(f"no worker at {self._address}: waiting for one (dask worker {self._address})")
            self._warned = not workers
        return min(self._running, handed)

    def close(self, everything_done: bool) -> None:
        """Have the workers end what still runs, wait until they have, and disconnect."""
        with self._lock:
            left = list(self._futures.values())
        with contextlib.suppress(OSError, RuntimeError, CancelledError, TimeoutError):
            if left:
                self._client.cancel(left)  # a worker's `execute` notices, and ends its process
                self._await_end()
            elif everything_done:
                self._client.run(files.discard_scratch, self._sweep, on_error="ignore")
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self._client.close(timeout=5)

    def _await_end(self) -> None:
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            counts = self._client.run(running_tasks, self._sweep, on_error="ignore")
            if not any(counts.values()):
                return
            time.sleep(0.25)


def _translated(error: BaseException) -> BaseException:
    """Dask's own errors in the words of a sweep; concurrent.futures knows only its own CancelledError."""
    name = type(error).__name__
    if name == "KilledWorker":
        return KansciError("the workers that ran it died one after the other: see their logs")
    if name in ("CancelledError", "FutureCancelledError", "FuturesCancelledError"):
        return CancelledError(str(error))
    return error
