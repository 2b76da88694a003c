"""Image classifiers: scores, weights read back, the images of the minimum, settings, pretrained weights, steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.minibatch import IMAGES as TINY
from support.minibatch import run
from support.settings import changed

from kansciml import UsageError
from kansciml.experiments.minibatch.trained import load_network
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.experiments.vision.experiment import EXPERIMENT, check, presets
from kansciml.experiments.vision.jobs import VisionData, jobs
from kansciml.experiments.vision.record import VisionRecord
from kansciml.experiments.vision.runs import SmoothedLoss, plain_batches, score_images
from kansciml.experiments.vision.trained import evaluate_row, split_images
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash
from kansciml.tasks.vision.batches import Batches
from kansciml.tasks.vision.registry import get_dataset


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """MLP and KAN, two seeds."""
    return run(EXPERIMENT, changed(TINY, seeds=2), tmp_path_factory.mktemp("results"))


def test_rows_hold_scores_and_the_confusion_of_classes(record):
    rows = VisionRecord.read(record).rows
    for row in rows:
        confusion = record.arrays[f"{row.id}.confusion"]
        assert confusion.sum() == row.n_test == 360 and np.trace(confusion) / 360 == pytest.approx(row.top1)
        assert record.arrays[f"{row.id}.test_top1"][-1] == row.top1
        assert row.best_top1 == record.arrays[f"{row.id}.test_top1"].max()
        assert record.arrays[f"{row.id}.accuracy"][-1] == row.train_accuracy
    assert rows[2].mixing_flops > rows[0].mixing_flops > 0


def test_a_network_read_back_scores_what_the_record_says(record):
    images = split_images(record, "digits", "test")
    for row in VisionRecord.read(record).rows:
        scores = evaluate_row(record, row, images, "cpu")
        assert (scores.top1, scores.top5, scores.loss) == (row.top1, row.top5, row.loss)
        np.testing.assert_array_equal(scores.confusion, record.arrays[f"{row.id}.confusion"])
    other = load_network(record, first := VisionRecord.read(record).rows[0])
    with torch.no_grad():
        other.head.weight.mul_(-1)  # the comparison can fail
    batches = plain_batches(images, get_dataset("digits"), 8, 64, torch.device("cpu"))
    assert score_images(other, batches, 10).loss != first.loss


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
        ({"image_size": 0}, "got image_size 0: expected at least 1"),
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
        run(EXPERIMENT, changed(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_step_does_nothing_but_the_model_and_the_loss(monkeypatch):
    """Nothing waits for the device: no number is read from a tensor in the loss."""
    data = VisionData.load("digits", subset=100)
    batch = next(Batches(data.train, data.dataset, 32).epoch())
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
    score_images(network, batches, 10)
    assert all(inference for inference, _ in seen) and [size for _, size in seen] == [128, 128, 104]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    loss, _ = SmoothedLoss(0.0)(network, next(Batches(data.train, data.dataset, 32).epoch()))
    loss.backward()  # nothing that was made in inference mode is left in the way
