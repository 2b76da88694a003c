"""Find data sets by name: every module of the folder `datasets` defines one."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from kansciml._errors import UsageError, unknown_name
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
    found: dict[str, Dataset] = {}
    origin: dict[str, Path] = {}
    for info in pkgutil.iter_modules(datasets.__path__):
        module = importlib.import_module(f"{datasets.__name__}.{info.name}")
        path = Path(str(module.__file__))
        dataset = _dataset_of(module, path)
        if dataset.name in found:
            raise UsageError(
                f"{path}: data set name {dataset.name!r} is already taken by {origin[dataset.name]}: choose another"
            )
        found[dataset.name], origin[dataset.name] = dataset, path
    return found


def _dataset_of(module: ModuleType, path: Path) -> Dataset:
    value = getattr(module, "DATASET", None)
    if not isinstance(value, Dataset):
        raise UsageError(f"{path} does not define DATASET: expected DATASET = Dataset(...) of tasks.vision.dataset")
    return value
