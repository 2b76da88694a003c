"""Runs the Julia worker as a process: requests with a time limit, a clear error when it dies, a clean end."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kansciml._errors import WorkerDied
from kansciml._workers import end_group, ending
from kansciml.backends._julia_frames import NONE, FrameError, read_frame, write_frame

COMMAND = (sys.executable, "-m", "kansciml.backends._julia_worker")
REPORT_EVERY_S = 15.0
"""While a stage lasts, a line tells that it still does, and for how long."""
CLOSE_TIMEOUT_S = 5.0
LAST_WORDS_S = 1.0
"""How long a dead worker's standard error is waited for: a child of its may hold that open."""

_FATAL = re.compile(r"^(\[\d+\] )?signal \(\d|^ERROR: |^(Fatal|fatal|Internal) |^terminate called")
_TRACEBACK = "Traceback (most recent call last)"

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


class WorkerProcess:
    """A running worker. One request at a time; every wait has a limit, after which the worker is ended.

    Args:
        command: what to run.
        log: called with a line when a wait is long.
        environment: variables to set for it.
    """

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        log: Callable[[str], None] = lambda line: None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._last_lines: deque[str] = deque(maxlen=200)
        """What it wrote to standard error since the request that it works on: a crash prints a long backtrace."""
        self._deadline: float | None = None
        self._waiting_for = ""
        self._ended_because: str | None = None
        self._died: str | None = None
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],  # kansciml is found there, and no file of the user's in its place
            env=os.environ | (environment or {}),
            start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which then ends the worker
        )
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, daemon=True).start()
        atexit.register(self.close)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time of all its threads since it started; on systems that do not tell that of others, wall time."""
        if not sys.platform.startswith("linux"):
            return time.monotonic()
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock of a process: see clock_getcpuclockid(3)

    def send(self, header: dict[str, Any], arrays: Mapping[str, np.ndarray] = NONE) -> None:
        """Send a request. Raises WorkerDied if there is no worker any more."""
        if self._process.poll() is not None:
            raise self._death()
        self._last_lines.clear()  # what was said before has nothing to do with this one
        try:
            write_frame(self._stdin, header, arrays)
        except (OSError, ValueError) as error:  # a broken pipe, or closed by us
            raise self._death() from error

    def receive(self, timeout: float, waiting_for: str) -> Answer:
        """Wait for the next frame.

        Raises:
            WorkerDied: the worker died, or did not answer within `timeout` seconds.
        """
        self._waiting_for, self._deadline = waiting_for, time.monotonic() + timeout
        try:
            return read_frame(self._stdout)
        except FrameError as error:
            try:
                self._process.wait(0.5)  # it may have died while writing
            except subprocess.TimeoutExpired:
                self._kill(f"it broke the protocol, {error}")
            raise self._death() from error
        except (EOFError, OSError, ValueError) as error:  # its end, or closed by us
            raise self._death() from error
        except BaseException:  # Ctrl-C: an answer may be half read, so this worker cannot be used any more
            self._kill("it was interrupted")
            raise
        finally:
            self._waiting_for, self._deadline = "", None

    def request(
        self,
        header: dict[str, Any],
        arrays: Mapping[str, np.ndarray] = NONE,
        timeout: float = 600.0,
        waiting_for: str = "",
    ) -> Answer:
        """Send a request and wait for its answer."""
        waiting_for = waiting_for or str(header.get("do"))
        with self._lock:
            self.send(header, arrays)
            return self.receive(timeout, waiting_for)

    def close(self) -> None:
        """End the worker; calling it twice is allowed."""
        atexit.unregister(self.close)
        self._closed.set()
        self._ended_because = self._ended_because or "it was closed"
        if self._process.poll() is None:
            try:
                self._stdin.close()  # the worker returns when its requests end
                self._process.wait(CLOSE_TIMEOUT_S)
            except (OSError, subprocess.TimeoutExpired):
                end_group(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still to be written has no reader any more
                    pass

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    @property
    def _stdout(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _kill(self, reason: str) -> None:
        self._ended_because = self._ended_because or reason
        end_group(self._process)  # Julia compiles packages in processes of its own

    def _death(self) -> WorkerDied:
        """The error for a worker that answers no more: how it ended, at what, and what it said last."""
        if self._died is None:
            try:
                code = self._process.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # it closed its output and lives on
                end_group(self._process)
                code = self._process.wait()
            self._reader.join(LAST_WORDS_S)
            said = last_words(list(self._last_lines))
            at = f" while {self._waiting_for}" if self._waiting_for else ""
            self._died = f"the Julia worker died{at} ({ending(code)})" + (f": {said}" if said else "")
            if self._ended_because:
                self._died = f"the Julia worker was ended: {self._ended_because}"
        return WorkerDied(self._died)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._last_lines.append(line.decode(errors="replace").rstrip())

    def _watch(self) -> None:
        """Ends the worker at the deadline; until then reports long waits."""
        known: float | None = None
        began = reported = 0.0
        while not self._closed.wait(0.25):
            deadline, waited_for, now = self._deadline, self._waiting_for, time.monotonic()
            if deadline is None or deadline != known:  # of each request another one
                known, began, reported = deadline, now, now
            elif now > deadline:
                self._kill(f"no answer in time while {waited_for}")
            elif now - reported > REPORT_EVERY_S:
                reported = now
                detail = next((line for line in reversed(self._last_lines) if line.strip()), "")
                self.log(f"julia: still {waited_for}, {now - began:.0f} s" + (f" ({detail[:80]})" if detail else ""))


def last_words(lines: Sequence[str]) -> str:
    """The line that tells best why a process died, of what it wrote to standard error; "" if none does.

    That is the last fatal error of Julia or the C library, else the end of a Python traceback, else the last line that
    belongs to no warning (those that Julia frames) and to no backtrace.
    """
    lines = [line.rstrip() for line in lines if line.strip()]
    fatal = [line for line in lines if _FATAL.match(line)]
    if fatal:
        return fatal[-1][:300]
    if any(line.startswith(_TRACEBACK) for line in lines):
        start = max(i for i, line in enumerate(lines) if line.startswith(_TRACEBACK))
        return next((line[:300] for line in lines[start + 1 :] if not line[0].isspace()), "")
    plain = [line for line in lines if line[0] not in "┌│└[ \t" and not line.lower().startswith("warning")]
    return plain[-1][:300] if plain else ""
