"""What trainings of image classifiers and of neural operators share: records, resuming to the bit, weights, minima."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.minibatch import IMAGES, OPERATORS, assert_same, run
from support.settings import changed

from kansciml import KansciError, UsageError
from kansciml.experiments.fno import jobs as fno_jobs
from kansciml.experiments.fno.experiment import EXPERIMENT as FNO
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.runs import OperatorTrainer, RelativeError
from kansciml.experiments.minibatch.jobs import check_jobs
from kansciml.experiments.minibatch.trained import load_network
from kansciml.experiments.minibatch.trainings import Epoch
from kansciml.experiments.vision import jobs as vision_jobs
from kansciml.experiments.vision.experiment import EXPERIMENT as VISION
from kansciml.experiments.vision.record import VisionRecord
from kansciml.experiments.vision.runs import ImageTrainer, SmoothedLoss
from kansciml.runs import ranks
from kansciml.runs.registry import trained_models


@dataclass
class Kind:
    experiment: Any
    config: Any
    jobs: Any
    trainer: Any
    loss: type
    record_type: Any
    curves: tuple[str, ...]
    test_curve: str
    """The curve whose end is in the rows as `score`."""
    score: str
    batches: int
    """In an epoch."""
    data: str


KINDS = {
    "images": Kind(
        VISION, IMAGES, vision_jobs.jobs, ImageTrainer, SmoothedLoss, VisionRecord,
        ("accuracy", "test_loss", "test_top1", "test_top5", "images_per_s"), "test_loss", "loss", 3, "digits",
    ),
    "operators": Kind(
        FNO, OPERATORS, fno_jobs.jobs, OperatorTrainer, RelativeError, FnoRecord,
        ("test_error", "samples_per_s"), "test_error", "relative_l2", 2, "darcy15",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request, tmp_path_factory):
    one = KINDS[request.param]
    if request.param == "images":
        return one
    return replace(one, config=changed(one.config, data_dir=tmp_path_factory.mktemp("data"), eval_subsamples=()))


@pytest.fixture(scope="module")
def record(kind, tmp_path_factory):
    """MLP and KAN, two seeds."""
    return run(kind.experiment, changed(kind.config, seeds=2), tmp_path_factory.mktemp("results"))


def test_the_record_holds_rows_curves_and_weights(kind, record):
    rows = kind.record_type.read(record).rows
    assert [(row.group, row.seed) for row in rows] == [("mlp", 0), ("mlp", 1), ("kan-spline", 0), ("kan-spline", 1)]
    assert record.seeds == (0, 1)
    for row in rows:
        assert row.status == "finished" and row.epochs == 3 and row.steps == 3 * kind.batches
        for name in ("epoch", "step", "loss", "learning_rate", "train_s", *kind.curves):
            assert record.arrays[f"{row.id}.{name}"].shape == (3,)
        last = record.arrays[f"{row.id}.{kind.test_curve}"][-1]
        assert getattr(row, kind.score) == pytest.approx(last, rel=1e-12)  # the last epoch's weights
        network = load_network(record, row)
        assert row.parameters == sum(p.numel() for p in network.parameters())
        assert set(load_file(record.folder / row.weights)) == set(network.state_dict())
        per_s = row.images_per_s if kind is KINDS["images"] else row.samples_per_s
        assert row.seconds_per_step * per_s == pytest.approx(row.batch_size)
    assert rows[2].parameters > rows[0].parameters and getattr(rows[0], kind.score) != getattr(rows[1], kind.score)
    assert not list(record.folder.glob("checkpoints/*/checkpoints"))  # optimiser states are gone


def test_a_finished_training_is_not_repeated_and_an_interrupted_one_goes_on_to_the_bit(kind, tmp_path, monkeypatch):
    config = changed(kind.config, augmentation="mixer", label_smoothing=0.1) if kind is KINDS["images"] else kind.config
    whole = run(kind.experiment, config, tmp_path / "whole")
    steps, original, epoch = [], kind.loss.__call__, kind.batches

    def stopping(self, module, batch):
        steps.append(1)
        if len(steps) == 4 * epoch + 2:  # the MLP has taken three epochs; the KAN is in its second
            raise KeyboardInterrupt
        return original(self, module, batch)

    monkeypatch.setattr(kind.loss, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(kind.experiment, config, tmp_path / "parts")
    before = len(steps)
    record = run(kind.experiment, config, tmp_path / "parts")
    assert record.sessions == 2 and len(steps) - before == 2 * epoch  # from the checkpoint at the first epoch's end
    assert_same(whole, record)
    assert run(kind.experiment, config, tmp_path / "parts").sessions == 2 and len(steps) - before == 2 * epoch


def test_averaged_weights_are_evaluated_and_kept(kind, record, tmp_path):
    averaged = run(kind.experiment, changed(kind.config, variant="mlp", ema=0.9), tmp_path)
    (row,) = kind.record_type.read(averaged).rows
    assert averaged.arrays[f"{row.id}.{kind.test_curve}"][-1] == pytest.approx(getattr(row, kind.score), rel=1e-12)
    assert getattr(row, kind.score) != getattr(kind.record_type.read(record).rows[0], kind.score)


def test_the_minimum_is_the_same_data_for_all_and_its_loss_that_of_the_record(kind, record):
    models = trained_models(record)
    assert [model.name for model in models] == [row.id for row in kind.record_type.read(record).rows]
    assert [model.against for model in models] == [None, None, "mlp", "mlp"]
    found = [model.load() for model in models]
    for model, loaded in zip(models, found):
        assert not loaded.module.training
        assert all(torch.equal(own[0], other[0]) for own, other in zip(loaded.batches, found[0].batches, strict=True))
        count = [len(batch[1]) for batch in loaded.batches]
        assert sum(count) == record.result["data"][kind.data]["n_minimum"]
        values = [loaded.loss(loaded.module, batch).item() for batch in loaded.batches]
        assert np.average(values, weights=count) == pytest.approx(model.loss, rel=1e-5)
    last = found[-1]
    weight = next(p for p in last.module.parameters() if p.requires_grad and not p.is_complex())
    (gradient,) = torch.autograd.grad(last.loss(last.module, last.batches[0]), weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert second.abs().max() > 0


def test_other_data_or_lost_weights_are_one_line(kind, record, tmp_path):
    damaged = replace(record, result=json.loads(json.dumps(record.result)))
    damaged.result["data"][kind.data]["minimum_hash"] = "0" * 16
    with pytest.raises(KansciError, match=f"of {kind.data} are not those of the run"):
        trained_models(damaged)[0].load()
    with pytest.raises(KansciError, match=r"weights.safetensors is missing: .* train again with --force"):
        load_network(replace(record, folder=tmp_path), kind.record_type.read(record).rows[0])


def test_jobs_of_one_name_and_batches_that_cannot_be_shared_are_refused(kind, monkeypatch):
    job = kind.jobs(changed(kind.config, variant="mlp"))[0]
    with pytest.raises(UsageError, match="2 runs with 1 different names"):
        kind.trainer(None).run([job, job])
    monkeypatch.setattr(ranks, "size", lambda: 3)
    batch = job.training.batch_size
    with pytest.raises(UsageError, match=f"got batch_size {batch} on 3 processes: expected a multiple of 3"):
        check_jobs([job])


def test_an_epoch_can_begin_in_its_middle():
    epoch = Epoch(3, lambda first: iter(range(first, 3)))
    assert len(epoch) == len(epoch.seek(2)) == 3
    assert list(epoch) == [0, 1, 2] and list(epoch.seek(2)) == [2]


def test_one_process_needs_no_others(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # left over by another program
    assert (ranks.rank(), ranks.size(), ranks.agree("x")) == (0, 1, "x")
    ranks.call()
    assert ranks.device_of("cpu") == torch.device("cpu") and not torch.distributed.is_initialized()
