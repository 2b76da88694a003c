"""The paper in one command: which runs belong to which item, and what each of them has to show on the page."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kansciml import __version__
from kansciml._errors import KansciError, check_name
from kansciml._files import to_jsonable
from kansciml._workers import call_in_process
from kansciml.reproduce.page.content import (
    FAILED,
    FINISHED,
    MISSING,
    UNFINISHED,
    Entry,
    Further,
    Page,
    PaperError,
    Setting,
)
from kansciml.reproduce.sentences import sentences
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment
from kansciml.runs.records import Record, find_record
from kansciml.runs.registry import available_experiments, get_experiment
from kansciml.runs.runner import result_folder
from kansciml.runs.settings import flat_items, setting
from kansciml.runs.trained import config_of

if TYPE_CHECKING:
    from kansciml.reproduce.answer import Answer

ALL = "all"
PRESETS = ("smoke", "small", "paper")
BACKENDS = ("auto", "torch", "julia", "both")

Runner = Callable[[str, str, str, Path], None]
"""Runs or resumes an experiment's preset on a backend, in a results folder, with its pictures; raises KansciError."""
T = TypeVar("T")


def known_names() -> list[str]:
    """Experiments that the page has a section for, in its order; last those that cannot be loaded."""
    places: dict[str, float] = {}
    for name in available_experiments():
        try:
            order: float | None = get_experiment(name).order
        except KansciError:
            order = math.inf
        if order is not None:
            places[name] = order
    return sorted(places, key=lambda name: (places[name], name))


def chosen_names(names: Sequence[str]) -> list[str]:
    """What is asked for, in the page's order and each once; nothing or ``all`` means everything.

    Raises:
        UsageError: a name that the page has no section for.
    """
    known = known_names()
    for name in names:
        check_name("item", name, [ALL, *known])
    return known if not names or ALL in names else [name for name in known if name in names]


def reproduce(
    names: Sequence[str],
    preset: str,
    results: Path,
    *,
    backend: str = "auto",
    beside: Sequence[Path] = (),
    log: Callable[[str], None],
    run: Runner | None,
    show: Callable[[Page], object] = lambda page: None,
) -> Page:
    """Run what is missing of `names`, resume what is unfinished, and collect everything there is for the page.

    A run that fails is noted, and the next one begins. Runs that are not asked for are on the page as they are.

    Args:
        names: as from `chosen_names`. preset: one of `PRESETS`. results: folder of all results.
        backend: of neural ODEs: auto, torch, julia or both.
        beside: folders of further finished runs, with other settings, which the answer takes into account.
        log: takes lines for the user.
        run: runs one experiment; None: nothing is run.
        show: given the page so far after every run, so that an interrupt leaves a page of what was done before it.

    Raises:
        UsageError: an unknown preset or backend.
        KeyboardInterrupt: passed on after the state of the run was saved.
    """
    check_name("preset", preset, PRESETS)
    check_name("backend", backend, BACKENDS)
    known = known_names()
    entries = {name: gather(name, preset, results, backend) for name in known}
    others = [one for folder in beside if folder.parent.name in known and (one := _further(folder, preset))]

    def page() -> Page:
        ordered = [entries[name] for name in known]
        own = {entry.record.folder for entry in ordered if entry.record is not None}
        further = [one for one in others if one.record.folder not in own]
        answers, no_answer = _attempt(lambda: _answers([*ordered, *(one.record for one in further)]))
        errors, no_errors = _attempt(_errors_of_paper)
        missed = (("answer", no_answer), ("errors of the paper", no_errors))
        return Page(
            preset,
            ordered,
            answer=answers[0] if answers else None,
            problems=[f"No {what} can be shown: {why}" for what, why in missed if why],
            errors=errors,
            made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            sentences=sentences(),
            further=further,
        )

    for number, name in enumerate(names, 1):
        if run is None or entries[name].status == FINISHED:
            continue
        log(f"reproduce: {name}, preset {preset} ({number} of {len(names)})")
        failure = ""
        try:
            run(name, preset, backend, results)
        except KansciError as error:
            failure = str(error)
            log(f"{name}: {failure}")
        entries[name] = gather(name, preset, results, backend, failure)
        show(page())
    return page()


def gather(name: str, preset: str, results: Path, backend: str = "auto", failure: str = "") -> Entry:
    """What there is of one experiment's preset; pictures that a finished run has not yet are drawn.

    Of backend ``auto`` the run on the preferred one of those that are finished, or else were begun.
    `failure`: why running it just failed, or empty.
    """
    command = f"kansciml run {name} --preset {preset}"
    if results != Path("results"):
        command += f" --results {shlex.quote(str(results))}"
    try:
        experiment = get_experiment(name)
    except KansciError as error:
        return Entry(name, name, "This experiment cannot be loaded", command, FAILED, str(error))
    entry = Entry(name, experiment.item, experiment.title, command, MISSING, captions=experiment.captions)
    try:
        config = on_backend(experiment.preset(preset), backend)
        if config != experiment.preset(preset):
            entry = dataclasses.replace(entry, command=f"{command} --backend {backend}")
        choices = experiment.choices(config)
        records = [find_record(result_folder(experiment, one, results)) for one in choices]
        rank = [2 if one is None else int(one.status != "finished") for one in records]
        config, record = choices[rank.index(min(rank))], records[rank.index(min(rank))]
    except KansciError as error:
        return dataclasses.replace(entry, status=FAILED, message=str(error))
    status, message = _state(record, failure)
    entry = dataclasses.replace(entry, status=status, message=message, record=record)
    return entry if record is None or status != FINISHED else _finished(entry, experiment, config, record)


def _state(record: Record | None, failure: str) -> tuple[str, str]:
    """Status of a run, and what to say of it."""
    if failure or (record is not None and record.status == "failed"):
        why = failure or (record.message if record is not None else "")
        return FAILED, f"The run failed: {why.rstrip('.')}. The command below resumes it."
    if record is None:
        return MISSING, ""
    if record.status != "finished":
        state = "another process is at work on it, or it was stopped; the command resumes it"
        return UNFINISHED, f"The run is not finished: {state}."
    return FINISHED, ""


def _finished(entry: Entry, experiment: Experiment, config: Any, record: Record) -> Entry:
    """The entry with all that a finished run has: a part that cannot be made is named, and the others are shown."""
    findings, why_findings = _attempt(lambda: experiment.findings(record) if experiment.findings else [])
    tables, why_tables = _attempt(lambda: experiment.tables(record))
    drawn, why_pictures = _attempt(lambda: experiment.draw(record))
    named = (("findings", why_findings), ("tables", why_tables), ("pictures", why_pictures))
    entry = dataclasses.replace(
        entry,
        tables=tables,
        findings=findings,
        settings=settings(config, experiment.presets.get("paper", config)),
        problems=[f"Its {what} cannot be shown: {why}" for what, why in named if why],
    )
    pictures = sorted(path for path in drawn if path.suffix == ".svg")
    return dataclasses.replace(entry, pictures=sorted(pictures, key=entry.place))


def settings(config: Any, paper: Any) -> list[Setting]:
    """All settings that count beside those of the paper's preset; of what is no part of them by dotted names."""
    here, printed = dict(_flat(config)), dict(_flat(paper))
    return [Setting(name, _text(value), _text(printed.get(name))) for name, value in here.items()]


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item, _, value in flat_items(config):
        if not item.compare:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _flat(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", to_jsonable(value)


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value)


def _attempt(make: Callable[[], Sequence[T]]) -> tuple[Sequence[T], str]:
    """What `make` returns and no complaint, or nothing and why not: one part's fault must not take the page."""
    try:
        return make(), ""
    except Exception as error:
        return [], str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"


def _further(folder: Path, preset: str) -> Further | None:
    """A finished run that compares KANs with MLPs, and its settings that are not the preset's; else None."""
    try:
        record = find_record(folder)
        if record is None or record.status != FINISHED:
            return None
        experiment = get_experiment(record.experiment)
        own = settings(config_of(experiment.config, record.config), experiment.preset(preset))
    except KansciError:
        return None
    return Further(record, [one for one in own if one.differs]) if experiment.comparisons else None


def _answers(entries: Sequence[Entry | Record]) -> list[Answer]:
    """The answer, or none."""
    from kansciml.reproduce.answer import answer

    found = answer(entries)
    return [found] if found else []


@cache
def _errors_of_paper() -> list[PaperError]:
    from kansciml.reproduce.paper_errors import paper_errors

    return paper_errors()


def on_backend(config: Any, backend: str) -> Any:
    """The configuration with this backend, if it trains neural ODEs."""
    return config if setting(config, "backend") is None else with_settings(config, {"backend": backend})


def run_in_own_process(name: str, preset: str, backend: str, results: Path) -> None:
    """Run or resume preset `preset` of experiment `name` in the folder `results`, and draw its pictures.

    Raises:
        KansciError: why it failed, or how its process ended.
        KeyboardInterrupt: after the run has saved its state.
    """
    failure = call_in_process(run_and_draw, [name, preset, backend, str(results)])
    if failure:
        raise KansciError(failure)


def run_and_draw(arguments: list[str]) -> str:
    """What `run_in_own_process` asks for, in the process itself; why it failed, or empty."""
    from kansciml.runs.progress import Progress
    from kansciml.runs.registry import get_experiment
    from kansciml.runs.runner import resolved, run_experiment

    name, preset, backend, results = arguments
    progress = Progress()
    try:
        experiment = get_experiment(name)
        config = resolved(experiment, on_backend(experiment.preset(preset), backend), results, False, progress.log)
        experiment.draw(run_experiment(experiment, config, results=results, progress=progress))
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as error:  # whatever an experiment can raise: the others go on, and the page says it
        return str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"
    return ""
