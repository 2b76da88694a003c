"""What a sweep consists of: every combination of swept settings, and every seed of each, as tasks of their own."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError, check_seed
from kansciml._files import to_jsonable
from kansciml.runs.config_json import (
    get_setting,
    is_tuple_setting,
    parse_setting,
    path_settings,
    setting_name,
    setting_types,
    with_settings,
)
from kansciml.runs.experiment import Experiment
from kansciml.runs.runner import is_finished
from kansciml.runs.settings import MAX_SEEDS, config_hash, seed_range

NO_SETTINGS = "as given"
SEED_SETTINGS = ("seeds", "first_seed", "seed")


@dataclass(frozen=True)
class SweepTask:
    """One run of the experiment.

    Args:
        id: the hash of its configuration, which names its folder.
        setting: dotted name -> value of the swept settings. setting_index: which of the plan's settings.
        seed: None for an experiment without seeds.
        config: the whole configuration.
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
        experiment: what is run. package: where it was found.
        swept: dotted name -> its values, in the order given.
        settings: every combination of them; one empty one where nothing is swept.
        seeds: empty for an experiment without seeds.
        tasks: one per setting and seed.
    """

    experiment: Experiment
    package: str
    swept: dict[str, list[Any]]
    settings: list[dict[str, Any]]
    seeds: tuple[int, ...]
    tasks: list[SweepTask]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that are equal exactly if the experiment, the settings and the tasks are."""
        content = to_jsonable([self.experiment.name, self.swept, sorted(task.id for task in self.tasks)])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, results: str | Path) -> Path:
        """The sweep's own folder, beside the runs."""
        return Path(results) / "sweeps" / self.id

    def finished(self, results: str | Path) -> set[str]:
        """Ids of the tasks with a finished record below `results`. A damaged record is none: its task will say so."""
        found = set()
        for task in self.tasks:
            try:
                if is_finished(self.experiment, task.config, results):
                    found.add(task.id)
            except KansciError:
                continue
        return found


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
    seeds: str | Sequence[int] | None = None,
    package: str = "kansciml.experiments",
) -> SweepPlan:
    """The tasks of a sweep of `experiment` about the configuration `base`; nothing is run or written.

    Args:
        swept: dotted name -> values. seeds: as for `parse_seeds`, or the seeds; None: those of `base`.

    Raises:
        UsageError: a setting that the experiment refuses, seeds of an experiment without, two tasks that are the same
            run, or a backend ``auto``, which could be another one on another machine.
    """
    chosen = _seeds(experiment, base, seeds)
    settings = [dict(zip(swept, values)) for values in itertools.product(*swept.values())]
    tasks: list[SweepTask] = []
    labels: dict[str, str] = {}
    for index, setting in enumerate(settings):
        config = _checked(experiment, base, setting)
        for seed in chosen or (None,):
            own = config if seed is None else with_settings(config, _seed_settings(config, seed))
            task = SweepTask(config_hash(experiment.name, own), setting, index, seed, own)
            if task.id in labels:
                raise UsageError(
                    f"{setting_label(setting)} is the same run as {labels[task.id]}: results would lie in one folder; "
                    "leave one out"
                )
            labels[task.id] = setting_label(setting)
            tasks.append(task)
    return SweepPlan(
        experiment, package, {name: list(values) for name, values in swept.items()}, settings, chosen, tasks
    )


def _checked(experiment: Experiment, base: Any, setting: Mapping[str, Any]) -> Any:
    """The configuration of a setting, which the experiment would accept."""
    try:
        config = with_settings(base, setting)
        if getattr(config, "backend", None) == "auto":
            raise UsageError("got backend auto, which can differ between processes: add --set backend=torch (or julia)")
        experiment.accept(config)
    except UsageError as error:
        where = f"{setting_label(setting)}: " if setting else ""
        raise UsageError(f"{where}{error}") from error
    return config


def _seeds(experiment: Experiment, base: Any, seeds: str | Sequence[int] | None) -> tuple[int, ...]:
    names = setting_types(type(base))
    if "seeds" not in names and "seed" not in names:
        if seeds is not None:
            raise UsageError(f"{experiment.name} has no seeds: leave out --seeds")
        return ()
    if isinstance(seeds, str):
        return parse_seeds(seeds, getattr(base, "first_seed", 0))
    if seeds is not None:
        return tuple(seeds)
    return tuple(seed_range(base)) if "seeds" in names else (get_setting(base, "seed"),)


def _seed_settings(config: Any, seed: int) -> dict[str, int]:
    """What makes `config` a run of that seed alone."""
    names = setting_types(type(config))
    return {"seeds": 1, "first_seed": seed} if "seeds" in names else {"seed": seed}


def with_paths(task: SweepTask, root: Path) -> SweepTask:
    """The task with its paths made absolute from `root`, for processes that start elsewhere."""
    moved = {}
    for name in path_settings(task.config):
        value = get_setting(task.config, name)
        many = value if isinstance(value, tuple) else (value,)
        made = tuple(type(one)(str(root / one)) if (root / one).exists() else one for one in many)
        moved[name] = made if isinstance(value, tuple) else made[0]
    return replace(task, config=with_settings(task.config, moved)) if moved else task
