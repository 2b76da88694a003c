"""One picture of all comparisons of KANs with MLPs: a line per task, a column per kind of equality."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import UNDECIDED
from kansciml.reporting import palette
from kansciml.reporting.legends import hollow, place_legend
from kansciml.reporting.palette import FAINT, NETWORKS, PAPER, TRUTH
from kansciml.reporting.ratios import Ratio, height_of, limits, name_sides, ratio_note, ratio_panel
from kansciml.reporting.style import as_is, new_figure, publication_style, save_figure
from kansciml.reproduce.answer import Answer
from kansciml.runs.findings import ASIDE, COST, EQUAL, ERROR, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.tables import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 60
"""Lines; of more, those of errors elsewhere are left to the text."""
STRIP = 6
"""Tasks of a kind; more of them share one line, ordered by their ratios."""
LABEL = 48
"""Characters of a line's label before it is cut."""
WIDEST = 1e3
"""Ratios beyond it, both ways, are drawn at the axis' end."""
COLOURS = {KAN_BETTER: NETWORKS["kan"], MLP_BETTER: NETWORKS["mlp"], UNDECIDED: palette.UNDECIDED}
NARROW = 4
"""Columns from which there is no room for more than a word on each side."""
STEP = 0.075
"""Inches of height per ratio."""
AROUND = 1.15
"""Inches of height for titles, ticks and legend."""


class Line(NamedTuple):
    """A line of the picture; a heading has no rows."""

    text: str
    rows: Sequence[KanOverMlp]
    colour: str = TRUTH
    weight: str = "normal"

    @property
    def size(self) -> int:
        """Places one below the other, as many as the fullest column has comparisons."""
        counts = Counter(row.equal for row in self.rows)
        return max(counts.values(), default=0)

    def marks(self, equal: str) -> list[Ratio | None]:
        """What stands on it in the column of one kind of equality."""
        own = [row.outcome for row in self.rows if row.equal == equal]
        own.sort(key=lambda outcome: (math.isnan(outcome.effect), outcome.effect))  # without pairs there is none
        return [*(Ratio(outcome, "o") for outcome in own), *[None] * (self.size - len(own))]


def draw(answer: Answer, folder: Path) -> list[Path]:
    """Write ``answer.svg``, ``.png`` and ``.pdf`` into `folder`; returns their paths: none where nothing is drawn."""
    if not lines(answer.rows):
        return []
    with publication_style():
        figure = answer_figure(answer.rows)
    return save_figure(figure, folder, "answer")


def answer_figure(rows: Sequence[KanOverMlp]) -> Figure:
    """The picture: tasks below each other, by kind; columns by what is equal; colour tells the verdict.

    Call it within `publication_style`.
    """
    table = lines(rows)
    drawn = [row for line in table for row in line.rows]
    columns = [equal for equal in EQUAL if any(row.equal == equal for row in drawn)]
    low, high = limits([row.outcome for row in drawn])
    ends = max(low, 1 / WIDEST), min(high, WIDEST)
    decades = -int(math.log10(1 / ends[0])), int(math.log10(ends[1]))
    ticks = sorted({10.0 ** decades[0], 1.0, 10.0 ** decades[1]})
    figure = new_figure(height_of([("", [None] * line.size) for line in table], STEP) + AROUND)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, equal in zip(panels, columns):
        ratio_panel(axes, [(line.text, line.marks(equal)) for line in table], ends, STEP)
        if len(ticks) > 1:
            axes.set_xticks(ticks, [format_number(tick, 1) for tick in ticks])
        axes.set_title(EQUAL[equal].replace(" ", "\n"), pad=12)
        for place, line in zip(axes.get_yticks(), table):
            if not line.rows:
                axes.axhspan(place - 0.9 * STEP, place + 0.9 * STEP, color=PAPER, linewidth=0, zorder=1.5)
        name_sides(axes, *((KAN_BETTER, MLP_BETTER) if len(columns) < NARROW else ("KAN", "MLP")))
    for text, line in zip(panels[0].get_yticklabels(), table):
        text.set(color=line.colour, fontweight=line.weight)
    keys = [hollow(title, color=colour, markerfacecolor=colour, markersize=4) for title, colour in COLOURS.items()]
    place_legend(figure, keys, f"error or cost of the KAN over that of the MLP; {ratio_note(ALPHA)}")
    return figure


def heading(row: KanOverMlp) -> str:
    """``Neural ODEs: training loss``; a kind that is a cost, or elsewhere, says what it is."""
    text = f"{row.kind}: {row.measure}" if row.about == ERROR else row.kind
    return text[:1].upper() + text[1:]


def lines(rows: Sequence[KanOverMlp]) -> list[Line]:
    """The kinds of tasks as headings, below each its tasks, and below those, paler, what else was measured of them."""
    kept = [row for row in rows if row.about != ASIDE]
    found = _lines(kept)
    return found if len(found) <= MOST_LINES else _lines([row for row in kept if row.about in (ERROR, COST)])


def _lines(rows: Sequence[KanOverMlp]) -> list[Line]:
    found = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        found.append(Line(heading(own[0]), (), weight="bold"))
        tasks = list(dict.fromkeys(row.task for row in own))
        shared = {f"{len(tasks)} tasks": own} if len(tasks) > STRIP else None
        for task, of_task in (shared or {task: [row for row in own if row.task == task] for task in tasks}).items():
            for measure in dict.fromkeys(row.measure for row in of_task):
                first = measure == of_task[0].measure
                text = task if first else measure
                text += f": {measure}" * (first and measure != own[0].measure)
                text = as_is(textwrap.shorten(text, LABEL, placeholder=" ..."))
                here = [row for row in of_task if row.measure == measure]
                found.append(Line(text, here, TRUTH if first else FAINT))
    return found
