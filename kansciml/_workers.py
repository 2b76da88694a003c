"""Starts processes that work for this one, and makes sure that none outlives it."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import IO, Any, ParamSpec, TypeVar

from kansciml._errors import KansciError, UsageError, WorkerDied

P = ParamSpec("P")
T = TypeVar("T")

WORKERS_VARIABLE = "KANSCIML_WORKERS"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHON_JULIACALL_THREADS", "JULIA_NUM_THREADS"), "1"
)
"""Environment of processes that share the processors: BLAS reads it when NumPy is loaded, Julia when it starts."""
GRACE_S = 20.0
"""How long a process that was asked to end may take to save its state."""
WORKER_GRACE_S = 5.0
"""The same of a pool's worker, which saves one training."""
_POLL_S = 0.1


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


def follow_parent(stop: Callable[[], object] = lambda: None, grace_s: float = 0.0) -> None:
    """End this process once its parent has ended, by whatever signal: call `stop()`, and exit `grace_s` later."""

    def follow() -> None:
        parent = multiprocessing.parent_process()  # not os.getppid(): it may have ended before this process began
        if parent is not None:
            parent.join()
        else:
            while os.read(0, 1):  # the other end of standard input is the parent's alone
                pass
        stop()
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


# ---- pools of processes ---------------------------------------------------------------------------------------------


class WorkerPool(ProcessPoolExecutor):
    """A pool of processes with one thread each, which are spared Ctrl-C and end with this process: a context manager.

    When it is left, and on SIGTERM, `stopping` turns true in the workers; on SIGTERM, and when this process has ended,
    they have `WORKER_GRACE_S` seconds to save their state.

    Args:
        workers: how many processes.

    Raises:
        KansciError: on leaving it, if a worker died.
    """

    def __init__(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")  # forking a process that has used threads can hang
        self._told, self._stop = spawn.Queue(), spawn.Event()
        self._children: set[Any] = set()
        super().__init__(workers, spawn, _start_worker, (self._told, self._stop))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `ProcessPoolExecutor.submit`, which may start a process."""
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)
        try:
            with spared_interrupts():
                future = super().submit(fn, *args, **kwargs)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self._children.update(multiprocessing.active_children())
        return future

    def told(self) -> Iterator[Any]:
        """What workers have handed to `tell` since it was last asked."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._told.get_nowait()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._stop.set()
        self.shutdown(wait=True, cancel_futures=True)
        self._told.close()
        self._told.cancel_join_thread()
        if isinstance(error, BrokenProcessPool):
            how = {ending(child.exitcode) for child in self._children}
            how = how - {"SIGTERM", ending(0), ending(None)} or {"SIGTERM"}  # the pool ends the others by SIGTERM
            raise KansciError(
                f"a worker process died ({', '.join(sorted(how))}): the same command resumes the runs;"
                f" {WORKERS_VARIABLE}=1 runs them one by one"
            ) from error


_told: Any = None
_stop: Any = None
"""In a worker: the queue and the event of its pool."""


def tell(message: object) -> None:
    """In a worker: hand a message to the process that has the pool."""
    _told.put(message)


def stopping() -> bool:
    """In a worker: whether it is to end."""
    return _stop.is_set()


def _start_worker(told: Any, stop: Any) -> None:
    global _told, _stop
    _told, _stop = told, stop

    def end() -> None:
        stop.set()
        time.sleep(WORKER_GRACE_S)
        os._exit(1)

    # a SIGTERM to this worker, or to all processes of a batch job: in a thread, as the handler may meet a lock held
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, daemon=True).start())
    follow_parent(stop.set, WORKER_GRACE_S)


@contextlib.contextmanager
def spared_interrupts() -> Iterator[None]:
    """Processes that are started within never see a Ctrl-C, which a terminal sends to all: their parent ends them.

    They inherit the mask and so are spared from their first moment on, not only once they could say that they want to
    be. For this process a Ctrl-C or SIGTERM that comes meanwhile counts right after: halfway, a process would start
    without all that it is to be told.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    came: list[int] = []
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread() or None in held.values():
        held = {}
    resource_tracker.ensure_running()  # where it is started on the way, it lifts the mask again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    for number in held:  # the mask is this thread's alone: another one may take the signal
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for late in came[:1]:
            signal.raise_signal(late)


# ---- one call in a process of its own -------------------------------------------------------------------------------


def call_in_process(
    function: Callable[[Any], Any],
    argument: Any,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    log: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Any:
    """What `function(argument)` returns, computed in a process of its own, so that its memory and its end are its own.

    The process is spared Ctrl-C, which a terminal sends to all. `function` is interrupted (KeyboardInterrupt) when
    `cancelled()`, when this process is interrupted, and when it has ended.

    Args:
        function: named in a module; takes and returns what JSON can hold.
        cancelled: asked ten times a second; once it holds, the process has `GRACE_S` seconds to end.
        log: file that takes what the process prints; default: standard error.
        environment, folder: of the process; default: those of this one.

    Raises:
        WorkerDied: the process ended without an answer, and how.
        KeyboardInterrupt: of this process, once the other one has ended; a second one ends that at once.
    """
    command = [sys.executable, "-m", "kansciml._workers", function.__module__, function.__qualname__]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    deadline: float | None = None
    try:
        with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit code says why
            process.stdin.write(json.dumps(argument).encode() + b"\n")
            process.stdin.flush()
        while process.poll() is None and (deadline is None or time.monotonic() < deadline):
            if deadline is None and cancelled():
                deadline = time.monotonic() + GRACE_S
                process.terminate()
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        if process.poll() is None:
            end_group(process)
        answer = process.stdout.read()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        return json.loads(answer)
    except ValueError:
        raise WorkerDied(f"its process ended ({ending(process.returncode)})") from None


def _answer_call() -> None:
    """The process of `call_in_process`: the argument comes on standard input, the answer goes to standard output."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would tear the saving of the state
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        argument = json.loads(sys.stdin.readline())
        follow_parent(lambda: os.kill(os.getpid(), signal.SIGTERM), GRACE_S)
        module, name = sys.argv[1:]
        result = getattr(importlib.import_module(module), name)(argument)
    except KeyboardInterrupt:
        sys.exit(130)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError), answer:
        json.dump(result, answer)


if __name__ == "__main__":
    _answer_call()
