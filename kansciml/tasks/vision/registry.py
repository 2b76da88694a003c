"""Finds data sets by name: every module of the folder `datasets` defines one."""

from __future__ import annotations

from kansciml._discovery import found_in
from kansciml._errors import unknown_name
from kansciml.tasks.vision import datasets
from kansciml.tasks.vision.dataset import Dataset

DEFAULT = "digits"
"""Comes with scikit-learn: the one data set that needs neither a network nor a folder."""


def available_datasets() -> tuple[str, ...]:
    """Names of the data sets, the default first.

    Raises:
        UsageError: two files use one name, or a file does not define a `DATASET`.
    """
    return tuple(sorted(_built_in(), key=lambda name: (name != DEFAULT, name)))


def get_dataset(name: str) -> Dataset:
    """A data set by name, one of `available_datasets()`. Nothing is read before `Dataset.load`.

    Raises:
        UsageError: unknown name; the message lists the valid ones.
    """
    found = _built_in()
    if name not in found:
        raise unknown_name("data set", name, available_datasets())
    return found[name]


def _built_in() -> dict[str, Dataset]:
    return {name: dataset for name, (dataset, _) in found_in(datasets, "DATASET", Dataset, "data set").items()}
