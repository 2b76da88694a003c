"""Runs the tasks of a sweep on Dask, on this machine or on many; failed tasks are retried, interrupted ones resumed.

A task's record lies where `kansciml run` would put it, so that a task that is finished is never run again, whoever ran
it, and one that was killed resumes from its checkpoints. What the sweep adds lies in ``results/sweeps/<id>/``.

Dask itself hands a task whose worker died to another worker, up to its setting ``allowed-failures``; only then does
that count as a failed attempt.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import KansciError, UsageError
from kansciml._files import make_folder, write_text
from kansciml.runs.progress import Progress
from kansciml.runs.runner import folder_lock
from kansciml.runs.settings import settings_json
from kansciml.sweep.plan import SweepPlan, SweepState, SweepTask
from kansciml.sweep.task import PATIENCE_S, Outcome, Request, execute

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL = "local"
PAUSE_S = 2.0
"""Seconds before the second attempt of a task; twice as long before each one after it."""
CONNECT_S = 15.0
"""How long the scheduler may take to answer."""
END_S = 20.0
"""How long tasks may take to save their state after Ctrl-C."""
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://")
_TICK_S = 0.2
_LOOK_EVERY_S = 1.0


def run_sweep(
    plan: SweepPlan,
    *,
    results: str | Path = "results",
    workers: int = 1,
    scheduler: str = LOCAL,
    retries: int = 2,
    preset: str | None = None,
    pause_s: float = PAUSE_S,
    patience_s: float = PATIENCE_S,
    log: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> SweepState:
    """Run what is not finished of `plan`; what is returned says how every task ended.

    Args:
        results: folder of all results. workers: tasks at a time on this machine.
        scheduler: ``local``, or the address of a Dask scheduler whose workers see the results folder.
        retries: how often a task that failed is started again in this session.
        preset: for the reader of ``sweep.json``.
        pause_s: before the first retry, doubled for each one after it.
        patience_s: how long a task waits for another process in its folder that shows no sign of life.

    Raises:
        UsageError: workers or retries out of range, or a scheduler that is none.
        KansciError: another process runs this sweep, an unwritable folder, a scheduler that does not answer, or a
            worker that does not see the results folder.
        KeyboardInterrupt: passed on, after the tasks at work saved their state and a line said how to resume.
    """
    if workers < 1 or retries < 0:
        raise UsageError(f"got workers {workers}, retries {retries}: expected at least 1, and at least 0")
    if scheduler != LOCAL and not scheduler.startswith(_SCHEMES):
        raise UsageError(f"got --scheduler {scheduler!r}: expected local, or an address such as tcp://host:8786")
    progress = progress or Progress()
    log = log or progress.log
    results = Path(results).absolute()
    with folder_lock(make_folder(plan.folder(results))):
        state = SweepState(plan, results, preset)
        todo = [task for task in plan.tasks if state.tasks[task.id].state != "done"]
        if len(todo) < len(plan.tasks):
            log(f"{len(plan.tasks) - len(todo)} of {len(plan.tasks)} tasks are finished already")
        state.save()
        if todo:
            with open_client(scheduler, min(workers, len(todo))) as client, progress:
                _Session(plan, state, client, results, retries, pause_s, patience_s, log).run(todo, progress)
        state.save("failed" if state.failed else "finished")
    return state


@contextlib.contextmanager
def open_client(scheduler: str, workers: int) -> Iterator[Client]:
    """A client of the scheduler at that address, or of one in this process with `workers` threads.

    Tasks run in processes of their own: the threads only wait, and no Dask worker can outlive this process.

    Raises:
        KansciError: the scheduler does not answer.
    """
    import dask
    from distributed import Client, LocalCluster

    # What matters is said in one line each, by `_Session`
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as opened:
        place: Any = scheduler
        if scheduler == LOCAL:
            dask.config.set({"distributed.worker.profile.enabled": False})  # its threads only wait
            place = LocalCluster(
                n_workers=1, threads_per_worker=workers, processes=False, protocol="inproc://", memory_limit=0,
                dashboard_address=None, silence_logs=logging.CRITICAL,
                # Dask tells of its health by HTTP: to this machine alone, at any free port
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}, worker_dashboard_address="127.0.0.1:0",
            )  # fmt: skip
            opened.enter_context(place)
        try:
            client = Client(place, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:  # a timeout is an OSError
            raise KansciError(
                f"no Dask scheduler answers at {scheduler} within {CONNECT_S:.0f} s: start one with `dask scheduler`, "
                "or check address and firewall"
            ) from error
        opened.callback(client.close, timeout=5)
        yield client


@dataclass
class _Session:
    """One command's work on a sweep: hands tasks to Dask, takes their outcomes, and repeats what failed.

    Args:
        name: topic under which workers tell which tasks are at work. The others: see `run_sweep`.
        due: tasks to hand to Dask, and when. handed: those that are there. tries: attempts of this session, by id.
        at_work: ids of tasks that have a process. workers: how many there were when last looked for.
    """

    plan: SweepPlan
    state: SweepState
    client: Client
    results: Path
    retries: int
    pause_s: float
    patience_s: float
    log: Callable[[str], None]
    name: str = field(default_factory=lambda: f"kansciml-{secrets.token_hex(8)}")
    due: list[tuple[float, SweepTask]] = field(default_factory=list)
    handed: dict[Future, SweepTask] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    at_work: set[str] = field(default_factory=set)
    workers: int | None = None

    def run(self, todo: list[SweepTask], progress: Progress) -> None:
        """Work until every task of `todo` is done or has failed for good."""
        self.due = [(0.0, task) for task in todo]
        folder = self.plan.folder(self.results)
        make_folder(folder / "logs")
        probe = write_text(folder / f"probe-{self.name}", "")
        self.client.subscribe_topic(self.name, self._told)
        looked = 0.0
        try:
            with progress.task(f"sweep of {self.plan.experiment.name}", len(self.plan.tasks)) as bar:
                while self.due or self.handed:
                    self._hand_over()
                    for future in [one for one in self.handed if one.done()]:
                        self._take(self.handed[future], self._outcome(future))
                        del self.handed[future]
                    if time.monotonic() - looked > _LOOK_EVERY_S:
                        looked = time.monotonic()
                        self._look_for_workers()
                    done, failed = self.state.count("done"), self.state.count("failed")
                    bar.update(completed=done + failed, done=done, failed=failed, running=len(self.at_work))
                    self.state.save(now=False)
                    time.sleep(_TICK_S)
        except KeyboardInterrupt:
            n_done, n_all = self.state.count("done"), len(self.plan.tasks)
            self.log(f"sweep: stopping with {n_done} of {n_all} tasks done; the same command resumes it")
            raise
        finally:
            self._end()
            probe.unlink(missing_ok=True)

    def _told(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a worker's word that a task is at work, or no longer. Called in the client's own thread."""
        _, message = event
        if message["at_work"]:
            own = self.state.tasks[message["id"]]
            own.state, own.attempts = "running", own.attempts + 1
            self.at_work.add(own.id)
        else:
            self.at_work.discard(message["id"])

    def _hand_over(self) -> None:
        now = time.monotonic()
        for when, task in [one for one in self.due if one[0] <= now]:
            self.due.remove((when, task))
            self.tries[task.id] += 1
            request = Request(
                session=self.name,
                experiment=self.plan.experiment.name,
                package=self.plan.package,
                id=task.id,
                config=settings_json(task.config),
                results=str(self.results),
                sweep=str(self.plan.folder(self.results)),
                folder=str(Path.cwd()),
                patience_s=self.patience_s,
            )
            key = f"{self.name}-{task.id}-{self.tries[task.id]}"
            # retries=0: the sweep counts attempts, and waits before each
            self.handed[self.client.submit(execute, request, key=key, pure=False, retries=0)] = task

    def _outcome(self, future: Future) -> Outcome:
        """How an attempt ended. Raises KansciError if the sweep cannot go on."""
        from distributed import KilledWorker

        try:
            return future.result()
        except CancelledError as error:
            raise KansciError("the scheduler is gone: the same command resumes the sweep") from error
        except KansciError:
            raise
        except KilledWorker:
            return Outcome("failed", "the workers that ran it died one after the other: see their logs")
        except Exception as error:  # Dask's own: another version of kansciml there, no memory for the answer
            return Outcome("failed", " ".join(f"{type(error).__name__}: {error}".split()))

    def _take(self, task: SweepTask, outcome: Outcome) -> None:
        """Note how an attempt ended, and when the next one is due."""
        own, tries = self.state.tasks[task.id], self.tries[task.id]
        self.at_work.discard(task.id)
        if outcome.state == "done":
            own.done(outcome.wall_s, outcome.sessions)
            return
        own.error = outcome.error
        if outcome.final or tries > self.retries:
            own.state, what = "failed", "failed"
        else:
            pause = self.pause_s * 2 ** (tries - 1)
            own.state, what = "pending", f"attempt {tries} failed, next in {pause:g} s"
            self.due.append((time.monotonic() + pause, task))
        self.log(f"{self.plan.experiment.name} {self.plan.label(own.setting, own.seed)}: {what}: {own.error}")

    def _look_for_workers(self) -> None:
        """Say if there are none. Raises KansciError if the scheduler is gone."""
        if self.client.status in ("closed", "closing"):
            raise KansciError("the scheduler is gone: the same command resumes the sweep")
        with contextlib.suppress(OSError, RuntimeError):
            workers, address = self.client.nthreads(), self.client.scheduler.address
            if not workers and self.workers != 0:
                self.log(f"no worker at {address}: waiting for one (dask worker {address})")
            self.workers = len(workers)

    def _end(self) -> None:
        """Have the workers end what still runs, and wait until they have."""
        left = bool(self.due or self.handed)
        with contextlib.suppress(OSError, RuntimeError, CancelledError):
            if self.handed:
                self.client.cancel(list(self.handed))  # `execute` notices, and ends its process
        deadline = time.monotonic() + END_S
        while self.at_work and self.client.status == "running" and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        for task in self.handed.values():
            self.state.tasks[task.id].state = "pending"
        if left:
            self.state.save("interrupted")
