"""Discovers experiments and looks up the one that wrote a record: a folder whose ``experiment.py`` assigns EXPERIMENT.

Loads one only when asked for it.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path

from kansciml._errors import KansciError, unknown_name
from kansciml.runs.experiment import Experiment
from kansciml.runs.records import Record, reading
from kansciml.runs.scoring import Scoring
from kansciml.runs.trained import TrainedModel


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
    return sorted({file.parent.name for file in files if _defines_experiment(file)})


def get_experiment(name: str, package: str = "kansciml.experiments") -> Experiment:
    """Load the experiment `name`.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
        KansciError: its module cannot be loaded, or does not define an `Experiment` of its own name.
    """
    names = available_experiments(package)
    if name not in names:
        raise unknown_name("experiment", name, names)
    try:
        module = importlib.import_module(f"{package}.{name}.experiment")
    except Exception as error:  # whatever a module can raise while loading must not take the others with it
        raise KansciError(f"experiment {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    experiment = module.EXPERIMENT
    if not isinstance(experiment, Experiment):
        raise KansciError(f"EXPERIMENT in {module.__file__} is a {type(experiment).__name__}: expected an Experiment")
    if experiment.name != name:
        taken = f", which the folder {experiment.name} already has" if experiment.name in names else ""
        raise KansciError(
            f"the experiment in {module.__file__} is named {experiment.name!r}{taken}: name it {name!r}, as its folder"
        )
    return experiment


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


def _defines_experiment(file: Path) -> bool:
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return True  # meant to be one for all we can tell: listed, and its error shown when it is asked for
    targets = [
        target
        for node in body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Name) and target.id == "EXPERIMENT" for target in targets)
