"""An experiment whose trainings spread over the processes of torchrun: the first one runs the command, all train."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from kansciml.commands._experiments import flags_and_config, run_from_flags
from kansciml.commands._output import Output
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, RunContext
from kansciml.runs.progress import Progress
from kansciml.runs.runner import result_folder


def run_on_ranks(experiment: Experiment, arguments: Sequence[str], out: Output, command: str) -> int:
    """As `run_from_flags`; under torchrun the first process alone writes and prints, and the others train with it.

    `experiment.run` has to call `ranks.call` before its first collective work, as `_vision_runs.run_jobs` does.
    """
    if ranks.size() == 1:
        return run_from_flags(experiment, arguments, out, command)
    ranks.join()
    if ranks.rank() == 0:
        try:
            code = run_from_flags(experiment, arguments, out, command)
        finally:
            ranks.send_home()
        ranks.end(code)
    if not ranks.called():
        ranks.end(0)
    flags, config = flags_and_config(experiment, arguments, command)
    folder = result_folder(experiment, config, flags.results)
    silent = Progress(io.StringIO(), live=False, interval_s=math.inf)
    experiment.run(config, RunContext(folder, silent, lambda line: None))
    ranks.end(0)
