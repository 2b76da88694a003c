"""Image classifiers: what the record holds, resuming to the bit, weights read back, minima, several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.settings import changed
from torch.nn import functional as F

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.minibatch.trained import load_network
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.experiments.vision.experiment import EXPERIMENT, check, presets
from kansciml.experiments.vision.jobs import VisionData, VisionJob, jobs
from kansciml.experiments.vision.runs import run_jobs
from kansciml.experiments.vision.steps import Epoch, SmoothedLoss, plain_batches, score
from kansciml.experiments.vision.trained import evaluate_row, rows_of, split_images
from kansciml.runs import ranks
from kansciml.runs.ranks import device_of
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash
from kansciml.tasks.vision.batches import Batches
from kansciml.tasks.vision.registry import get_dataset

TINY = changed(
    VisionRunConfig("mixer"),
    width=8,
    depth=1,
    token_hidden=8,
    channel_hidden=8,
    subset=100,
    epochs=3,
    batch_size=32,
    clip=None,
    precision="64",
    accelerator="cpu",
)
CURVES = (
    "epoch",
    "step",
    "loss",
    "accuracy",
    "test_loss",
    "test_top1",
    "test_top5",
    "learning_rate",
    "images_per_s",
    "train_s",
)
TIMES = ("images_per_s", "seconds_per_step", "peak_memory_mb", "wall_s")


def run(config, folder, **options):
    return run_experiment(EXPERIMENT, config, results=folder, log=lambda line: None, **options)


def without_times(record):
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in record.result["runs"]]
    arrays = {k: v for k, v in record.arrays.items() if not k.endswith((".images_per_s", ".train_s"))}
    return json.dumps(rows, sort_keys=True), arrays


def assert_same(a, b):
    (rows_a, arrays_a), (rows_b, arrays_b) = without_times(a), without_times(b)
    assert rows_a == rows_b and set(arrays_a) == set(arrays_b)
    for name, array in arrays_a.items():
        np.testing.assert_array_equal(array, arrays_b[name], err_msg=name)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """MLP and KAN, two seeds."""
    return run(changed(TINY, seeds=2), tmp_path_factory.mktemp("results"))


def test_the_record_holds_rows_curves_and_weights(record):
    rows = record.result["runs"]
    assert [(row["group"], row["seed"]) for row in rows] == [
        ("mlp", 0), ("mlp", 1), ("kan-spline", 0), ("kan-spline", 1)
    ]  # fmt: skip
    assert record.seeds == (0, 1)
    for row, typed_row in zip(rows, rows_of(record)):
        assert row["status"] == "finished" and row["epochs"] == 3 and row["steps"] == 3 * (100 // 32)
        for name in CURVES:
            assert record.arrays[f"{row['id']}.{name}"].shape == (3,)
        confusion = record.arrays[f"{row['id']}.confusion"]
        assert confusion.sum() == row["n_test"] == 360
        assert np.trace(confusion) / 360 == pytest.approx(row["top1"])
        assert record.arrays[f"{row['id']}.test_top1"][-1] == row["top1"]  # the last epoch's weights
        assert row["best_top1"] == record.arrays[f"{row['id']}.test_top1"].max()
        weights = load_file(record.folder / row["weights"])
        network = load_network(record, typed_row)
        assert row["parameters"] == sum(p.numel() for p in network.parameters())
        assert set(weights) == set(network.state_dict())
        assert row["seconds_per_step"] * row["images_per_s"] == pytest.approx(32)
        assert row["mixing_flops"] > 0
    mlp, kan = rows[0], rows[2]
    assert kan["parameters"] > mlp["parameters"] and kan["mixing_flops"] > mlp["mixing_flops"]
    assert rows[0]["loss"] != rows[1]["loss"]
    assert not list(record.folder.glob("checkpoints/*/checkpoints"))  # optimiser states are gone


def test_a_network_read_back_scores_what_the_record_says(record):
    images = split_images(record, "digits", "test")
    for row in rows_of(record):
        scores = evaluate_row(record, row, images, "cpu")
        assert (scores.top1, scores.top5, scores.loss) == (row.top1, row.top5, row.loss)
        np.testing.assert_array_equal(scores.confusion, record.arrays[f"{row.id}.confusion"])
    other = load_network(record, first := rows_of(record)[0])
    with torch.no_grad():
        other.head.weight.mul_(-1)  # the comparison can fail
    batches = plain_batches(images, get_dataset("digits"), 8, 64, torch.device("cpu"))
    assert score(other, batches, 10).loss != first.loss


def test_averaged_weights_are_evaluated_and_kept(tmp_path):
    record = run(changed(TINY, variant="mlp", ema=0.9), tmp_path)
    (row,) = rows_of(record)
    assert record.arrays[f"{row.id}.test_loss"][-1] == pytest.approx(row.loss, rel=1e-12)
    assert evaluate_row(record, row, split_images(record, "digits", "test"), "cpu").loss == row.loss
    plain = run(changed(TINY, variant="mlp"), tmp_path)
    assert rows_of(plain)[0].loss != row.loss


def test_a_finished_training_is_not_repeated_and_an_interrupted_one_goes_on_to_the_bit(tmp_path, monkeypatch):
    config = changed(TINY, augmentation="mixer", label_smoothing=0.1)
    whole = run(config, tmp_path / "whole")
    steps = []
    original = SmoothedLoss.__call__

    def stopping(self, module, batch):
        steps.append(1)
        if len(steps) == 14:  # the MLP has taken nine; the KAN is in its second epoch
            raise KeyboardInterrupt
        return original(self, module, batch)

    monkeypatch.setattr(SmoothedLoss, "__call__", stopping)
    lines = []
    with pytest.raises(KeyboardInterrupt):
        run_experiment(EXPERIMENT, config, results=tmp_path / "parts", log=lines.append)
    assert "the same command resumes it" in lines[-1]
    count = len(steps)
    record = run(config, tmp_path / "parts")
    assert record.sessions == 2
    assert len(steps) - count == 9 - 3  # from the checkpoint at the end of the first epoch
    assert_same(whole, record)
    assert len(steps) == count + 6
    again = run(config, tmp_path / "parts")
    assert again.sessions == 2 and len(steps) == count + 6


def test_plain_batches_begin_in_the_middle_of_an_epoch():
    data = VisionData.load("digits", subset=100)
    batches = Batches(data.train, data.dataset, 32, drop_last=True, seed=3)
    whole, rest = list(Epoch(batches, 1)), list(Epoch(batches, 1).seek(2))
    assert len(Epoch(batches, 1)) == len(whole) == 3 and len(rest) == 1
    assert torch.equal(whole[2].inputs, rest[0].inputs)


def test_the_minimum_is_the_same_images_for_all_and_its_loss_that_of_the_record(record):
    models = trained_models(record)
    assert [model.name for model in models] == [row["id"] for row in record.result["runs"]]
    assert [model.against for model in models] == [None, None, "mlp", "mlp"]
    found = [model.load() for model in models]
    for model, loaded in zip(models, found):
        assert not loaded.module.training
        inputs, labels = (torch.cat(parts) for parts in zip(*loaded.batches))
        assert len(labels) == 100 == record.result["data"]["digits"]["n_minimum"]
        assert torch.equal(inputs, torch.cat([batch[0] for batch in found[0].batches]))
        value = loaded.loss(loaded.module, (inputs, labels))
        assert value.item() == pytest.approx(model.loss, rel=1e-10)
        assert value.item() == pytest.approx(F.cross_entropy(loaded.module(inputs), labels).item(), rel=1e-10)
    module, loss, batch = found[2].module, found[2].loss, found[2].batches[0]
    weight = module.head.weight
    (gradient,) = torch.autograd.grad(loss(module, batch), weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert second.abs().max() > 0


def test_minima_of_other_images_are_refused(record):
    damaged = replace(record, result=json.loads(json.dumps(record.result)))
    damaged.result["data"]["digits"]["minimum_hash"] = "0" * 16
    with pytest.raises(KansciError, match="the images of digits are not those of the run"):
        trained_models(damaged)[0].load()


def test_weights_that_are_gone_are_one_line(record, tmp_path):
    row = rows_of(record)[0]
    with pytest.raises(KansciError, match=r"weights.safetensors is missing: .* train again with --force"):
        load_network(replace(record, folder=tmp_path), row)


def test_at_most_512_images_stand_for_the_minimum_and_no_seed_changes_them():
    whole, part = VisionData.load("digits"), VisionData.load("digits", subset=100)
    assert len(whole.minimum) == 512 and len(part.minimum) == 100
    assert len(part.train) == 100 and set(np.bincount(part.train.labels)) == {10}
    assert whole.described.minimum_hash == VisionData.load("digits").described.minimum_hash
    assert whole.described.minimum_hash != part.described.minimum_hash


def test_moved_data_and_names_of_families_are_no_new_configuration():
    assert VisionRunConfig("mixer") == VisionRunConfig("mixer-nano")
    here, there = (changed(TINY, data_dir=Path(name)) for name in ("here", "there"))
    assert config_hash("vision", here) == config_hash("vision", there) == config_hash("vision", TINY)
    assert config_hash("vision", changed(TINY, epochs=4)) != config_hash("vision", TINY)


def test_matched_kans_have_a_group_of_their_own_and_the_size_of_the_mlps():
    config = changed(TINY, width=32, token_hidden=64, channel_hidden=64, match="params", variant="all")
    found = jobs(config)
    assert [job.group for job in found] == ["mlp", "kan-spline-params", "kan-rswaf-params"]
    mlp, *kans = (job.sizes()["parameters"] for job in found)
    assert all(abs(kan - mlp) < 0.15 * mlp for kan in kans)
    assert found[1].label == "KAN, splines (G=5, S=3), equal params"


def test_printed_counts_are_named_for_the_published_configuration_alone():
    config = changed(VisionRunConfig("deit-tiny"), variant="all", dataset="cifar100", image_size=224, batch_size=144)
    assert [job.sizes()["printed"] for job in jobs(config)] == [5_500_000, 14_300_000, 12_600_000]
    spline = jobs(config)[1].sizes()
    assert spline["parameters"] == 10_833_700 and spline["parameters"] + spline["dead"] == 14_384_164
    assert jobs(changed(config, dataset="cifar10"))[0].sizes()["printed"] is None
    assert all(job.sizes()["printed"] is None for job in jobs(changed(config, fair=True))[1:])


def test_presets_fit_the_model_and_the_data_set():
    for model, dataset in ((None, None), ("mixer-nano", "mnist"), ("conv-mixer", "cifar10"), ("deit-tiny", "cifar100")):
        for name, config in presets(model, dataset).items():
            if model == "deit-tiny" and name == "small":
                continue
            check(config)
            assert dataset in (None, config.classifier.images.dataset)
    paper = presets("deit-tiny", "cifar100")["paper"]
    images, training = paper.classifier.images, paper.classifier.training
    assert (training.batch_size, training.epochs, training.learning_rate) == (144, 300, 5e-4)
    assert (images.image_size, images.augmentation) == (224, "paper") and jobs(paper)[0].steps == 300 * (50_000 // 144)


def test_a_training_says_what_became_of_pretrained_weights(tmp_path):
    plain = changed(TINY, model="deit", token_hidden=None, channel_hidden=None, heads=2, patch=4, epochs=1)
    torch.save({"model": jobs(changed(plain, variant="mlp"))[0].build().state_dict(), "epoch": 7}, tmp_path / "w.pth")
    lines = []
    config = changed(plain, variant="kan-spline", weights=tmp_path / "w.pth")
    run_experiment(EXPERIMENT, config, results=tmp_path, log=lines.append)
    (line,) = [line for line in lines if "w.pth" in line]
    assert "15 tensors loaded from 'model'; in the file, not used: blocks.0.attn.qkv.bias, blocks.0.mlp.fc1" in line
    assert "not in the file, as first drawn: blocks.0.kan.layers.0." in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet"}, "unknown model 'resnet'"),
        ({"variant": "cnn"}, "unknown variant 'cnn'"),
        ({"dataset": "imagenet"}, "unknown data set 'imagenet'"),
        ({"augmentation": "heavy"}, "unknown augmentation 'heavy'"),
        ({"match": "time"}, "unknown match 'time'"),
        ({"match": "params", "variant": "mlp"}, "expected a KAN variant"),
        ({"seeds": 0}, "got seeds 0"),
        ({"subset": 5}, "got subset 5: expected 10 to 1437 images"),
        ({"batch_size": 128}, "got batch_size 128: expected at most the 100 training images"),
        ({"label_smoothing": 1.0}, "got label_smoothing 1.0"),
        ({"patch": 3}, "patch 3 for images of 8 x 8"),
        ({"heads": 3}, "unknown option of mixer 'heads'"),
        ({"grid": 0}, "got grid 0"),
        ({"precision": "8"}, "unknown precision '8'"),
        ({"epochs": 0}, "got epochs 0"),
        ({"weights": Path("none.safetensors")}, "expected a deit model|does not exist"),
        ({"data_dir": Path("nowhere"), "dataset": "mnist"}, "nowhere is not a folder"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(changed(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_jobs_of_one_name_are_refused():
    job = jobs(changed(TINY, variant="mlp"))[0]
    assert isinstance(job, VisionJob)
    with pytest.raises(UsageError, match="2 runs with 1 different names"):
        run_jobs([job, job], None)


def test_a_step_does_nothing_but_the_model_and_the_loss(monkeypatch):
    """Nothing waits for the device: no number is read from a tensor in the loss."""
    data = VisionData.load("digits", subset=100)
    batch = next(iter(Epoch(Batches(data.train, data.dataset, 32), 0)))
    network = jobs(changed(TINY, variant="mlp"))[0].build()
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, name=name: pytest.fail(f"{name} waits for the device"))
    loss, sums = SmoothedLoss(0.1)(network, batch)
    assert loss.requires_grad and sums["count"] == 32 and not sums["accuracy"].requires_grad


def test_evaluation_keeps_no_graph_and_changes_nothing():
    data = VisionData.load("digits", subset=100)
    network = jobs(TINY)[1].build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append((output.is_inference(), len(inputs[0]))))
    batches = plain_batches(data.test, data.dataset, 8, 4 * 32, torch.device("cpu"))
    score(network, batches, 10)
    assert all(inference for inference, _ in seen) and [size for _, size in seen] == [128, 128, 104]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    loss, _ = SmoothedLoss(0.0)(network, next(iter(Epoch(Batches(data.train, data.dataset, 32), 0))))
    loss.backward()  # nothing that was made in inference mode is left in the way


# ---- several processes ----------------------------------------------------------------------------------------------

FLAGS = ["--variant", "both", "--model", "mixer", "--width", "8", "--depth", "1", "--token-hidden", "8"]
FLAGS += ["--subset", "100", "--epochs", "3", "--batch-size", "32", "--augmentation", "mixer", "--accelerator", "cpu"]


def torchrun(folder, *flags, processes=2):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "-m", "kansciml", "vision", *FLAGS, *flags]
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command += ["--results", str(folder), "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_the_first_alone_speaks(tmp_path):
    config = changed(TINY, precision="32", channel_hidden=None, augmentation="mixer", clip=1.0)
    alone = run(config, tmp_path / "one")
    done = torchrun(tmp_path / "two")
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one document
    assert together["config_hash"] == alone.config_hash
    for one, two in zip(alone.result["runs"], together["result"]["runs"]):
        assert two["processes"] == 2 and one["id"] == two["id"]
        for name in ("loss", "train_loss", "minimum_loss"):
            assert two[name] == pytest.approx(one[name], rel=1e-5)
    arrays = np.load(Path(together["files"][0]).parent / "arrays.npz")
    for name in ("loss", "test_loss"):
        for row in alone.result["runs"]:
            key = f"{row['id']}.{name}"
            np.testing.assert_allclose(arrays[key], alone.arrays[key], rtol=1e-5)
    again = torchrun(tmp_path / "two")  # finished: the others are sent home
    assert again.returncode == 0 and json.loads(again.stdout)["sessions"] == 1 and "finished on" in again.stderr


@pytest.mark.slow
def test_processes_that_cannot_share_a_batch_or_meet_a_mistake_end_with_one_line(tmp_path):
    for flags, message in ((("--batch-size", "33"), "got batch_size 33 on 2 processes"), (("--patch", "3"), "patch 3")):
        done = torchrun(tmp_path, *flags)
        lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode != 0 and len(lines) == 1 and message in lines[0]
        assert message in json.loads(done.stdout)["error"] and not list(tmp_path.iterdir())


def test_one_process_needs_no_others(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # left over by another program
    assert (ranks.rank(), ranks.size(), ranks.agree("x")) == (0, 1, "x")
    ranks.call()
    assert device_of("cpu") == torch.device("cpu") and not torch.distributed.is_initialized()
