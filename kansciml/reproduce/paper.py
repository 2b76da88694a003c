"""The paper in one command: which runs belong to which item, and what each of them has to show on the page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from kansciml import __version__
from kansciml._errors import KansciError, unknown_name
from kansciml._files import to_jsonable
from kansciml.reproduce.page.captions import importance
from kansciml.reproduce.page.content import FAILED, FINISHED, MISSING, UNFINISHED, Entry, Page, PaperError, Setting
from kansciml.reproduce.process import run_in_own_process
from kansciml.runs.experiment import Experiment
from kansciml.runs.records import Record, find_record
from kansciml.runs.registry import available_experiments, get_experiment
from kansciml.runs.runner import is_finished, result_folder

PAPER = ("fig1", "fig2", "fig3", "fig4a", "fig4b", "table1", "fig5")
"""Experiments in the order in which the paper shows what they reproduce."""
BEYOND = ("fair",)
"""Comparisons that the paper does not have; shown where there are such experiments."""
ALL = "all"
PRESETS = ("smoke", "small", "paper")

Runner = Callable[[str, str, Path], None]
"""Runs or resumes an experiment's preset in a results folder, and draws its pictures; raises KansciError."""
T = TypeVar("T")


def known_names() -> list[str]:
    """Experiments that the page has a section for, in its order."""
    available = available_experiments()
    return [name for name in (*PAPER, *BEYOND) if name in available]


def chosen_names(names: Sequence[str]) -> list[str]:
    """What is asked for, in the page's order and each once; nothing or ``all`` means everything.

    Raises:
        UsageError: a name that the page has no section for.
    """
    known = known_names()
    for name in names:
        if name != ALL and name not in known:
            raise unknown_name("item", name, [ALL, *known])
    return known if not names or ALL in names else [name for name in known if name in names]


def reproduce(
    names: Sequence[str],
    preset: str,
    results: Path,
    *,
    log: Callable[[str], None],
    run: Runner | None = run_in_own_process,
    show: Callable[[Page], object] = lambda page: None,
) -> Page:
    """Run what is missing of `names`, resume what is unfinished, and collect everything there is for the page.

    A run that fails is noted, and the next one begins. Runs that are not asked for are on the page as they are.

    Args:
        names: as from `chosen_names`. preset: one of `PRESETS`. results: folder of all results.
        log: takes lines for the user.
        run: runs one experiment; None: nothing is run.
        show: given the page so far after every run, so that an interrupt leaves a page of what was done before it.

    Raises:
        UsageError: an unknown preset.
        KeyboardInterrupt: passed on after the state of the run was saved.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    known = known_names()
    entries = {name: gather(name, preset, results) for name in known}

    def page() -> Page:
        errors, problem = _attempt(_errors_of_paper, [])
        made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        ordered = [entries[name] for name in known]
        return Page(preset, ordered, errors, problem, made, __version__)

    for number, name in enumerate(names if run is not None else (), 1):
        if entries[name].status == FINISHED:
            continue
        log(f"reproduce: {name}, preset {preset} ({number} of {len(names)})")
        failure = _run(name, preset, results, run)
        if failure:
            log(f"{name}: {failure}")
        entries[name] = gather(name, preset, results, failure)
        show(page())
    return page()


def gather(name: str, preset: str, results: Path, failure: str = "") -> Entry:
    """What there is of one experiment's preset; pictures that a finished run has not yet are drawn.

    Args:
        failure: why running it just failed, or empty.
    """
    command = f"kansciml run {name} --preset {preset}"
    if results != Path("results"):
        command += f" --results {shlex.quote(str(results))}"
    beyond = name in BEYOND
    try:
        experiment = get_experiment(name)
        config = experiment.preset(preset)
        shared: dict[str, Any] = {"name": name, "item": experiment.item, "title": experiment.title}
        shared |= {"command": command, "beyond": beyond}
        folder = result_folder(experiment, config, results)
        record = find_record(folder)
    except KansciError as error:
        item, title = _names_of(name)
        return Entry(name, item, title, command, FAILED, str(error), beyond=beyond)
    if failure:
        return Entry(**shared, status=FAILED, message=_remedy(failure), record=record)
    if record is None:
        return Entry(
            **shared, status=MISSING, message="There is no run of this preset yet: the command below makes one."
        )
    if record.status == "failed":
        return Entry(**shared, status=FAILED, message=_remedy(record.message), record=record)
    if record.status != "finished":
        text = "The run is not finished: another process is at work on it, or it was stopped; the command resumes it."
        return Entry(**shared, status=UNFINISHED, message=text, record=record)
    return _finished(experiment, config, record, shared)


def _finished(experiment: Experiment, config: Any, record: Record, shared: Mapping[str, Any]) -> Entry:
    """The entry of a finished run: a part that cannot be made is named, and the others are shown."""
    find = experiment.findings or (lambda record: [])
    findings, why_findings = _attempt(lambda: list(find(record)), [])
    tables, why_tables = _attempt(lambda: experiment.tables(record), [])
    pictures, why_pictures = _attempt(lambda: pictures_of(experiment, record), [])
    named = (("findings", why_findings), ("tables", why_tables), ("pictures", why_pictures))
    first = [stem for finding in findings for stem in finding.figures]

    def place(path: Path) -> tuple[int, int]:
        shown = first.index(path.stem) if path.stem in first else len(first)
        return shown, importance(experiment.name, path.stem)

    return Entry(
        **shared,
        status=FINISHED,
        record=record,
        tables=tables,
        findings=findings,
        pictures=sorted(pictures, key=place),
        settings=settings(config, experiment.presets.get("paper", config)),
        problems=[f"Its {what} cannot be shown: {why}" for what, why in named if why],
    )


def pictures_of(experiment: Experiment, record: Record) -> list[Path]:
    """Paths of a finished run's SVG pictures, sorted; they are drawn if they are not all there."""
    return sorted(path for path in experiment.draw(record) if path.suffix == ".svg")


def settings(config: Any, paper: Any) -> list[Setting]:
    """All settings that count, nested ones by dotted names, beside those of the paper's preset."""
    here, printed = dict(_flat(config)), dict(_flat(paper))
    return [Setting(name, _text(value), _text(printed.get(name))) for name, value in here.items()]


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.compare:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _flat(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", to_jsonable(value)


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "default"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value)


def _run(name: str, preset: str, results: Path, run: Runner) -> str:
    """Run one experiment; why it failed, or empty."""
    try:
        if not is_finished(experiment := get_experiment(name), experiment.preset(preset), results):
            run(name, preset, results)
    except KansciError as error:
        return str(error)
    return ""


def _attempt(make: Callable[[], T], otherwise: T) -> tuple[T, str]:
    """What `make` returns and no complaint, or `otherwise` and why not: one part's fault must not take the page."""
    try:
        return make(), ""
    except Exception as error:
        return otherwise, str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"


@cache
def _errors_of_paper() -> list[PaperError]:
    from kansciml.reproduce.paper_errors import paper_errors

    return paper_errors()


def _names_of(name: str) -> tuple[str, str]:
    """Item and title of an experiment; its name where it cannot be loaded."""
    try:
        experiment = get_experiment(name)
    except KansciError:
        return name, "This experiment cannot be loaded"
    return experiment.item, experiment.title


def _remedy(why: str) -> str:
    return f"The run failed: {why.rstrip('.')}. The command below resumes it."
