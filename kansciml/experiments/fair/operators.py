"""Darcy flow by neural operators on equal terms: networks of every size, their trainings, and the time of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kansciml.analysis.matching import mixing_flops
from kansciml.experiments.fair.config import DARCY, LAYERS, FairConfig
from kansciml.experiments.fair.images import label, minibatch_step_times, mlps_size, named
from kansciml.experiments.fair.kinds import MLP, Metric, grown, grown_width, of_layer
from kansciml.experiments.fair.record import StepTimes, Trained
from kansciml.experiments.fair.step_times import stretched
from kansciml.experiments.fno.jobs import FnoJob
from kansciml.experiments.fno.jobs import jobs as fno_jobs
from kansciml.experiments.fno.record import OperatorRow
from kansciml.experiments.fno.runs import OperatorTrainer
from kansciml.models.fno import FNOConfig
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.settings import seed_range


class DarcyKind:
    """The samples of a configuration; see `kansciml.experiments.fair.kinds.Kind`."""

    name = DARCY
    tasks = (DARCY,)
    layers = LAYERS

    def __init__(self, config: FairConfig) -> None:
        self.config = config

    def title(self, task: str) -> str:
        size = self.config.darcy(MLP).operator.samples.darcy.size
        return f"Darcy flow, {size} x {size}, {self.config.darcy_model}"

    def metrics(self, task: str) -> tuple[Metric, ...]:
        return (Metric("relative_l2", "test relative L2", primary=True),)

    def jobs(self, groups: Callable[[str], Iterable[str]]) -> list[FnoJob]:
        made: dict[str, FnoJob] = {}
        for layer in self.config.layers:
            for group in groups(layer):
                if group not in made:
                    made[group] = named(self._job(group, layer), group)
                    made[group].sizes()
        return [replace(job, seed=seed) for job in made.values() for seed in seed_range(self.config)]

    def _job(self, group: str, layer: str) -> FnoJob:
        """Of the first seed; looking up models takes long enough not to do it for every one."""
        config = self.config
        for match in ("params", "flops"):
            if group == of_layer(layer, match):
                return fno_jobs(config.darcy(of_layer(layer), match))[0]
            if group == grown(layer, match):
                base = fno_jobs(config.darcy(MLP))[0]
                network = _grown(base, fno_jobs(config.darcy(of_layer(layer)))[0], match)
                return replace(base, network=network)
        return fno_jobs(config.darcy(MLP if group == MLP else of_layer(layer)))[0]

    def stretched(self, job: FnoJob, group: str, factor: float) -> FnoJob:
        epochs = stretched(job.training.epochs, factor)
        return named(replace(job, training=replace(job.training, epochs=epochs)), group)

    def task_of(self, job: FnoJob) -> str:
        return DARCY

    def group_of(self, job: FnoJob) -> str:
        return job.network.variant + (f"-{job.kind}" if job.kind else "")

    def train(self, jobs: Sequence[FnoJob], context: RunContext) -> tuple[Result, list[Trained]]:
        trained = OperatorTrainer(context).run(jobs)
        rows, result = zip(jobs, trained.rows), trained.result
        return result, [_trained(job, self.group_of(job), row, result) for job, row in rows]

    def step_times(
        self, kans: Sequence[FnoJob], mlps: Sequence[FnoJob], result: Result, context: RunContext
    ) -> StepTimes:
        """Of the first seed's networks with their first weights: a step's time does not depend on them."""
        return minibatch_step_times(OperatorTrainer(context), kans[0], mlps[0])


def _trained(job: FnoJob, group: str, row: OperatorRow, result: Result) -> Trained:
    seconds = result.arrays[f"{job.id}.train_s"]
    return Trained(
        id=job.id,
        task=DARCY,
        group=group,
        label=label(job.network),
        seed=job.seed,
        status=row.status,
        message=row.message,
        parameters=row.parameters,
        flops=row.ends_flops,
        steps=row.steps,
        seconds=float(seconds[-1]) if len(seconds) else 0.0,
        losses={"relative_l2": row.relative_l2 if not row.diverged else None},
    )


def _grown(mlp: FnoJob, kan: FnoJob, by: str) -> FNOConfig:
    """The MLPs' network with a projection widened until lift and projection are as large as the KANs."""

    wanted = kan.sizes()["ends_parameters"] if by == "params" else mixing_flops(kan.network) or 0.0

    def size(projection: int) -> float:
        return mlps_size(replace(mlp.network, projection=projection), by)

    return replace(mlp.network, projection=grown_width(size, wanted, mlp.network.projection))
