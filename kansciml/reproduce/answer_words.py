"""Sentences on KANs against MLPs, and their limits, from comparisons by rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from kansciml.analysis.paired import UNDECIDED
from kansciml.experiments.ode.tables import LEAST_CONVERGED
from kansciml.runs.findings import BEYOND_TRAINING, COST, EQUAL, ERROR, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.tables import format_number

NAMED = 3
"""Tasks of one kind that a sentence names; of more it tells how many."""
Rows = Sequence[KanOverMlp]


def leading(rows: Rows) -> list[KanOverMlp]:
    """One comparison of errors per task: the first of those that are equal in what stands first in `EQUAL`."""
    order = list(EQUAL)
    found: dict[tuple[str, str], KanOverMlp] = {}
    for row in sorted((row for row in rows if row.about == ERROR), key=lambda row: order.index(row.equal)):
        found.setdefault((row.kind, row.task), row)
    places = list(dict.fromkeys((row.kind, row.task) for row in rows))
    return sorted(found.values(), key=lambda row: places.index((row.kind, row.task)))


def sentences(rows: Rows) -> list[str]:
    """At most five: where KANs are better, where MLPs are, where it is open, at equal cost, and beyond the training."""
    first = leading(rows)
    found = [_where(first, verdict, text) for verdict, text in WORTH.items()] if first else []
    return [text for text in [*found, _at_equal_cost(rows, first), _beyond(rows)] if text]


WORTH = {
    KAN_BETTER: "a KAN has the lower error on {}",
    MLP_BETTER: "an MLP has the lower error on {}",
    UNDECIDED: "it is undecided on {}",
}


def _where(rows: Rows, verdict: str, text: str) -> str:
    own, equal = of(rows, verdict), {row.equal for row in rows}
    start = "" if verdict != KAN_BETTER else f"With {EQUAL[rows[0].equal]} "
    if len(equal) > 1 and start:
        start = "With equal parameters (where that was not run, as named) "
    count = f"{len(own) or 'none'} of {_number(rows, 'task')}"
    told = text.format(count) + (f": {_named(own, rows, verdict == UNDECIDED)}" if own else "")
    return f"{(start + told)[:1].upper()}{(start + told)[1:]}."


def _named(own: Rows, among: Rows, bare: bool) -> str:
    """``Spiral (0.31, 0.2 to 0.5)``; of many of a kind ``7 of 10 Feynman formulas (0.01 to 0.6)``."""
    parts = []
    for kind in dict.fromkeys(row.kind for row in own):
        rows, every = ([row for row in some if row.kind == kind] for some in (own, among))
        how = "" if rows[0].equal == "params" else f", {EQUAL[rows[0].equal]}"
        if len(rows) <= NAMED:
            parts += [f"{row.task}{how}{'' if bare else f' ({ratio(row)})'}" for row in rows]
        else:
            parts.append(f"{len(rows)} of {len(every)} {kind}{how}{'' if bare else f' ({_spread(rows)})'}")
    return "; ".join(parts)


def _at_equal_cost(rows: Rows, first: Rows) -> str:
    """How often either side has the lower error with other things equal, and where that turns the verdict."""
    parts, turned = [], []
    main = {(row.kind, row.task): row for row in first}
    for equal, name in EQUAL.items():
        own = {(row.kind, row.task): row for row in reversed(rows) if row.about == ERROR and row.equal == equal}
        other = {key: row for key, row in own.items() if main[key].equal != equal}
        if other:
            found = [len(of(list(other.values()), verdict)) for verdict in (KAN_BETTER, MLP_BETTER)]
            parts.append(f"at {name} KANs lead on {found[0]} and MLPs on {found[1]} of {_number(other, 'task')}")
        turned += [
            f"{row.task} ({row.verdict} at {name}, {main[key].verdict} at {EQUAL[main[key].equal]})"
            for key, row in other.items()
            if UNDECIDED not in (row.verdict, main[key].verdict) and row.verdict != main[key].verdict
        ]
    told = f"; the verdict turns on {_some(turned)}" if turned else ""
    return f"{'; '.join(parts)}{told}."[:1].upper() + f"{'; '.join(parts)}{told}."[1:] if parts else ""


def _beyond(rows: Rows) -> str:
    """Errors on other data than the task's own, and costs."""
    parts = []
    for measure in dict.fromkeys(row.measure for row in rows if row.about == BEYOND_TRAINING):
        own = [row for row in rows if row.measure == measure]
        least = [row for row in own if row.equal == min((one.equal for one in own), key=list(EQUAL).index)]
        found = [len(of(least, verdict)) for verdict in (KAN_BETTER, MLP_BETTER)]
        at = measure if measure.startswith("with") else f"at {measure}"
        parts.append(f"{at} KANs err less on {found[0]} and MLPs on {found[1]} of {_number(least, 'task')}")
    for measure in dict.fromkeys(row.measure for row in rows if row.about == COST):
        own = [row for row in rows if row.measure == measure]
        parts.append(f"the {measure} of KANs is {_spread(own)} times the MLPs' in {_number(own, 'model')}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def limits(rows: Rows) -> list[str]:
    """What the comparisons hold for, and what would change the answer: one line each."""
    return [*_sizes(rows), *_unfinished(rows), *_open(rows)]


def _sizes(rows: Rows) -> list[str]:
    found = []
    for kind in dict.fromkeys(row.kind for row in rows if row.about != COST):
        own = [row for row in rows if row.kind == kind]
        sizes = _range([size for row in own for size in row.parameters or ()])
        seeds = _range([row.outcome.n_pairs for row in own])
        budgets = " or ".join(dict.fromkeys(row.budget for row in own if row.budget))
        found.append(f"{kind}: {sizes} parameters, {seeds} paired seeds" + (f", at most {budgets}" if budgets else ""))
    return [f"Holds for these sizes and budgets: {'; '.join(found)}."] if found else []


def _unfinished(rows: Rows) -> list[str]:
    known = [row for row in rows if row.ended and row.about == ERROR]
    capped = [row for row in known if min(row.ended or ()) < LEAST_CONVERGED]
    if not known:
        return []
    least = f"{100 * LEAST_CONVERGED:g} %"
    if not capped:
        return [
            f"In all {len(known)} comparisons at least {least} of the trainings of either side had ended by itself."
        ]
    named = _some([_shares(row) for row in capped])
    return [
        f"In {len(capped)} of {len(known)} comparisons less than {least} of one side's trainings had ended on a plateau"
        f" or at their noise floor, and a larger budget may change who is better: {named}."
    ]


def _shares(row: KanOverMlp) -> str:
    kan, mlp = (f"{100 * share:.0f} %" for share in row.ended or ())
    return f"{row.task}, {EQUAL[row.equal]} (KANs {kan}, MLPs {mlp})"


def _open(rows: Rows) -> list[str]:
    """Which undecided comparisons more seeds, or nothing, would decide."""
    tested = [row for row in rows if row.verdict == UNDECIDED and not math.isnan(row.outcome.p_value)]
    finished = [row for row in tested if not row.ended or min(row.ended) >= LEAST_CONVERGED]
    few = [row for row in finished if row.outcome.n_pairs < row.outcome.needed]
    alone = [row for row in finished if row.uncorrected != UNDECIDED and row not in few]
    found = []
    if few:
        most = max(row.outcome.needed for row in few)
        found.append(
            f"{len(few)} undecided comparisons have too few seeds to be decided after Holm's correction: {most} can."
        )
    if alone:
        found.append(f"More seeds may decide what only Holm's correction leaves open: {_some(map(_short, alone))}.")
    rest = [row for row in finished if row not in few and row not in alone]
    if rest:
        low, high = min(row.outcome.low for row in rest), max(row.outcome.high for row in rest)
        found.append(
            f"In {_number(rest, 'further undecided comparison')} the intervals hold both sides of 1, from"
            f" {format_number(low, 2)} to {format_number(high, 2)} in all: there the seeds differ more than the models."
        )
    return found


def _short(row: KanOverMlp) -> str:
    return f"{row.task}, {row.measure}, {EQUAL[row.equal]} ({ratio(row)})"


def of(rows: Iterable[KanOverMlp], verdict: str) -> list[KanOverMlp]:
    """Those with a verdict."""
    return [row for row in rows if row.verdict == verdict]


def ratio(row: KanOverMlp) -> str:
    """``0.31, 0.22 to 0.48``: the ratio and its interval, if it has one."""
    effect, low, high = (format_number(value, 2) for value in (row.outcome.effect, row.outcome.low, row.outcome.high))
    return effect if math.isnan(row.outcome.low) else f"{effect}, {low} to {high}"


def _spread(rows: Rows) -> str:
    return _range([row.outcome.effect for row in rows], lambda value: format_number(value, 2))


def _range(values: Sequence[float], text: Callable[[float], str] = "{:,}".format) -> str:
    low, high = (text(end) for end in (min(values), max(values))) if values else ("unknown", "unknown")
    return low if low == high else f"{low} to {high}"


def _number(rows: Iterable[object], what: str) -> str:
    count = len(list(rows))
    return f"{count} {what}{'s' * (count != 1)}"


def _some(texts: Iterable[str], most: int = 6) -> str:
    found = list(texts)
    rest = [f"and {len(found) - most} more"] if len(found) > most + 1 else found[most:]
    return "; ".join([*found[:most], *rest])
