"""Which run a command is about: the folder of one, or its name, alike for every command that takes a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kansciml._errors import UsageError
from kansciml._files import list_folder
from kansciml.commands._output import JsonFlag
from kansciml.runs.records import Record, load_record, load_records

RECORD = "record.json"
RESULTS = Path("results")
SHOWN = 6
"""Runs that a message names."""


@dataclass(frozen=True)
class NamedFlags(JsonFlag):
    """RUN: its folder, or its name in the folder of all results: fig2 (its latest finished run), fig2-cf9c65, or cf9c65
    alone."""

    results: Path = RESULTS
    """Folder of all results."""


def run_named(name: str, results: Path, log: Callable[[str], None]) -> Record:
    """The run of a name.

    Args:
        name: the folder of a run, or its ``record.json``; else, in `results` or in the folder that the name starts
            with, an experiment (its latest finished run), or a run by the first digits of its hash, with the experiment
            and a hyphen before them or alone.
        log: takes a line that says which run was taken, where there was a choice, and one for each that is damaged.

    Raises:
        UsageError: there is none, or there are several. KansciError: it is damaged, or may not be read.
    """
    path = Path(name)
    path = path.parent if path.name == RECORD else path
    for place in (path, results / path):
        if os.path.lexists(place / RECORD):
            return load_record(place)
    places = [results / path.parent, *[path.parent] * (path.parent not in (Path(), results / path.parent))]
    there = [folder for place in places for folder in _runs(place)]
    experiment, _, digits = path.name.rpartition("-")
    of_kind = [folder for folder in there if path.name and folder.parent.name == path.name]
    for record in load_records(of_kind, log):
        if record.status == "finished":
            if len(of_kind) > 1:
                log(f"run: {record.folder}, the latest finished one of {len(of_kind)}")
            return record
    fitting = [one for one in there if one.name.startswith(digits) and experiment in ("", one.parent.name)]
    if path.name and len(fitting) == 1:
        return load_record(fitting[0])
    if path.name and fitting:
        raise UsageError(f"{name} could be any of {_listed(fitting)}: give more of its hash")
    raise _nothing(name, path, places[-1], there)


def _runs(place: Path) -> list[Path]:
    """Folders of runs in a folder of results or of an experiment, the most recently written first.

    Raises:
        KansciError: the folder is none, or may not be read.
    """
    found = []
    for folder in _folders(place):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.append(((folder / RECORD).stat().st_mtime, str(folder), folder))
    return [folder for *_, folder in sorted(found, reverse=True)]


def _folders(place: Path) -> Iterator[Path]:
    for outer in list_folder(place):
        yield outer
        with suppress(OSError):  # it says of itself why it may not be read where it is asked for
            yield from (inner for inner in outer.iterdir() if outer.is_dir())


def _listed(folders: list[Path]) -> str:
    """``fig2-cf9c65cfcb41, ode-00476e93b59b, ...``"""
    names = [f"{folder.parent.name}-{folder.name}" for folder in folders[:SHOWN]]
    return ", ".join([*names, "..."] if len(folders) > SHOWN else names)


def _nothing(name: str, path: Path, place: Path, there: list[Path]) -> UsageError:
    from kansciml.runs.registry import available_experiments

    if path.suffix == ".zip" and path.is_file():
        return UsageError(f"{name} is a packed record: kansciml reproduce --from {path.parent} unpacks those there")
    if path.name in available_experiments():
        makes = {"hessian": "kansciml hessian RUN makes one, in the folder of RUN"}
        told = makes.get(path.name, f"kansciml run {path.name} makes one")
        return UsageError(f"no finished run of {path.name} in {place}: {told}")
    known = f"there are {_listed(there)}" if there else f"{place} holds none"
    return UsageError(f"no run {name}: expected the folder of one, or its name or hash ({known})")
