"""``kansciml sweep EXPERIMENT``: every combination of settings and every seed, on this machine or on many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml._errors import UsageError
from kansciml._workers import processors, worker_count
from kansciml.commands._output import JsonFlag, Output, named_first, parse, take_option

if TYPE_CHECKING:
    from kansciml.sweep.plan import SweepPlan, SweepState

SUMMARY = "settings times seeds, resumable: kansciml sweep fig2 --seeds 20 --set grid=3,5,10"
EXAMPLES = (
    "kansciml sweep ode --preset smoke --set grid=3,5,10 --seeds 4 --set backend=torch",
    'kansciml sweep fig2 --seeds 20 --set "hidden=50;10,10" --dry-run  # lists the tasks',
)


@dataclass(frozen=True)
class Flags(JsonFlag):
    """Run an experiment with every combination of settings and every seed; finished runs are not repeated.

    Settings are those of `kansciml run EXPERIMENT --help`, by their dotted names (training.adam_steps) or the last part
    alone (adam_steps). Values that are lists are separated by semicolons: --set "hidden=50;10,10".
    """

    preset: str | None = None
    """smoke (seconds), small (minutes to hours) or paper: where the settings that are not swept start from."""
    seeds: str | None = None
    """How many seeds (20), or which ones (0,3,7); default: those of the preset."""
    results: Path = Path("results")
    """Folder of all results."""
    workers: int | None = None
    """Tasks at a time on this machine (default: the processors)."""
    scheduler: str = "local"
    """local, or the address of a Dask scheduler (tcp://host:8786) whose workers see the results folder."""
    retries: int = 2
    """How often a task that failed is started again."""
    dry_run: bool = False
    """List the tasks and what there is of them; run nothing."""
    set: tuple[str, ...] = ()
    """A setting and its values, NAME=V1,V2; may be repeated."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.runs.registry import available_experiments, get_experiment
    from kansciml.sweep.plan import make_plan, parse_settings
    from kansciml.sweep.session import LOCAL, run_sweep

    name, rest = named_first(arguments, f"sweep wants an experiment: one of {', '.join(available_experiments())}")
    if not name:
        parse(Flags, ["--help"], "sweep EXPERIMENT", repeated=True)  # ends the program
    preset, rest = take_option(rest, "--preset")
    experiment = get_experiment(name)
    options = parse(Flags, rest, f"sweep {name}", repeated=True)
    if options.workers is not None and options.scheduler != LOCAL:
        raise UsageError("got --workers with --scheduler: the scheduler's workers do the work, leave --workers out")
    if options.workers is not None:
        worker_count(options.workers, "--workers")
    if options.retries < 0:
        raise UsageError(f"got --retries {options.retries}: expected at least 0")
    base = experiment.preset(preset) if preset else experiment.config()
    swept = parse_settings(experiment.config, options.set)
    plan = make_plan(experiment, base, swept, options.seeds)
    if len(experiment.choices(base)) > 1 and "backend" not in {name.rpartition(".")[2] for name in swept}:
        out.log("backend: torch, which every machine has; --set backend=julia takes Julia")
    if options.dry_run:
        return _list(plan, options.results, out)
    state = run_sweep(
        plan,
        results=options.results,
        workers=options.workers or processors(),
        scheduler=options.scheduler,
        retries=options.retries,
        preset=preset,
    )
    return _report(plan, state, options.results, out)


def _list(plan: SweepPlan, results: Path, out: Output) -> int:
    from kansciml.runs.settings import settings_json
    from kansciml.runs.tables import Table
    from kansciml.sweep.plan import value_label

    rows, documents = [], []
    for task in plan.tasks:
        folder = results / plan.experiment.name / task.id
        begun = os.path.lexists(folder / "record.json")
        state = "finished" if plan.finished(task, results) else "to be resumed" if begun else "to be run"
        rows.append([*map(value_label, task.setting.values()), task.seed, state, str(folder)])
        one = {"setting": task.setting, "seed": task.seed, "state": state, "folder": folder}
        documents.append(one | {"config": settings_json(task.config)})
    finished = [one for one in documents if one["state"] == "finished"]
    title = f"Sweep of {plan.experiment.name}: {len(plan.tasks)} tasks, {len(finished)} of them finished"
    table = Table(title, [*plan.swept, "seed", "state", "folder"], rows)
    out.result({"id": plan.id, "experiment": plan.experiment.name, "tasks": documents}, [table])
    return 0


def _report(plan: SweepPlan, state: SweepState, results: Path, out: Output) -> int:
    """Write and print the summary, and name what failed."""
    from kansciml.runs.records import load_record
    from kansciml.sweep.table import SweepRun, save_sweep

    runs = []
    for task in state.tasks.values():
        record = load_record(results / task.folder) if task.state == "done" else None
        runs.append(SweepRun(plan.settings[task.setting], record, "" if record else task.error))
    folder = plan.folder(results)
    table, files = save_sweep(folder, plan.experiment.name, runs)
    document = state.to_json("failed" if state.failed else "finished")
    document |= {"folder": folder, "summary": table.to_json(), "files": files}
    shown = ", ".join(path.name for path in files if path.suffix != ".png")
    lines = [f"sweep: {folder}", f"summary there: {shown}", f"tasks: {state.count('done')} of {len(state.tasks)} done"]
    out.result(document, [table], lines)
    for task in state.failed:
        out.log(f"failed: {plan.label(task.setting, task.seed)}: {task.error}")
    if state.failed:
        out.log(f"{len(state.failed)} of {len(state.tasks)} tasks failed; logs in {folder / 'logs'}, and the same "
                "command tries them again")  # fmt: skip
    return 1 if state.failed else 0
