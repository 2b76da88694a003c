"""Trains neural operators by the relative L2 error, and tests them after each epoch, at the end at all sizes."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from kansciml.experiments.fno.config import SamplesConfig
from kansciml.experiments.fno.data import SHOWN, Samples, make, read_split
from kansciml.experiments.fno.jobs import FnoJob
from kansciml.experiments.fno.record import OperatorRow
from kansciml.experiments.fno.steps import Encoded, RelativeError, errors_at, mean_error, predictions, share
from kansciml.experiments.minibatch.trainings import Epoch, Steps, Trainer
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.training.loop import TrainResult


class OperatorTrainer(Trainer[FnoJob, Samples, OperatorRow]):
    """Trains neural operators."""

    row = OperatorRow
    unit, monitor, monitor_mode, shown = "samples", "relative_l2", "min", "test"
    curves: ClassVar = {"test_error": "eval_relative_l2"}

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
        loss, size = RelativeError(of_u, device), job.training.batch_size
        train, test = Encoded(data.train, of_a, device), Encoded(share(data.test), of_a, device)
        return Steps(
            batches=lambda epoch: Epoch(len(train) // size, partial(train.batches, size, job.seed, epoch)),
            loss=loss,
            evaluate=lambda module: {"relative_l2": mean_error(module, test, loss)},
        )

    def outcome(
        self, job: FnoJob, data: Samples, network: nn.Module, result: TrainResult
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        others = [self._tests(job.data.at(factor)) for factor in job.data.eval_subsamples]
        found = {one.size: errors_at(network, one, data.normalisers_at(one.size)) for one in (data.test, *others)}
        means = {str(size): float(own.mean()) for size, own in found.items()}
        columns = {
            "data": data.name,
            "residual": job.network.residual,
            "relative_l2": means[str(data.test.size)],
            "relative_l2_at": means,
            "minimum_loss": float(errors_at(network, data.minimum, data.normalisers).mean()),
        }
        of_a, of_u = data.normalisers
        device = next(network.parameters()).device
        shown = predictions(network, Encoded(data.test, of_a, device), RelativeError(of_u, device), SHOWN)
        return columns, {"prediction": shown, **{f"errors.{size}": own for size, own in found.items()}}
