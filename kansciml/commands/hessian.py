"""``kansciml hessian RUN``: how sharp the minima of a run's models are, KAN against MLP, by many measures.

With several processes: ``torchrun --nproc-per-node 4 -m kansciml hessian RUN --exact never`` splits the probes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from kansciml.commands._output import JsonFlag, Output, named_first, parse

SUMMARY = "sharpness of a run's minima: Hessian spectra, KAN against MLP: kansciml hessian results/ode/..."


def _arguments() -> type:
    """The flags. Made when called: tyro is slow to import, and the settings load torch."""
    import tyro

    from kansciml.experiments.hessian.measure import HessianSettings

    @dataclasses.dataclass(frozen=True)
    class Where(JsonFlag):
        """Which models, and where the results go."""

        models: tuple[str, ...] = ()
        """Only models of these names, groups (mlp, kan-width ...) or tasks; default: all."""
        out: Path | None = None
        """Folder of the results (default: the folder hessian in the run's own)."""
        force: bool = False
        """Measure again what has been measured."""

    run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Folder of a finished run.")]
    fields = [
        ("run", run, dataclasses.field(default=Path())),
        ("settings", HessianSettings, dataclasses.field(default=HessianSettings())),
        ("where", Where, dataclasses.field(default=Where())),
    ]
    made = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    made.__doc__ = "Hessian spectra and sharpness of the trained models of a finished run."
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    """Under torchrun the first process reads the flags, writes and prints; the others measure with it."""
    named_first(arguments, "hessian wants the folder of a finished run first, such as results/ode/1a2b3c4d5e6f")
    from kansciml.commands._experiments import on_ranks, report
    from kansciml.experiments.hessian.experiment import EXPERIMENT, HessianConfig
    from kansciml.runs.runner import run_experiment
    from kansciml.runs.settings import config_hash

    def asked() -> tuple[HessianConfig, Path, bool]:
        options: Any = parse(_arguments(), arguments, "hessian")
        config = HessianConfig(options.run, options.where.models, options.settings)
        folder = (options.where.out or options.run / EXPERIMENT.name) / config_hash(EXPERIMENT.name, config)
        return config, folder, options.where.force

    def lead() -> int:
        config, folder, force = asked()
        return report(EXPERIMENT, run_experiment(EXPERIMENT, config, folder=folder, force=force), out)

    return on_ranks(EXPERIMENT, lead, lambda: asked()[:2])
