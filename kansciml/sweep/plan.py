"""The tasks of a sweep, every combination of swept settings times every seed, and how far they are (``sweep.json``)."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError, check_seed
from kansciml._files import to_jsonable, write_json
from kansciml.runs import provenance
from kansciml.runs.config_json import is_tuple_setting, parse_setting, setting_name, setting_types, with_settings
from kansciml.runs.experiment import Experiment
from kansciml.runs.records import Record, find_record
from kansciml.runs.settings import MAX_SEEDS, config_hash, seeds_of
from kansciml.runs.settings import setting as setting_of
from kansciml.runs.typed import attributes

NO_SETTINGS = "as given"
SEED_SETTINGS = ("seeds", "first_seed", "seed")
SCHEMA = 1
_WRITE_EVERY_S = 1.0


@dataclass(frozen=True)
class SweepTask:
    """One run of the experiment.

    Args:
        id: the hash of its configuration, which names its folder. config: the whole configuration.
        setting: dotted name -> value of the swept settings. setting_index: which of the plan's settings.
        seed: None for an experiment without seeds.
    """

    id: str
    setting: dict[str, Any]
    setting_index: int
    seed: int | None
    config: Any


@dataclass(frozen=True)
class SweepPlan:
    """All tasks of a sweep, a setting's seeds one after the other.

    Args:
        experiment: what is run. package: where it was found. swept: dotted name -> its values, in the order given.
        settings: every combination of them; one empty one where nothing is swept.
        seeds: empty for an experiment without seeds. tasks: one per setting and seed.
    """

    experiment: Experiment
    package: str
    swept: dict[str, list[Any]]
    settings: list[dict[str, Any]]
    seeds: tuple[int, ...]
    tasks: list[SweepTask]

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that are equal exactly if the experiment, the settings and the tasks are."""
        content = to_jsonable([self.experiment.name, self.swept, sorted(task.id for task in self.tasks)])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, results: str | Path) -> Path:
        """The sweep's own folder, beside the runs."""
        return Path(results) / "sweeps" / self.id

    def label(self, setting: int, seed: int | None) -> str:
        """``grid=5, seed 0``, for messages."""
        return setting_label(self.settings[setting]) + ("" if seed is None else f", seed {seed}")

    def finished(self, task: SweepTask, results: Path) -> Record | None:
        """The finished record of a task. A damaged one is none: running the task will say so."""
        try:
            record = find_record(results / self.experiment.name / task.id)
        except KansciError:
            return None
        return record if record is not None and record.status == "finished" else None


def parse_seeds(text: str, first: int = 0) -> tuple[int, ...]:
    """``20``: that many from `first` on; ``0,3,7`` (or ``3,``): exactly those.

    Raises:
        UsageError: anything else, a negative seed, or one named twice.
    """
    parts = [part.strip() for part in text.split(",")]
    listed = len(parts) > 1
    parts = parts[:-1] if listed and not parts[-1] else parts
    if not all(part.isascii() and part.isdigit() for part in parts) or (not listed and int(parts[0]) < 1):
        raise UsageError(f"got seeds {text!r}: expected how many (20), or which ones (0,3,7)")
    if not listed:
        if int(parts[0]) > MAX_SEEDS:
            raise UsageError(
                f"got seeds {text}: expected how many, at most {MAX_SEEDS}, or which ones: {text}, is that seed alone"
            )
        return tuple(range(first, first + int(parts[0])))
    seeds = tuple(check_seed(int(part)) for part in parts)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"got seeds {text!r}: expected each one once")
    return seeds


def parse_settings(kind: type, texts: Sequence[str]) -> dict[str, list[Any]]:
    """``name=v1,v2`` for each swept setting: dotted name -> values.

    The values of a setting that is itself a list are separated by semicolons, its elements by commas:
    ``hidden=50;10,10`` is (50,) and (10, 10). A semicolon also separates the values of any other setting.

    Raises:
        UsageError: an unknown setting, a value of another type, a value or a setting named twice, or a seed.
    """
    swept: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values.strip():
            raise UsageError(f"got --set {text!r}: expected name=value or name=value1,value2")
        name = setting_name(kind, name)
        if name in SEED_SETTINGS:
            raise UsageError(f"got --set {text!r}: seeds are swept by --seeds")
        if name in swept:
            raise UsageError(f"got --set {name} twice: expected all its values in one, {name}=value1,value2")
        separator = ";" if ";" in values or is_tuple_setting(kind, name) else ","
        parts = [part for part in values.split(separator) if part.strip()]
        swept[name] = [parse_setting(kind, name, part) for part in parts]
        if len({repr(value) for value in swept[name]}) < len(swept[name]):
            raise UsageError(f"got --set {text!r}: expected each value once")
    return swept


def setting_label(setting: Mapping[str, Any]) -> str:
    """``grid=5, training.adam_steps=100``, for messages and tables."""
    return ", ".join(f"{name}={value_label(value)}" for name, value in setting.items()) or NO_SETTINGS


def value_label(value: Any) -> str:
    """A setting's value as it is typed: tuples by commas, None as ``none``."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(value_label, value)) or "()"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def make_plan(
    experiment: Experiment,
    base: Any,
    swept: Mapping[str, Sequence[Any]],
    seeds: str | None = None,
    package: str = "kansciml.experiments",
) -> SweepPlan:
    """The tasks of a sweep of `experiment` about the configuration `base`; nothing is run or written.

    Args:
        swept: dotted name -> values. seeds: as for `parse_seeds`; None: those of `base`.

    Raises:
        UsageError: a setting that the experiment refuses, seeds of an experiment without, two tasks that are the same
            run, or a backend ``auto`` among the values, which could be another one on another machine; where `base`
            leaves the backend to the machine, it is torch, which all have.
    """
    base = experiment.choices(base)[-1]
    chosen = _seeds(experiment, base, seeds)
    counted = "seeds" in setting_types(experiment.config)
    settings = [dict(zip(swept, values)) for values in itertools.product(*swept.values())]
    tasks: dict[str, SweepTask] = {}
    for index, setting in enumerate(settings):
        config = _checked(experiment, base, setting)
        for seed in chosen or (None,):
            alone = {} if seed is None else {"seeds": 1, "first_seed": seed} if counted else {"seed": seed}
            own = with_settings(config, alone)
            task = SweepTask(config_hash(experiment.name, own), setting, index, seed, own)
            if task.id in tasks:
                raise UsageError(
                    f"{setting_label(setting)} is the same run as {setting_label(tasks[task.id].setting)}: results "
                    "would lie in one folder; leave one out"
                )
            tasks[task.id] = task
    values = {name: list(values) for name, values in swept.items()}
    return SweepPlan(experiment, package, values, settings, chosen, list(tasks.values()))


def _checked(experiment: Experiment, base: Any, setting: Mapping[str, Any]) -> Any:
    """The configuration of a setting, which the experiment would accept."""
    try:
        config = with_settings(base, setting)
        if setting_of(config, "backend") == "auto":
            raise UsageError("got backend auto, which can differ between processes: add --set backend=torch (or julia)")
        experiment.accept(config)
    except UsageError as error:
        where = f"{setting_label(setting)}: " if setting else ""
        raise UsageError(f"{where}{error}") from error
    return config


def _seeds(experiment: Experiment, base: Any, seeds: str | None) -> tuple[int, ...]:
    if seeds is None:
        return seeds_of(base)
    if not {"seeds", "seed"} & setting_types(experiment.config).keys():
        raise UsageError(f"{experiment.name} has no seeds: leave out --seeds")
    return parse_seeds(seeds, setting_of(base, "first_seed", 0))


@dataclass
class TaskState:
    """How far one task is.

    Args:
        id: of the task, and name of its folder. setting: of the plan's settings, by index. seed: None if it has none.
        folder: of its record, relative to the results folder.
        state: pending, running, done or failed. A pending one may have failed before.
        attempts: how often it was started by this sweep, over all its sessions; 0 for one found finished.
        error: of the last attempt, in one line; empty if it ended well.
        wall_s, sessions: of its record; None until it is done.
    """

    id: str
    setting: int
    seed: int | None
    folder: str
    state: str = "pending"
    attempts: int = 0
    error: str = ""
    wall_s: float | None = None
    sessions: int | None = None

    def done(self, wall_s: float | None, sessions: int | None) -> None:
        """Note that there is a finished record."""
        self.state, self.error, self.wall_s, self.sessions = "done", "", wall_s, sessions


class SweepState:
    """The states of all tasks of a plan, and the file that holds them. Attempts of earlier sessions count on.

    Args:
        plan: the sweep. results: folder of all results. preset: name of the preset it started from, for the reader.
    """

    def __init__(self, plan: SweepPlan, results: Path, preset: str | None) -> None:
        self.plan, self.preset = plan, preset
        self.path = plan.folder(results) / "sweep.json"
        self.commit = provenance.package_commit()
        self.finished: str | None = None
        earlier = _read(self.path)
        self.started = earlier["started"] if earlier else _now()
        self.sessions = earlier["sessions"] + 1 if earlier else 1
        before = {task["id"]: task for task in earlier["tasks"]} if earlier else {}
        self.tasks: dict[str, TaskState] = {}
        for task in plan.tasks:
            own = TaskState(task.id, task.setting_index, task.seed, f"{plan.experiment.name}/{task.id}")
            if task.id in before:
                own.attempts, own.error = before[task.id]["attempts"], before[task.id]["error"]
            if (record := plan.finished(task, results)) is not None:
                own.done(record.wall_s, record.sessions)
            self.tasks[task.id] = own
        self._written = -math.inf

    def count(self, state: str) -> int:
        """How many tasks are in that state."""
        return sum(task.state == state for task in self.tasks.values())

    @property
    def failed(self) -> list[TaskState]:
        """Tasks that failed for good."""
        return [task for task in self.tasks.values() if task.state == "failed"]

    def to_json(self, status: str) -> dict[str, Any]:
        """The content of the file; `status` is running, finished, failed or interrupted."""
        return {
            "schema": SCHEMA,
            "id": self.plan.id,
            "experiment": self.plan.experiment.name,
            "preset": self.preset,
            "status": status,
            **attributes(self.plan, "swept seeds settings"),
            "tasks": [asdict(task) for task in self.tasks.values()],
            **attributes(self, "started finished sessions"),
            "versions": provenance.package_versions(),
            "commit": self.commit,
        }

    def save(self, status: str = "running", now: bool = True) -> None:
        """Write the file; with `now` false at most once a second."""
        if now or time.monotonic() - self._written >= _WRITE_EVERY_S:
            if status != "running":
                self.finished = _now()
            write_json(self.path, self.to_json(status))
            self._written = time.monotonic()


def _read(path: Path) -> dict[str, Any] | None:
    """The file as an earlier session left it; None if there is none that can be read: then only attempts are lost."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = [(task["id"], task["error"], task["attempts"] + 0) for task in content["tasks"]]
        whole = all(isinstance(text, str) for id, error, _ in kept for text in (id, error, content["started"]))
        return content if whole and content["schema"] == SCHEMA and content["sessions"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
