"""Discovers experiments and looks up the one that wrote a record: a folder whose ``experiment.py`` assigns EXPERIMENT.

Loads one only when asked for it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from kansciml._discovery import assigns, loaded
from kansciml._errors import KansciError, check_name
from kansciml.runs.experiment import Experiment
from kansciml.runs.records import Record, reading
from kansciml.runs.trained import Scoring, TrainedModel


@dataclass(frozen=True)
class Listing:
    """One line of a list of experiments; `error` says why a broken module cannot be used, else it is empty."""

    name: str
    title: str = ""
    item: str = ""
    presets: tuple[str, ...] = ()
    error: str = ""


def available_experiments(package: str = "kansciml.experiments") -> list[str]:
    """Names of all experiments, sorted. No experiment is loaded: the files are only parsed."""
    folders = map(Path, importlib.import_module(package).__path__)
    files = [file for folder in folders for file in folder.glob("*/experiment.py")]
    return sorted({file.parent.name for file in files if assigns(file, "EXPERIMENT")})


def get_experiment(name: str, package: str = "kansciml.experiments") -> Experiment:
    """Load the experiment `name`.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
        KansciError: its module cannot be loaded, or does not define an `Experiment` of its own name.
    """
    names = available_experiments(package)
    check_name("experiment", name, names)
    module = f"{package}.{name}.experiment"
    return loaded(module, "EXPERIMENT", Experiment, "experiment", name, names, "folder")


def describe_experiments(package: str = "kansciml.experiments") -> list[Listing]:
    """All experiments with title, item, and presets; a module that cannot be loaded is listed with its error."""
    listings = []
    for name in available_experiments(package):
        try:
            experiment = get_experiment(name, package)
        except KansciError as error:
            listings.append(Listing(name, error=str(error)))
        else:
            listings.append(Listing(name, experiment.title, experiment.item, tuple(experiment.presets)))
    return listings


def trained_models(record: Record) -> list[TrainedModel]:
    """The models of a run, through the ``trained`` of its experiment.

    Raises:
        KansciError: the run is not finished or damaged, its experiment trains nothing, or no model came out of it.
        UsageError: an unknown experiment, or data of the user's own that are gone or have changed.
    """
    experiment = get_experiment(record.experiment)
    if experiment.trained is None:
        raise KansciError(
            f"{record.folder} is a run of {record.experiment}, which trains no models: choose another run"
        )
    if record.status != "finished":
        raise KansciError(f"the run in {record.folder} is not finished ({record.status}): resume it first")
    with reading(record):
        found = list(experiment.trained(record))
    if not found:
        raise KansciError(f"no model of the run in {record.folder} ended its training: see its table of losses")
    return found


def scoring_of(record: Record) -> Scoring:
    """The `Scoring` of a record's experiment.

    Raises:
        KansciError: that kind of run has none; the message lists the kinds that do.
        UsageError: an unknown experiment.
    """
    found = get_experiment(record.experiment).scoring
    if found is None:
        kinds = [name for name in available_experiments() if get_experiment(name).scoring is not None]
        raise KansciError(
            f"{record.folder} is a run of {record.experiment}, which keeps no weights that evaluate could score:"
            f" expected a run of {', '.join(kinds)}"
        )
    return found
