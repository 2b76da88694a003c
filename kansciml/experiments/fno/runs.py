"""Trains neural operators by the relative L2 error, and tests them after each epoch, at the end at all sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.experiments.fno.config import SamplesConfig
from kansciml.experiments.fno.jobs import SHOWN, FnoJob, Samples, make, read_split
from kansciml.experiments.fno.record import OperatorRow
from kansciml.experiments.minibatch.trainings import Epoch, Steps, Trainer
from kansciml.runs import ranks
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.tasks.darcy.metrics import relative_l2
from kansciml.tasks.darcy.normalise import PointwiseNormaliser
from kansciml.training.loop import TrainResult

POINTS = 2**17
"""Points of all samples of one batch of an evaluation together, at most."""

Batch = tuple[Tensor, Tensor]
"""Normalised coefficients (B, 1, s, s) and solutions (B, s, s)."""


class Encoded:
    """Samples on a device, with normalised coefficients."""

    def __init__(self, data: DarcyData, of_a: PointwiseNormaliser, device: torch.device | str = "cpu") -> None:
        self.a = torch.from_numpy(of_a.encode(data.a))[:, None].to(device)
        self.u = torch.from_numpy(data.u).to(device)

    def __len__(self) -> int:
        return len(self.u)

    def batches(self, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Those of an epoch from the `first` on, in an order of its own; an incomplete one at the end is left out."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for rows in torch.from_numpy(order).to(self.u.device).split(batch_size)[first : len(self) // batch_size]:
            yield self.a[rows], self.u[rows]


class RelativeError:
    """Mean relative L2 error of the solutions, in their own units: the network's output is brought back to them."""

    def __init__(self, of_u: PointwiseNormaliser, device: torch.device | str = "cpu") -> None:
        self.of_u = of_u.to_torch(device)

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        a, u = batch
        return relative_l2(self.predict(module, a), u), {"count": len(u)}

    def predict(self, module: nn.Module, a: Tensor) -> Tensor:
        """Solutions (B, s, s) for normalised coefficients."""
        return self.of_u.decode(module(a)[:, 0])


def errors_at(
    module: nn.Module,
    data: DarcyData,
    normalisers: Sequence[PointwiseNormaliser],
    batch_size: int | None = None,
) -> np.ndarray:
    """Relative L2 error of each sample, (N,) float64, by `normalisers` of a and of u, brought to its resolution."""
    device = next(module.parameters()).device
    of_a, of_u = (one.resampled(data.size) for one in normalisers)
    return errors(module, Encoded(data, of_a, device), RelativeError(of_u, device), batch_size).double().cpu().numpy()


@torch.inference_mode()
def errors(module: nn.Module, samples: Encoded, loss: RelativeError, batch_size: int | None = None) -> Tensor:
    """Relative L2 error of each sample, (N,), of `module` in eval mode and in the type of its weights."""
    if not len(samples):  # a process's share of few
        return samples.u.new_zeros(0)
    module.eval()
    like = next(module.parameters())
    size = batch_size or max(1, POINTS // samples.u[0].numel())
    pairs = zip(samples.a.split(size), samples.u.split(size))
    return torch.cat([relative_l2(loss.predict(module, a.to(like)), u, "none") for a, u in pairs])


@torch.inference_mode()
def predictions(module: nn.Module, samples: Encoded, loss: RelativeError, n: int) -> np.ndarray:
    """Solutions (n, s, s) of the first n samples."""
    module.eval()
    like = next(module.parameters())
    return torch.cat([loss.predict(module, a.to(like)) for a in samples.a[:n].split(1)]).float().cpu().numpy()


def mean_error(module: nn.Module, samples: Encoded, loss: RelativeError) -> float:
    """Mean of `errors` over all processes, each of which has its own share of `samples`."""
    found = errors(module, samples, loss).cpu().double()
    total = torch.stack([found.sum(), found.new_tensor(float(len(found)))])
    if ranks.size() > 1:
        torch.distributed.all_reduce(total)
    return (total[0] / total[1]).item()


def share(data: DarcyData) -> DarcyData:
    """This process's samples."""
    rows = slice(ranks.rank(), None, ranks.size())
    return DarcyData(data.a[rows], data.u[rows], data.source)


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
        found = {one.size: errors_at(network, one, data.normalisers) for one in (data.test, *others)}
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
