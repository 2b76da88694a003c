"""``kansciml hessian RUN``: how sharp the minima of a run's models are, KAN against MLP, by many measures.

With several processes: ``torchrun --nproc-per-node 4 -m kansciml hessian RUN --exact never`` splits the probes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kansciml.commands._output import Output, flags_of, named_first, parse

SUMMARY = "sharpness of a run's minima, KAN against MLP, by many measures: kansciml hessian ode"
EXAMPLES = (
    "kansciml hessian ode  # the latest run of kansciml ode: its summary and the first measures",
    "kansciml hessian ode-00476e --all  # every measure of every model",
    "kansciml hessian vision --models mlp --samples 64 --steps 20 --probes 2  # a quick look",
)


def _flags() -> Any:
    """Made when called: the settings load torch."""
    from kansciml.commands._named import NamedFlags
    from kansciml.experiments.hessian.measure import HessianSettings

    @dataclasses.dataclass(frozen=True)
    class Choice:
        """Which models, what is shown, and where the results go."""

        models: tuple[str, ...] = ()
        """Only models of these names, groups (mlp, kan-width ...) or tasks; default: all."""
        all: bool = False
        """Print every measure of every model, not only the first of those compared."""
        out: Path | None = None
        """Folder of the results (default: the folder hessian in the run's own)."""
        force: bool = False
        """Measure again what has been measured."""

    doc = "Hessian spectra and sharpness of the trained models of a finished run."
    return flags_of(doc, settings=HessianSettings(), choice=Choice(), where=NamedFlags())


def main(arguments: Sequence[str], out: Output) -> int:
    """Under torchrun the first process reads the flags, writes and prints; the others measure with it."""
    name, rest = named_first(arguments, "hessian wants a finished run first: its folder, or its name, such as ode")
    from kansciml.commands._experiments import on_ranks, report
    from kansciml.commands._named import run_named
    from kansciml.experiments.hessian.experiment import EXPERIMENT, HessianConfig
    from kansciml.experiments.hessian.report import brief
    from kansciml.runs.runner import run_experiment
    from kansciml.runs.settings import config_hash

    options: Any = parse(_flags(), rest, "hessian RUN")

    def asked(log: Callable[[str], None] = lambda line: None) -> tuple[HessianConfig, Path]:
        run = run_named(name, options.where.results, log).folder
        config = HessianConfig(run, options.choice.models, options.settings)
        return config, (options.choice.out or run / EXPERIMENT.name) / config_hash(EXPERIMENT.name, config)

    def lead() -> int:
        config, folder = asked(out.log)
        record = run_experiment(EXPERIMENT, config, folder=folder, force=options.choice.force)
        return report(EXPERIMENT, record, out, show=None if options.choice.all else brief)

    return on_ranks(EXPERIMENT, lead, asked)
