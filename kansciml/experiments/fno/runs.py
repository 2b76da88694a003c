"""Trains neural operators. Entry point: `run_jobs`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from kansciml.experiments.fno.config import SamplesConfig
from kansciml.experiments.fno.data import SHOWN, Samples, make, read_split, resampled
from kansciml.experiments.fno.jobs import FnoJob
from kansciml.experiments.fno.record import OperatorRow
from kansciml.experiments.fno.steps import Encoded, Epoch, RelativeError, errors, mean_error, predictions, share
from kansciml.experiments.minibatch.trainings import Outcome, Steps, Trained, Trainer
from kansciml.runs.experiment import RunContext
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.training.loop import TrainResult

CURVES = {"test_error": "eval_relative_l2"}
"""Name of a curve in the record, and of its column in the loop's history."""


def run_jobs(jobs: Sequence[FnoJob], context: RunContext) -> Trained[OperatorRow]:
    """Train what is not trained yet, and collect the rows.

    Raises:
        UsageError: two jobs of one name, or no job; settings or data that do not fit.
        KansciError: data that cannot be had, memory that ran out.
        KeyboardInterrupt: after the training was saved.
    """
    return OperatorTrainer(context).run(jobs)


class OperatorTrainer(Trainer[FnoJob, Samples, OperatorRow]):
    """Trains neural operators by the relative L2 error, and tests them after each epoch, at the end at all sizes."""

    unit, monitor, monitor_mode, shown = "samples", "relative_l2", "min", "test"
    curves = CURVES
    row = OperatorRow

    def data(self, job: FnoJob) -> Samples:
        for factor in job.data.eval_subsamples:  # what cannot be had is said before anything is trained
            self._tests(job.data.at(factor))
        return self.once(job.data, lambda: Samples.load(job.data, self.context.progress, self.context.log))

    def _tests(self, config: SamplesConfig) -> DarcyData:
        """Test samples alone."""
        config = config.for_tests()

        def load() -> DarcyData:
            make(config, self.context.progress, self.context.log)
            return read_split(config, "test")

        return self.once(config, load)

    def steps(self, job: FnoJob, data: Samples, device: torch.device) -> Steps:
        of_a, of_u = data.normalisers
        loss = RelativeError(of_u, device)
        train, test = Encoded(data.train, of_a, device), Encoded(share(data.test), of_a, device)
        return Steps(
            batches=lambda epoch: Epoch(train, job.training.batch_size, job.seed, epoch),
            loss=loss,
            evaluate=lambda module: {"relative_l2": mean_error(module, test, loss)},
        )

    def outcome(self, job: FnoJob, data: Samples, network: nn.Module, result: TrainResult) -> Outcome:
        device = next(network.parameters()).device

        def errors_of(samples: DarcyData) -> np.ndarray:
            """Relative L2 error of each sample, at its own resolution, (N,) float64."""
            of_a, of_u = (resampled(one, samples.size) for one in data.normalisers)
            found = errors(network, Encoded(samples, of_a, device), RelativeError(of_u, device))
            return found.double().cpu().numpy()

        others = (self._tests(job.data.at(factor)) for factor in job.data.eval_subsamples)
        found = {samples.size: errors_of(samples) for samples in (data.test, *others)}
        means = {str(size): float(own.mean()) for size, own in found.items()}
        values = {
            "data": job.data.name,
            "residual": job.network.residual,
            "relative_l2": means[str(data.test.size)],
            "relative_l2_at": means,
        }
        of_a, of_u = data.normalisers
        shown = predictions(network, Encoded(data.test, of_a, device), RelativeError(of_u, device), SHOWN)
        arrays = {f"errors.{size}": own for size, own in found.items()}
        return Outcome(values, float(errors_of(data.minimum).mean()), arrays | {"prediction": shown})
