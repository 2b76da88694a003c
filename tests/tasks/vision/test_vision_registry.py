"""Finding data sets by name, and what a data set says of itself."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.vision import datasets
from kansciml.tasks.vision.dataset import Images
from kansciml.tasks.vision.registry import DEFAULT, available_datasets, get_dataset

REAL = os.environ.get("KANSCIML_DATA")


def test_the_four_data_sets_are_found_the_default_first() -> None:
    assert available_datasets()[0] == DEFAULT == "digits"
    assert set(available_datasets()) >= {"digits", "mnist", "cifar10", "cifar100"}
    for name in available_datasets():
        assert get_dataset(name).name == name


def test_unknown_name_and_split_list_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown data set 'cifar': expected one of digits, cifar10, .*mnist"):
        get_dataset("cifar")
    with pytest.raises(UsageError, match="unknown split 'valid': expected one of train, test"):
        get_dataset("digits").load(split="valid")


def test_duplicate_and_missing_symbol_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    try:
        shutil.copy(Path(datasets.__file__).with_name("digits.py"), tmp_path / "vision_copied.py")
        importlib.invalidate_caches()
        with pytest.raises(UsageError, match="'digits' is already taken by .*digits.py: choose another"):
            available_datasets()
        (tmp_path / "vision_copied.py").unlink()
        (tmp_path / "vision_empty.py").write_text("x = 1\n")
        importlib.invalidate_caches()
        with pytest.raises(UsageError, match="vision_empty.py does not define DATASET"):
            available_datasets()
    finally:
        for name in ("vision_copied", "vision_empty"):
            sys.modules.pop(f"{datasets.__name__}.{name}", None)
            vars(datasets).pop(name, None)


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom kansciml.tasks.vision.registry import available_datasets as a\na()\n"
        "import kansciml.tasks.vision.augment\nprint(*{m.split('.')[0] for m in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & {"torch", "kornia", "sklearn", "pooch", "requests", "scipy"}


def test_digits_are_those_of_scikit_learn_with_their_mean_and_deviation() -> None:
    from sklearn.datasets import load_digits

    dataset = get_dataset("digits")
    train, test = dataset.load(split="train"), dataset.load(split="test")
    images = np.concatenate([train.images, test.images])[:, 0]
    np.testing.assert_allclose(images * (16 / 255), load_digits().images, atol=0.5 * 16 / 255 + 1e-12)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), load_digits().target)
    np.testing.assert_allclose((train.images / 255).mean(), dataset.mean[0], atol=1e-8)
    np.testing.assert_allclose((train.images / 255).std(), dataset.std[0], atol=1e-8)
    assert np.bincount(test.labels).min() >= 30


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_real_data_are_balanced_and_have_the_stated_mean_and_deviation(name: str, real_data) -> None:
    """To eight digits over all pixels of the training images: no pixel can be off by much."""
    dataset, train = get_dataset(name), real_data(name, "train")
    assert train.images.shape == (dataset.n_train, dataset.channels, dataset.size, dataset.size)
    for c in range(dataset.channels):
        counts = np.bincount(train.images[:, c].ravel(), minlength=256) / train.images[:, c].size
        values = np.arange(256) / 255
        mean = counts @ values
        np.testing.assert_allclose(mean, dataset.mean[c], atol=1e-8)
        np.testing.assert_allclose(np.sqrt(counts @ (values - mean) ** 2), dataset.std[c], atol=1e-8)
    for data in (train, real_data(name, "test")):
        per_class = np.bincount(data.labels, minlength=dataset.classes)
        assert len(per_class) == dataset.classes
        if name != "mnist":
            assert set(per_class) == {len(data) // dataset.classes}
    if name == "mnist":  # the counts that LeCun et al. publish
        assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.parametrize(("name", "at_least"), [("mnist", 0.82), ("cifar10", 0.27), ("cifar100", 0.09)])
def test_labels_belong_to_their_images_in_both_splits(name: str, at_least: float, real_data) -> None:
    """The nearest class mean tells 82.0 % of MNIST's test images, known from the literature, and beats chance."""
    train, test = (real_data(name, split) for split in ("train", "test"))
    x, t = (data.images[::5].reshape(-1, data.images[0].size).astype(np.float32) for data in (train, test))
    labels = train.labels[::5]
    means = np.stack([x[labels == c].mean(0) for c in range(labels.max() + 1)])
    nearest = (t @ means.T - 0.5 * (means**2).sum(1)).argmax(1)
    assert np.mean(nearest == test.labels[::5]) > at_least - 0.015


@pytest.mark.parametrize(("name", "file"), [("cifar10", "batches.meta.txt"), ("cifar100", "fine_label_names.txt")])
def test_class_names_are_those_beside_the_real_data(name: str, file: str) -> None:
    found = [path for path in Path(REAL).rglob(file)] if REAL else []
    if not found:
        pytest.skip(f"KANSCIML_DATA names no folder with {file}")
    assert get_dataset(name).class_names == tuple(found[0].read_text().split())


def test_malformed_data_and_specification_are_refused(photographs) -> None:
    dataset, images = photographs
    with pytest.raises(UsageError, match="got images float32 .*expected uint8"):
        Images(images.images.astype(np.float32), images.labels)
    with pytest.raises(UsageError, match=r"expected int64 \(70,\)"):
        Images(images.images, images.labels[:-1])
    with pytest.raises(UsageError, match="one per channel, std positive"):
        replace(dataset, std=(0.2, 0.25, 0.0))
    with pytest.raises(UsageError, match="at least 2 different class names"):
        replace(dataset, class_names=("a", "a"))
    with pytest.raises(UsageError, match=r"got train images of shape \(70, 3, 16, 16\), expected \(71, 3"):
        replace(dataset, n_train=71).load()
    with pytest.raises(UsageError, match="got labels from 0 to 6, expected 0 to 5"):
        replace(dataset, class_names=tuple("abcdef")).load()
    assert dataset.load() is images
