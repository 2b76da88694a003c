"""An experiment whose work spreads over the processes of torchrun: the first one runs the command, all do the work."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kansciml.commands._experiments import flags_and_config, run_from_flags
from kansciml.commands._output import Output
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, RunContext
from kansciml.runs.progress import Progress
from kansciml.runs.runner import result_folder


def run_on_ranks(experiment: Experiment, arguments: Sequence[str], out: Output, command: str) -> int:
    """As `run_from_flags`, on all processes of torchrun."""

    def asked() -> tuple[Any, Path]:
        flags, config = flags_and_config(experiment, arguments, command)
        return config, result_folder(experiment, config, flags.results)

    return on_ranks(experiment, lambda: run_from_flags(experiment, arguments, out, command), asked)


def on_ranks(experiment: Experiment, lead: Callable[[], int], asked: Callable[[], tuple[Any, Path]]) -> int:
    """The exit code of `lead`; under torchrun the first process alone calls it, and the others run along in silence.

    `experiment.run` has to call `ranks.call` before its first collective work, as `vision.runs.run_jobs` does.

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
