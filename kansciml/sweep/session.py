"""Runs the tasks of a sweep on a pool of processes, here or on many machines: resumable, failed tasks retried.

A task's record lies where `kansciml run` would put it, so that a task that is finished is never run again, whoever ran
it, and one that was killed resumes from its checkpoints. What the sweep adds lies in ``results/sweeps/<id>/``.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from kansciml._errors import KansciError, UsageError
from kansciml._files import make_folder, to_jsonable, write_text
from kansciml.runs.lock import folder_lock
from kansciml.runs.progress import Progress
from kansciml.sweep import files
from kansciml.sweep.plan import SweepPlan, SweepTask, setting_label
from kansciml.sweep.process import end_tasks, execute, task_json
from kansciml.sweep.state import SCHEMA, SweepState, TaskState

LOCAL = "local"
PAUSE_S = 2.0
"""Seconds before the second attempt of a task; twice as long before each one after it."""
_TICK_S = 0.25


class Pool(Protocol):
    """Where tasks run."""

    slots: int | None
    """How many tasks to hand over at once; None: all."""
    root: Path | None
    """Folder that a task's relative paths start from; None: processes start where the command did."""

    def submit(self, text: str, key: str) -> Future[dict[str, Any]]:
        """Have `execute` run the task `text`."""

    def running(self, handed: int) -> int:
        """How many of `handed` tasks are at work."""

    def close(self, everything_done: bool) -> None:
        """End what still runs, after it saved its state."""


class LocalPool:
    """Processes on this machine, `workers` at a time."""

    root = None

    def __init__(self, workers: int, session: str) -> None:
        self.slots, self._session = workers, session
        self._threads = ThreadPoolExecutor(workers, "sweep")

    def submit(self, text: str, key: str) -> Future[dict[str, Any]]:
        return self._threads.submit(execute, text)

    def running(self, handed: int) -> int:
        return handed

    def close(self, everything_done: bool) -> None:
        end_tasks(self._session)
        self._threads.shutdown(wait=True, cancel_futures=True)


def run_sweep(
    plan: SweepPlan,
    *,
    results: str | Path = "results",
    workers: int = 1,
    scheduler: str = LOCAL,
    retries: int = 2,
    preset: str | None = None,
    pause_s: float = PAUSE_S,
    patience_s: float = files.PATIENCE_S,
    log: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> SweepState:
    """Run what is not finished of `plan`, and say how every task ended.

    Args:
        results: folder of all results.
        workers: processes of the local pool. scheduler: ``local``, or the address of a Dask scheduler.
        retries: how often a task that failed is started again in this session.
        preset: for the reader of ``sweep.json``.
        pause_s: before the first retry, doubled for each one after it.
        patience_s: how long a task waits for another process in its folder that shows no sign of life.

    Returns:
        the states; `SweepState.failed` are those that failed for good.

    Raises:
        UsageError: workers or retries out of range, or a scheduler that is none.
        KansciError: another process runs this sweep, an unwritable folder, or a scheduler that does not answer.
        KeyboardInterrupt: passed on, after the tasks at work saved their state and a line said how to resume.
    """
    if workers < 1 or retries < 0:
        raise UsageError(f"got workers {workers}, retries {retries}: expected at least 1, and at least 0")
    if scheduler != LOCAL:
        from kansciml.sweep.dask import check_address

        check_address(scheduler)
    progress = progress or Progress()
    log = log or progress.log
    results = Path(results).absolute()
    with folder_lock(make_folder(plan.folder(results))):
        state = SweepState(plan, results, preset, read_state(plan.folder(results)))
        _mark_finished(state, plan, results)
        todo = [task for task in plan.tasks if state.tasks[task.id].state != "done"]
        if len(todo) < len(plan.tasks):
            log(f"{len(plan.tasks) - len(todo)} of {len(plan.tasks)} tasks are finished already")
        state.save()
        if todo:
            session = secrets.token_hex(8)
            if scheduler == LOCAL:
                pool: Pool = LocalPool(min(workers, len(todo)), session)
            else:
                from kansciml.sweep.dask import DaskPool

                pool = DaskPool(scheduler, plan.id, log)
            _Session(plan, state, results, session, pool, retries, pause_s, patience_s, log).run(todo, progress)
        state.save("failed" if state.failed else "finished")
    return state


def read_state(folder: Path) -> dict[str, Any] | None:
    """``sweep.json`` of an earlier session; None if there is none that can be read: then only its attempts are lost."""
    try:
        content = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        kept = [(task["id"], task["error"], task["attempts"] + 0) for task in content["tasks"]]
        whole = all(isinstance(text, str) for id, error, _ in kept for text in (id, error, content["started"]))
        return content if whole and content["schema"] == SCHEMA and content["sessions"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark_finished(state: SweepState, plan: SweepPlan, results: Path) -> None:
    from kansciml.runs.records import load_record

    for id in plan.finished(results):
        record = load_record(results / plan.experiment.name / id)
        task = state.tasks[id]
        task.state, task.error, task.wall_s, task.sessions = "done", "", record.wall_s, record.sessions


class _Session:
    """One command's work on a sweep: hands tasks to the pool, takes their outcomes, and repeats what failed."""

    def __init__(
        self,
        plan: SweepPlan,
        state: SweepState,
        results: Path,
        session: str,
        pool: Pool,
        retries: int,
        pause_s: float,
        patience_s: float,
        log: Callable[[str], None],
    ) -> None:
        self.plan, self.state, self.results, self.session, self.pool = plan, state, results, session, pool
        self.retries, self.pause_s, self.patience_s, self.log = retries, pause_s, patience_s, log
        self.folder = plan.folder(results)
        self.probe = self.folder / f"probe-{session}"
        self.tries: dict[str, int] = {}

    def run(self, todo: list[SweepTask], progress: Progress) -> None:
        due = [(0.0, task) for task in todo]
        handed: dict[Future[dict[str, Any]], SweepTask] = {}
        write_text(self.probe, self.session)
        complete = False
        try:
            with progress, progress.task(f"sweep of {self.plan.experiment.name}", len(self.plan.tasks)) as bar:
                while due or handed:
                    self._hand_over(due, handed)
                    for future in wait(handed, timeout=_TICK_S, return_when=FIRST_COMPLETED).done:
                        task = handed.pop(future)
                        again = self._take(task, future)
                        if again is not None:
                            due.append((time.monotonic() + again, task))
                    if not handed and due:
                        time.sleep(_TICK_S)
                    self._show(bar, handed)
                    self.state.save(now=False)
            complete = not self.state.failed
        except KeyboardInterrupt:
            n_done, n_all = self.state.count("done"), len(self.plan.tasks)
            self.log(f"sweep: stopping with {n_done} of {n_all} tasks done; the same command resumes it")
            raise
        finally:
            self.pool.close(complete)
            with contextlib.suppress(OSError):
                self.probe.unlink()
            for task in handed.values():
                own = self.state.tasks[task.id]
                own.state = "pending"
                own.attempts -= not (self.results / own.folder).exists()  # it waited for a worker
            if due or handed:
                self.state.save("interrupted")

    def _hand_over(self, due: list[tuple[float, SweepTask]], handed: dict[Future[dict[str, Any]], SweepTask]) -> None:
        now = time.monotonic()
        for when, task in list(due):
            if self.pool.slots is not None and len(handed) >= self.pool.slots:
                return
            if when <= now:
                due.remove((when, task))
                number = self.tries[task.id] = self.tries.get(task.id, 0) + 1
                handed[self.pool.submit(self._text(task), f"{self.plan.id}-{self.session}-{task.id}-{number}")] = task
                own = self.state.tasks[task.id]
                own.state, own.attempts = "running", own.attempts + 1

    def _text(self, task: SweepTask) -> str:
        if self.pool.root is not None:
            from kansciml.sweep.plan import with_paths

            task = with_paths(task, self.pool.root)
        return task_json(
            session=self.session,
            sweep=self.plan.id,
            experiment=self.plan.experiment.name,
            package=self.plan.package,
            id=task.id,
            config=to_jsonable(task.config),
            results=self.results,
            probe=self.probe,
            token=self.session,
            log=self.folder / "logs" / f"{task.id}.log",
            patience_s=self.patience_s,
        )

    def _take(self, task: SweepTask, future: Future[dict[str, Any]]) -> float | None:
        """Note how a task ended; seconds until it is to be started again, or None if it is not."""
        own = self.state.tasks[task.id]
        outcome = self._outcome(task, future)
        if outcome["state"] == "done":
            own.state, own.error, own.wall_s, own.sessions = "done", "", outcome["wall_s"], outcome["sessions"]
            return None
        own.error = outcome["error"]
        if "log" in outcome:
            write_text(self.folder / "logs" / f"{task.id}.log", outcome["log"])
        tries = self.tries[task.id]
        if outcome["final"] or tries > self.retries:
            own.state = "failed"
            self.log(f"{self._name(own)}: failed: {own.error}")
            return None
        pause = self.pause_s * 2 ** (tries - 1)
        own.state = "pending"
        self.log(f"{self._name(own)}: attempt {tries} failed, next in {pause:g} s: {own.error}")
        return pause

    def _outcome(self, task: SweepTask, future: Future[dict[str, Any]]) -> dict[str, Any]:
        try:
            outcome = future.result()
            if "files" in outcome:
                files.unpack(outcome["files"], self.results / self.plan.experiment.name / task.id)
            return outcome
        except CancelledError as error:
            raise KansciError("the scheduler is gone: the same command resumes the sweep") from error
        except KansciError as error:  # the files could not be written: the next attempt brings them again
            return {"state": "failed", "error": str(error), "final": False}
        except Exception as error:  # the pool's own: a worker that died again and again, no memory for a process
            line = " ".join(f"{type(error).__name__}: {error}".split())
            return {"state": "failed", "error": line, "final": False}

    def _name(self, own: TaskState) -> str:
        seed = "" if own.seed is None else f", seed {own.seed}"
        return f"{self.plan.experiment.name} {setting_label(self.plan.settings[own.setting])}{seed}"

    def _show(self, bar: Any, handed: dict[Future[dict[str, Any]], SweepTask]) -> None:
        done, failed = self.state.count("done"), self.state.count("failed")
        bar.update(completed=done + failed, done=done, failed=failed, running=self.pool.running(len(handed)))
