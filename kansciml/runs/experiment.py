"""What an experiment is: its settings, what it computes, and what is shown of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import UsageError, check_name
from kansciml._files import append_json_line
from kansciml.runs.findings import Finding, KanOverMlp
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record, drawn_files, note_drawn, reading
from kansciml.runs.settings import check_numbers
from kansciml.runs.tables import Table
from kansciml.runs.trained import Scoring, TrainedModel

BEYOND = "Beyond the paper"
"""`Experiment.item` of comparisons that the paper does not have."""


@dataclass
class Result:
    """What an experiment computed.

    Args:
        result: numbers and text in JSON types (non-finite floats are stored as null).
        arrays: named arrays of numbers.
    """

    result: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class RunContext:
    """What an experiment may use while it runs.

    Args:
        folder: results folder of this configuration.
        progress: bars on standard error; see `kansciml.runs.progress.Progress.task`.
        log: takes one line for the user (never standard output, which belongs to results).
        plan: what the experiment's `check` made of the configuration.
    """

    folder: Path
    progress: Progress
    log: Callable[[str], None]
    plan: Any = None
    _began: float = field(default_factory=time.monotonic)

    @property
    def checkpoints(self) -> Path:
        """Folder for whatever lets an interrupted run resume; kept until a run is forced anew."""
        return self.folder / "checkpoints"

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Append `values`, with ``elapsed_s`` since this session began, to ``metrics.jsonl``."""
        elapsed = round(time.monotonic() - self._began, 3)
        append_json_line(self.folder / "metrics.jsonl", {"elapsed_s": elapsed, **values})


@dataclass(frozen=True)
class Experiment:
    """What each module of `kansciml.experiments` exports as ``EXPERIMENT``.

    Args:
        name: the module's name, and the name on the command line.
        title: one line for lists. item: what it reproduces, e.g. ``"Figure 2"``.
        config: frozen dataclass whose defaults are the paper's settings.
        presets: configurations by name: ``smoke`` (seconds), ``small`` (minutes to hours on 2 cores), ``paper``.
        run: computes; plots nothing and writes nothing but checkpoints and metrics.
        render: reads the record only; writes pictures and tables into the folder and returns their paths.
        summary: the tables printed at the end of the command.
        check: raises UsageError for whatever is wrong with a configuration, before a folder is made for it; what it
            returns is the `plan` of the run.
        choices: what a configuration may stand for that leaves something to the machine, such as backend ``auto``, the
            preferred one first, and last one that asks nothing of it; itself where nothing is left open.
        resolve: (configuration, log) -> the one of those that this machine can run; starts what it needs.
        covers: whether a finished record holds all that a configuration asks for; if not, running it adds the rest.
        trained: the models of a finished run, for studies of their minima; None where nothing is trained.
        scoring: how ``kansciml evaluate`` scores the weights that a run kept; None where none are kept.
        findings: what a finished run says about the paper's claims, from the record alone; None where the paper
            claims nothing of it.
        comparisons: what a finished run says of KANs against MLPs, from the record alone; None where it has not both.
        order: place on the page of all results; those of equal order stand by name. None: it is not on the page.
        captions: of its pictures there, the most important first, by the stem of the file; ``*`` in a stem stands for
            any name, and braces in its caption for that name.
        costs: what presets take, in words; of ``smoke`` seconds.
        unshown: names of a record's arrays that neither tables and pictures nor models take: `kansciml.runs.archive`
            leaves them out.
    """

    name: str
    title: str
    item: str
    config: type
    presets: Mapping[str, Any]
    run: Callable[[Any, RunContext], Result]
    render: Callable[[Record, Path], list[Path]]
    summary: Callable[[Record], Table | list[Table]]
    check: Callable[[Any], object] = lambda config: None
    choices: Callable[[Any], Sequence[Any]] = lambda config: (config,)
    resolve: Callable[[Any, Callable[[str], None]], Any] = lambda config, log: config
    covers: Callable[[Any, Record], bool] = lambda config, record: True
    trained: Callable[[Record], Sequence[TrainedModel]] | None = None
    scoring: Scoring | None = None
    findings: Callable[[Record], Sequence[Finding]] | None = None
    comparisons: Callable[[Record], Sequence[KanOverMlp]] | None = None
    order: int | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, str] = field(default_factory=dict)
    unshown: Callable[[Record], Collection[str]] = lambda record: ()

    def preset(self, name: str) -> Any:
        """The configuration of preset `name`; UsageError if there is none of that name."""
        check_name(f"preset of {self.name}", name, self.presets)
        return self.presets[name]

    def accept(self, config: Any) -> Any:
        """Return the plan of `check` if `config` can be run.

        Raises:
            UsageError: it belongs to another experiment, a number in it means nothing, or `check` refuses it.
        """
        if not isinstance(config, self.config):
            raise UsageError(f"got a {type(config).__name__} for {self.name}: expected its {self.config.__name__}")
        check_numbers(config)
        return self.check(config)

    def tables(self, record: Record) -> list[Table]:
        """`summary` as a list. Raises DamagedRecord: the record lacks what they show."""
        with reading(record):
            tables = self.summary(record)
            return [tables] if isinstance(tables, Table) else list(tables)

    def draw(self, record: Record, anew: bool = False) -> list[Path]:
        """Pictures and tables of a finished record, in its folder: drawn if they are not all there, or with `anew`."""
        paths = None if anew else drawn_files(record)
        if paths is None:
            with reading(record):
                paths = self.render(record, record.folder)
            note_drawn(record, paths)
        return paths
