"""Shared by the commands that run experiments: presets, flags, running, pictures, tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from kansciml._errors import UsageError
from kansciml.commands._output import Output, experiment_arguments, parse, take_option
from kansciml.experiments._base import Experiment, run_experiment
from kansciml.reporting.records import Record


def run_from_flags(
    experiment: Experiment,
    arguments: Sequence[str],
    out: Output,
    command: str,
    adjust: Callable[[Any, Output], Any] | None = None,
    default: str | None = None,
) -> int:
    """Parse ``--preset`` and the experiment's own flags, run or resume it, write pictures, print the tables.

    Args:
        adjust: changes the configuration before it is run, e.g. to replace ``auto`` by what was found.
        default: preset used when none is named; None: the defaults of the configuration.
    """
    preset, rest = take_option(arguments, "--preset")
    preset = preset or default
    config = experiment.preset(preset) if preset else experiment.config()
    parsed = parse(experiment_arguments(config), rest, command)
    flags, config = parsed.flags, parsed.config
    if flags.workers is not None:
        if flags.workers < 1:
            raise UsageError(f"got --workers {flags.workers}: expected at least 1")
        os.environ["KANSCIML_WORKERS"] = str(flags.workers)
    if adjust is not None:
        config = adjust(config, out)
    record = run_experiment(experiment, config, results=flags.results, force=flags.force, log=out.log)
    return report(experiment, record, out)


def report(experiment: Experiment, record: Record, out: Output, render: bool = False) -> int:
    """Write the pictures that are missing (all with `render`), and print the tables and where everything is."""
    pictures = sorted(record.folder.glob("*.svg"))
    if render or not pictures:
        written = experiment.render(record, record.folder)
    else:
        written = sorted(path for path in record.folder.iterdir() if path.suffix in (".svg", ".png", ".md"))
    document = record.to_json()
    document["files"] = [str(path) for path in written]
    shown = [path.name for path in written if path.suffix in (".svg", ".md")]
    lines = [f"results: {record.folder}", f"pictures and tables there: {', '.join(shown)}"]
    out.result(document, experiment.tables(record), lines)
    runs = record.result.get("runs", [])
    diverged = [run for run in runs if run.get("status") == "diverged"]
    for run in diverged:
        out.log(f"{run['id']}: {run['message']}; its best parameters were kept")
    return 1 if runs and len(diverged) == len(runs) else 0
