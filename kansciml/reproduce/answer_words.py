"""Sentences on KANs against MLPs, and their limits, from comparisons by rules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from kansciml.analysis.paired import UNDECIDED
from kansciml.experiments.ode.tables import LEAST_CONVERGED
from kansciml.runs.findings import ASIDE, COST, ELSEWHERE, EQUAL, ERROR, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.tables import format_number

NAMED = 3
"""Tasks of one kind that a sentence names; of more it tells how many."""
COSTS = ("time", "flops", "evaluations", "width", "params")
"""Keys of `EQUAL` as the sentence on other kinds of equality names them."""
_WHOLE = re.compile(r"\d[\d,]*")
Rows = Sequence[KanOverMlp]


def leading(rows: Rows) -> list[KanOverMlp]:
    """One comparison of errors per task: the first of those that are equal in what stands first in `EQUAL`."""
    order, places = list(EQUAL), list(dict.fromkeys(map(_task, rows)))
    found: dict[tuple[str, str], KanOverMlp] = {}
    for row in sorted((row for row in rows if row.about == ERROR), key=lambda row: order.index(row.equal)):
        found.setdefault(_task(row), row)
    return sorted(found.values(), key=lambda row: places.index(_task(row)))


def sentences(rows: Rows) -> list[str]:
    """At most four, of counts: on how many tasks who is better, on which kinds, at equal cost, and elsewhere."""
    first = leading(rows)
    kinds = {kind: [row for row in first if row.kind == kind] for kind in dict.fromkeys(row.kind for row in first)}
    costs = {EQUAL[equal]: list(own.values()) for equal, own in _otherwise(rows, first).items()}
    elsewhere = _of_measures(rows, (ELSEWHERE,))
    ahead = _leaders({name: own for name, own in elsewhere.items() if len(set(_wins(own))) > 1})
    told = [f"elsewhere {ahead}"] * bool(ahead) + _costs(rows)
    texts = (_overall(first), _leaders(kinds, " on"), _leaders(costs, " at"), "; ".join(told))
    return [_sentence(text) for text in texts if text] or details(rows)


def details(rows: Rows) -> list[str]:
    """The same by name, with ratios: where KANs are better, where MLPs are, where it is open; then other equalities and
    other measures one by one."""
    first = leading(rows)
    return [_sentence(text) for text in (*_where(first), _at_equal_cost(rows, first), _elsewhere(rows)) if text]


def _overall(first: Rows) -> str:
    if not first:
        return ""
    kan, mlp, neither = (len(of(first, verdict)) for verdict in (KAN_BETTER, MLP_BETTER, UNDECIDED))
    held, *other = (EQUAL[equal] for equal in EQUAL if any(row.equal == equal for row in first))
    told = f"with {held}" + f" (else {' or '.join(other)})" * bool(other)
    told += f" KANs have the lower error on {kan or 'none'} of {_number(first, 'task')} and MLPs on {mlp or 'none'}"
    told += f"; {neither} {'is' if neither == 1 else 'are'} undecided" * bool(neither)
    capped = sum(map(_capped, first))
    return told + f"; {capped} of the {len(first)} {'was' if capped == 1 else 'were'} not trained to the end" * bool(
        capped
    )


def _leaders(groups: Mapping[str, Rows], where: str = "") -> str:
    """``KANs lead on formulas (6 to 3 of 12); MLPs on images (2 to 0 of 5)``: who is better on more of each group."""
    parts: list[str] = []
    for who, sign in (("KANs", 1), ("MLPs", -1), ("neither", 0)):
        own = []
        for name, rows in groups.items():
            kan, mlp = _wins(rows)
            if (kan > mlp) - (kan < mlp) == sign:
                own.append(f"{name} ({max(kan, mlp)} to {min(kan, mlp)} of {len(rows)})")
        verb = "" if parts else " lead" if sign else " leads"
        parts += [f"{who}{verb}{where} {', '.join(own)}"] * bool(own)
    return "; ".join(parts)


def _wins(rows: Rows) -> tuple[int, int]:
    return len(of(rows, KAN_BETTER)), len(of(rows, MLP_BETTER))


def _where(first: Rows) -> list[str]:
    """Up to three sentences, one for each verdict."""
    kan, mlp, neither = (of(first, verdict) for verdict in (KAN_BETTER, MLP_BETTER, UNDECIDED))
    if not first:
        return []
    equal = dict.fromkeys(row.equal for row in first)
    held = EQUAL[min(equal, key=list(EQUAL).index)] + ", or what is named instead," * (len(equal) > 1)
    found = [f"with {held} a KAN has the lower error on {len(kan) or 'none'} of {_number(first, 'task')}"]
    found[0] += f" (KAN / MLP): {_named(kan, first)}" if kan else " (ratios: KAN / MLP)"
    found.append(f"an MLP has it on {len(mlp)}: {_named(mlp, first)}" if mlp else "an MLP has it on none")
    verb = "is" if len(neither) == 1 else "are"
    return [*found, *[f"{len(neither)} {verb} undecided: {_named(neither, first)}"] * bool(neither)]


def _named(own: Rows, among: Rows) -> str:
    """``Spiral (0.31, 0.2 to 0.5); not trained to the end: 7 of 10 Feynman formulas (0.01 to 0.6)``."""
    ended = [row for row in own if not _capped(row)]
    capped = [row for row in own if _capped(row)]
    told = f"not trained to the end: {_listed(capped, among)}"
    return "; ".join([*[_listed(ended, among)] * bool(ended), *[told] * bool(capped)])


def _listed(own: Rows, among: Rows) -> str:
    """``Spiral (0.31, 0.2 to 0.5)``; of many of a kind ``7 of 10 Feynman formulas (0.01 to 0.6)``."""
    parts = []
    for kind, equal in dict.fromkeys((row.kind, row.equal) for row in own):
        rows, every = ([row for row in some if (row.kind, row.equal) == (kind, equal)] for some in (own, among))
        how = "" if equal == "params" else f", {EQUAL[equal]}"
        if len(rows) <= NAMED:
            parts += [f"{row.task}{how} ({ratio(row)})" for row in rows]
        else:
            parts.append(f"{len(rows)} of {len(every)} {kind}{how} ({_spread(rows)})")
    return "; ".join(parts)


def _otherwise(rows: Rows, first: Rows) -> dict[str, dict[tuple[str, str], KanOverMlp]]:
    """The comparisons of errors by what else is equal in them, and task."""
    main, found = {_task(row): row for row in first}, {}
    for equal in COSTS:
        own = {_task(row): row for row in reversed(rows) if row.about == ERROR and row.equal == equal}
        if other := {task: row for task, row in own.items() if main[task].equal != equal}:
            found[equal] = other
    return found


def _at_equal_cost(rows: Rows, first: Rows) -> str:
    """How often either side has the lower error with other things equal, and where that turns the verdict."""
    main = {_task(row): row for row in first}
    parts: list[str] = []
    turned: dict[str, list[str]] = {}
    for equal, other in _otherwise(rows, first).items():
        cut = "cut " * any(row.cut for row in other.values())
        parts.append(f"{cut}at {EQUAL[equal]} {_score(list(other.values()))}")
        for task, row in other.items():
            if {row.verdict, main[task].verdict} == {KAN_BETTER, MLP_BETTER}:
                turned.setdefault(row.task, []).append(EQUAL[equal].removeprefix("equal "))
    told = [f"{task} (with equal {', '.join(equals)})" for task, equals in turned.items()]
    return "; ".join([*parts, *[f"the verdict turns on {_some(told, NAMED)}"] * bool(told)])


def _elsewhere(rows: Rows) -> str:
    """Errors on other data than the task's own, with noise or other settings, and costs."""
    return "; ".join([*(f"{name} {_score(own)}" for name, own in _of_measures(rows).items()), *_costs(rows)])


def _of_measures(rows: Rows, about: Sequence[str] = (ELSEWHERE, ASIDE)) -> dict[str, Rows]:
    """``at later times``: the comparisons of it that are equal in what stands first in `EQUAL`."""
    found: dict[str, Rows] = {}
    for measure in dict.fromkeys(row.measure for row in rows if row.about in about):
        own = [row for row in rows if row.measure == measure]
        first = min((row.equal for row in own), key=list(EQUAL).index)
        found[f"{'at ' * (not measure.startswith('with '))}{measure}"] = [row for row in own if row.equal == first]
    return found


def _costs(rows: Rows) -> list[str]:
    costs = [row for row in rows if row.about == COST]
    own = {kind: [row for row in costs if row.kind == kind] for kind in dict.fromkeys(row.kind for row in costs)}
    return [
        f"the {kind} of KANs is {_spread(of)} times the MLPs' in {_number(of, 'model')}" for kind, of in own.items()
    ]


def _score(rows: Rows) -> str:
    kan, mlp = (len(of(rows, verdict)) or "none" for verdict in (KAN_BETTER, MLP_BETTER))
    short = sum(row.verdict != UNDECIDED and _capped(row) for row in rows)
    told = f" ({short} of these not trained to the end)" * bool(short)
    return f"KANs lead on {kan} and MLPs on {mlp} of {_number(rows, 'task')}{told}"


def limits(rows: Rows) -> list[str]:
    """What the comparisons hold for, and what would change the answer: one line each."""
    families = "Verdicts are corrected over the claims of one kind of one run each, not over all of these together."
    return [*_sizes(rows), *_unfinished(rows), *_cut(rows), *_open(rows), *[families] * (len(rows) > 1)]


def _sizes(rows: Rows) -> list[str]:
    found = []
    for kind in dict.fromkeys(row.kind for row in rows if row.about != COST):
        own = [row for row in rows if row.kind == kind]
        sizes = _range([size for row in own for size in row.parameters or ()])
        seeds = _range([row.outcome.n_pairs for row in own])
        budgets = " or ".join(_budgets([row.budget for row in own if row.budget]))
        found.append(f"{kind}: {sizes} parameters, {seeds} paired seeds" + (f", at most {budgets}" if budgets else ""))
    return [f"Holds for these sizes and budgets: {'; '.join(found)}."] if found else []


def _budgets(texts: Sequence[str]) -> list[str]:
    """``4,000 to 9,000 steps``: of texts that differ in their numbers alone one, with their ranges."""
    found: dict[str, list[list[int]]] = {}
    for text in texts:
        numbers = [int(number.replace(",", "")) for number in _WHOLE.findall(text)]
        found.setdefault(_WHOLE.sub("{}", text), []).append(numbers)
    return [text.format(*map(_range, zip(*numbers))) for text, numbers in found.items()]


def _unfinished(rows: Rows) -> list[str]:
    known = [row for row in rows if row.ended and row.about in (ERROR, ELSEWHERE)]
    least = f"{100 * LEAST_CONVERGED:g} %"
    parts: list[str] = []
    for kind in dict.fromkeys(row.kind for row in known):
        every = [row for row in known if row.kind == kind]
        capped = [row for row in every if _capped(row)]
        named = list(dict.fromkeys(map(_shares, capped)))  # of each task once, whatever was measured of it
        if len(named) <= NAMED:
            parts += named
        else:
            parts.append(f"{len(capped)} of {len(every)} comparisons of {kind}")
    if not parts:
        told = f"In all {_number(known, 'comparison')} of ends at least {least} of either side's trainings had ended."
        return [told] if known else []
    return [
        f"A larger budget may change who is better where less than {least} of one side's trainings had ended on a"
        f" plateau or at their noise floor: {'; '.join(parts)}."
    ]


def _cut(rows: Rows) -> list[str]:
    """Where the error is that of a training which went on."""
    costs = ", ".join(dict.fromkeys(row.cut for row in rows if row.cut))
    told = (
        f"The dearer of two trainings is cut where it has cost as much as the other in {costs}: its error then counts."
    )
    return [told] if costs else []


def _capped(row: KanOverMlp) -> bool:
    return row.ended is not None and min(row.ended) < LEAST_CONVERGED


def _shares(row: KanOverMlp) -> str:
    kan, mlp = (f"{100 * share:.0f} %" for share in row.ended or ())
    return f"{row.task}, {EQUAL[row.equal]} (KANs {kan}, MLPs {mlp})"


def _open(rows: Rows) -> list[str]:
    """What more seeds would decide of what is undecided, but for trainings that had not ended."""
    tested = [row for row in rows if row.verdict == UNDECIDED and not math.isnan(row.outcome.p_value)]
    rest, found = [row for row in tested if not _capped(row)], []
    few = [row for row in rest if row.outcome.n_pairs < row.outcome.needed]
    if few:
        most = max(row.outcome.needed for row in few)
        found.append(f"{_number(few, 'comparison')} would take {most} seeds to be decided after Holm's correction.")
        rest = [row for row in rest if row not in few]
    alone = [row for row in rest if row.uncorrected != UNDECIDED]
    if alone:
        told = [f"{row.task}, {row.measure}, {EQUAL[row.equal]} ({ratio(row)})" for row in alone]
        found.append(f"More seeds may decide what only Holm's correction leaves open: {_some(told, NAMED)}.")
        rest = [row for row in rest if row not in alone]
    if rest:
        ends = min(row.outcome.low for row in rest), max(row.outcome.high for row in rest)
        low, high = map(_short, ends)
        many = _number(rest, "comparison")
        found.append(f"In {many} seeds differ more than models: a ratio between {low} and {high} is not ruled out.")
    return found


def of(rows: Iterable[KanOverMlp], verdict: str) -> list[KanOverMlp]:
    """Those with a verdict."""
    return [row for row in rows if row.verdict == verdict]


def ratio(row: KanOverMlp) -> str:
    """``0.31, 0.22 to 0.48``: the ratio and its interval, if it has one."""
    effect, low, high = (_short(value) for value in (row.outcome.effect, row.outcome.low, row.outcome.high))
    return effect if math.isnan(row.outcome.low) else f"{effect}, {low} to {high}"


def _short(value: float) -> str:
    """To two digits, and to three next to 1, where two would not tell on which side it lies."""
    return format_number(value, 3 if abs(value - 1) < 0.1 else 2)


def _task(row: KanOverMlp) -> tuple[str, str]:
    return row.kind, row.task


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _spread(rows: Rows) -> str:
    return _range([row.outcome.effect for row in rows if not math.isnan(row.outcome.effect)], _short)


def _range(values: Sequence[float], text: Callable[[float], str] = "{:,}".format) -> str:
    low, high = (text(end) for end in (min(values), max(values))) if values else ("unknown", "unknown")
    return low if low == high else f"{low} to {high}"


def _number(rows: Sequence[object], what: str) -> str:
    return f"{len(rows)} {what}{'s' * (len(rows) != 1)}"


def _some(texts: Sequence[str], most: int) -> str:
    rest = [f"and {len(texts) - most} more"] if len(texts) > most + 1 else list(texts[most:])
    return "; ".join([*texts[:most], *rest])
