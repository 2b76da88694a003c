"""When is a KAN worth its cost against an MLP? All comparisons of finished runs, and what follows from them.

Usage::

    found = answer(page.entries)               # or records
    found.sentences, found.limits, found.details  # text, by rules, from
    found.rows                                 # ratios of errors, KAN over MLP, with intervals and verdicts
    kansciml.reproduce.answer_figure.draw(found, folder)

Nothing is tested here: every ratio, interval and verdict after Holm's correction is that of the experiment's own claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kansciml._errors import KansciError
from kansciml.reproduce.answer_words import details, limits, sentences
from kansciml.reproduce.page.content import FINISHED, Entry
from kansciml.reproduce.paper import known_names
from kansciml.runs.findings import EQUAL, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.records import Record
from kansciml.runs.registry import get_experiment


@dataclass(frozen=True)
class Answer:
    """What finished runs say of KANs against MLPs.

    Args:
        rows: one per task, measure and kind of equality. sentences: a paragraph of counts, at most four.
        limits: what the rows hold for, and what would change the answer; one line each.
        details: the tasks by name, with their ratios; a sentence per verdict, then of other equalities and measures.
    """

    rows: Sequence[KanOverMlp]
    sentences: Sequence[str]
    limits: Sequence[str]
    details: Sequence[str] = ()


def answer(runs: Iterable[Entry | Record]) -> Answer | None:
    """The answer that these runs give; None where none of those that are finished compares KANs with MLPs.

    Of the same comparison in two runs that of the greater `KanOverMlp.weight` counts, or else the first.
    """
    best: dict[tuple[str, ...], KanOverMlp] = {}
    every: list[KanOverMlp] = []
    records, problems = _records(runs), []
    for record in records:
        try:
            comparisons = get_experiment(record.experiment).comparisons
            rows = comparisons(record) if comparisons else []
        except KansciError as error:
            problems.append(f"The run {record.experiment}/{record.config_hash} is left out: {error}.")
            continue
        every += rows
        for row in rows:
            if row.key not in best or row.weight > best[row.key].weight:
                best[row.key] = row
    if not best:
        return None
    rows = list(best.values())
    beside = [*limits(rows), *_opposed(every, best), *_missing(records), *problems]
    return Answer(rows, sentences(rows), beside, details(rows))


def _records(runs: Iterable[Entry | Record]) -> list[Record]:
    found = [run.record if isinstance(run, Entry) else run for run in runs]
    return [record for record in found if record is not None and record.status == FINISHED]


def _opposed(every: Sequence[KanOverMlp], best: Mapping[tuple[str, ...], KanOverMlp]) -> list[str]:
    """Comparisons of which another run or backend, of less weight, decides the opposite."""
    told = dict.fromkeys(
        f"{row.task}, {row.measure}, {EQUAL[row.equal]}"
        for row in every
        if {row.verdict, best[row.key].verdict} == {KAN_BETTER, MLP_BETTER}
    )
    about = "Another run or backend, of no more seeds and iterations, finds the opposite"
    return [f"{about}: {'; '.join(told)}."] if told else []


def _missing(records: Sequence[Record]) -> list[str]:
    """Experiments that compare KANs with MLPs and were not run."""
    run = {record.experiment for record in records}
    found = []
    for name in known_names():
        try:
            experiment = get_experiment(name)
        except KansciError:
            continue
        if experiment.comparisons and name not in run:
            found.append(f"{name} ({experiment.item})" if experiment.item[:6] in ("Figure", "Table ") else name)
    return [f"Not run, and so without a say: {', '.join(found)}."] if found else []
