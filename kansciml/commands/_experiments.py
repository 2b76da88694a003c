"""Shared by the commands that run experiments: presets, flags, running, pictures, tables."""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kansciml._workers import WORKERS_VARIABLE, worker_count
from kansciml.commands._output import Output, RunFlags, flags_of, parse, take_option
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, RunContext
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.runner import resolved, result_folder, run_experiment
from kansciml.runs.settings import settings_json
from kansciml.runs.tables import Table


def run_from_flags(experiment: Experiment, arguments: Sequence[str], out: Output, command: str) -> int:
    """Parse ``--preset`` and the experiment's own flags, run or resume it, write pictures, print the tables."""
    flags, config = flags_and_config(experiment, arguments, command)
    use_workers(flags.workers)
    config = resolved(experiment, config, flags.results, flags.force, out.log)
    record = run_experiment(experiment, config, results=flags.results, force=flags.force, log=out.log)
    return report(experiment, record, out)


def flags_and_config(experiment: Experiment, arguments: Sequence[str], command: str) -> tuple[RunFlags, Any]:
    """What the arguments say; the settings that they leave out are those of ``--preset``, or the defaults."""
    preset, rest = take_option(arguments, "--preset")
    config = experiment.preset(preset) if preset else experiment.config()
    kind: Any = flags_of(None, config=config, flags=RunFlags())
    try:
        parsed = parse(kind, rest, command)
    except SystemExit:  # help was asked for
        print(f"\n{presets_told(experiment)}")
        raise
    return parsed.flags, parsed.config


def presets_told(experiment: Experiment) -> str:
    """What each preset takes, and the flags that it stands for; for the help."""
    defaults = dict(_flat(settings_json(experiment.config())))
    lines = ["presets (--preset NAME; flags beside it change single settings):"]
    for name, config in experiment.presets.items():
        own = [(key, value) for key, value in _flat(settings_json(config)) if value != defaults[key]]
        flags = " ".join(f"--{key.replace('_', '-')} {value}".rstrip() for key, value in own) or "the defaults"
        cost = experiment.costs.get(name, "seconds" if name == "smoke" else "")
        told = f"{cost}: {flags}" if cost else flags
        lines += textwrap.wrap(
            told, 98, initial_indent=f"  {name:<7} ", subsequent_indent=" " * 10, break_on_hyphens=False
        )
    return "\n".join(lines)


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of every setting, as a flag has them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, " ".join(map(str, value)) if isinstance(value, list) else str(value)


def use_workers(workers: int | None) -> None:
    """Have everything that follows take this many worker processes, or (None) as many as the environment says.

    Raises:
        UsageError: it is none.
    """
    os.environ[WORKERS_VARIABLE] = str(worker_count(workers, "--workers"))


def report(
    experiment: Experiment,
    record: Record,
    out: Output,
    render: bool = False,
    show: Callable[[Record], list[Table]] | None = None,
) -> int:
    """Write the pictures that are missing (all with `render`), and print the tables (of `show`, if given) and where
    everything is."""
    written, tables = experiment.draw(record, anew=render), (show or experiment.tables)(record)
    document = record.to_json()
    document["files"] = [str(path) for path in written]
    shown = [path.name for path in written if path.suffix in (".svg", ".md")]
    lines = [f"results: {record.folder}", f"pictures and tables there: {', '.join(shown)}"]
    out.result(document, tables, lines)
    runs = record.result.get("runs", [])
    diverged = [run for run in runs if run.get("status") == "diverged"]
    for run in diverged:
        kept = "" if "kept" in run["message"] else "; its best parameters were kept"
        out.log(f"{run['id']}: {run['message']}{kept}")
    return 1 if runs and len(diverged) == len(runs) else 0


def run_on_ranks(experiment: Experiment, arguments: Sequence[str], out: Output, command: str) -> int:
    """As `run_from_flags`, on all processes of torchrun."""

    def asked() -> tuple[Any, Path]:
        flags, config = flags_and_config(experiment, arguments, command)
        return config, result_folder(experiment, config, flags.results)

    return on_ranks(experiment, lambda: run_from_flags(experiment, arguments, out, command), asked)


def on_ranks(experiment: Experiment, lead: Callable[[], int], asked: Callable[[], tuple[Any, Path]]) -> int:
    """The exit code of `lead`; under torchrun the first process alone calls it, and the others run along in silence.

    `experiment.run` has to call `ranks.call` before its first collective work, as `Trainer.run` does.

    Args:
        asked: configuration and folder of the results, for the others.
    """
    if ranks.size() == 1:
        return lead()
    ranks.join()
    if ranks.rank() == 0:
        try:
            code = lead()
        finally:
            ranks.send_home()
        ranks.end(code)
    if ranks.called():
        config, folder = asked()
        silent = Progress(io.StringIO(), live=False, interval_s=math.inf)
        experiment.run(config, RunContext(folder, silent, lambda line: None))
    ranks.end(0)
