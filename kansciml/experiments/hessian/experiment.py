"""Sharpness of the trained models of a finished run: Hessian spectra, KAN against MLP, by many measures.

Command: ``kansciml hessian RUN``; the results are in ``RUN/hessian/<hash>/``. The hash covers the settings, and the
run's own record and arrays, so that a run trained anew is measured anew; which models were asked for is not in it:
others are added to those measured before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from kansciml._errors import UsageError
from kansciml.experiments.hessian.measure import HessianSettings, company, is_measured, measure
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.hessian.report import render, tables
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import Record, load_record
from kansciml.runs.registry import trained_models
from kansciml.runs.settings import part
from kansciml.runs.trained import TrainedModel, chosen_models


@dataclass(frozen=True)
class HessianConfig:
    """Settings of `kansciml hessian`."""

    run: Path = field(default=Path(), compare=False)
    """Folder of a finished run."""
    models: tuple[str, ...] = field(default=(), compare=False)
    """Only models of these names, groups (mlp, kan-width ...) or tasks; default: all."""
    settings: HessianSettings = part(HessianSettings())

    def inputs(self) -> str:
        """Hash of the run's record and arrays; empty where there is no run."""
        files = [path for name in ("record.json", "arrays.npz") if (path := self.run / name).is_file()]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else ""

    def chosen(self) -> list[TrainedModel]:
        """The models to measure.

        Raises:
            UsageError: no run is named, or an unknown model. KansciError: no finished run with trained models there.
        """
        if self.run == Path():
            raise UsageError("hessian wants the folder of a finished run: give --run, such as results/ode/1a2b3c4d5e6f")
        return chosen_models(trained_models(load_record(self.run)), self.models)


def covers(config: HessianConfig, record: Record) -> bool:
    """Whether all models that are asked for were measured."""
    return {one.name for one in config.chosen()} <= {one.name for one in HessianRecord.read(record).models}


@company()
def run(config: HessianConfig, context: RunContext) -> Result:
    """Measure the models that are asked for; those measured before stay in the result."""
    wanted = {one.name for one in config.chosen()}
    source = load_record(config.run)
    ranks.call()
    every = trained_models(source)
    names = ranks.agree([m.name for m in every if m.name in wanted or is_measured(context.checkpoints, m)])
    models = [one for one in every if one.name in names]
    return measure(models, config.settings, context, context.checkpoints, source.config_hash).to_result()


EXPERIMENT = Experiment(
    name="hessian",
    title="Sharpness of a run's minima: Hessian spectra, KAN against MLP",
    item="Section 2.2",
    config=HessianConfig,
    presets={"smoke": HessianConfig(settings=HessianSettings(steps=10, probes=2, samples=64))},
    run=run,
    render=render,
    summary=tables,
    check=HessianConfig.chosen,
    covers=covers,
)
