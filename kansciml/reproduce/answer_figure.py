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
from kansciml.runs.findings import ASIDE, COST, ELSEWHERE, EQUAL, ERROR, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.tables import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

MOST_LINES = 90
"""Lines; of more, those of errors elsewhere are left to the text."""
STRIP = 6
"""Tasks of a kind; more of them share one line, ordered by their ratios."""
LABEL = 37
"""Characters of a line's label before it is broken, once."""
WIDEST = 1e2
"""Ratios beyond it, both ways, are drawn at the axis' end."""
BLOCK = 30
"""Lines of one block; more of them stand in two, side by side."""
COLOURS = {KAN_BETTER: NETWORKS["kan"], MLP_BETTER: NETWORKS["mlp"], UNDECIDED: palette.UNDECIDED}
STEP = 0.068
"""Inches of height per ratio."""
HEAD, FOOT = 0.44, 0.24
"""Inches of height for what stands above the panels, and for their ticks."""
WIDTHS = 7.0, 8.2
"""Inches of width of one block and of two."""
SMALL = 6.4
"""Points of text in two blocks."""


class Line(NamedTuple):
    """A line of the picture; a heading has no rows."""

    text: str
    rows: Sequence[KanOverMlp]
    colour: str = TRUTH

    @property
    def size(self) -> int:
        """Places one below the other: as many as the fullest column has comparisons, or the text has lines."""
        counts = Counter(row.equal for row in self.rows)
        return max(counts.values(), default=0) and max(*counts.values(), self.text.count("\n") + 1)

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

    Many lines stand in two blocks. Call it within `publication_style`.
    """
    table = lines(rows)
    drawn = [row for line in table for row in line.rows]
    low, high = limits([row.outcome for row in drawn])
    ends = max(low, 1 / WIDEST), min(high, WIDEST)
    blocks = _blocks(table)
    height = max(map(_height, blocks))
    figure = new_figure(HEAD + height + FOOT, WIDTHS[len(blocks) - 1])
    for part, block in zip(figure.subfigures(1, len(blocks), squeeze=False)[0], blocks):
        _draw_block(part, block, ends, height, None if len(blocks) == 1 else SMALL)
    keys = [hollow(title, color=colour, markerfacecolor=colour, markersize=4) for title, colour in COLOURS.items()]
    place_legend(figure, keys, f"error or cost of the KAN over that of the MLP; {ratio_note(ALPHA)}")
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.03, wspace=0)
    return figure


def _blocks(table: Sequence[Line]) -> list[Sequence[Line]]:
    """The lines in one block or in two, parted before the heading that leaves both as low as can be."""
    starts = [place for place, line in enumerate(table) if not line.rows and place]
    if len(table) <= BLOCK or not starts:
        return [table]
    parts = min(([table[:place], table[place:]] for place in starts), key=lambda parts: max(map(_height, parts)))
    return list(parts)


def _height(block: Sequence[Line]) -> float:
    return height_of([("", [None] * line.size) for line in block], STEP)


def _draw_block(
    part: SubFigure, block: Sequence[Line], ends: tuple[float, float], height: float, size: float | None
) -> None:
    """One block, as high as the higher one; headings begin at its left edge and run over the panels."""
    from matplotlib.transforms import blended_transform_factory

    columns = [equal for equal in EQUAL if any(row.equal == equal for line in block for row in line.rows)]
    decades = -int(math.log10(1 / ends[0])), int(math.log10(ends[1]))
    ticks = sorted({10.0 ** decades[0], 1.0, 10.0 ** decades[1]})
    panels = part.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, equal in zip(panels, columns):
        ratio_panel(axes, [(line.text, line.marks(equal)) for line in block], ends, STEP)
        if len(ticks) > 1:
            axes.set_xticks(ticks, [format_number(tick, 1) for tick in ticks])
            for label, where in zip((axes.get_xticklabels()[0], axes.get_xticklabels()[-1]), ("left", "right")):
                label.set_ha(where)
        axes.set_title(EQUAL[equal].replace(" ", "\n"), pad=10, fontsize=size and 0.9 * size)
        for place, line in zip(axes.get_yticks(), block):
            if not line.rows:
                axes.axhspan(place - 0.9 * STEP, place + 0.9 * STEP, color=PAPER, linewidth=0, zorder=1.5)
        name_sides(axes, "KAN", "MLP", size=0.9 * (size or 7))
        axes.tick_params("y", labelsize=size)
        axes.tick_params("x", labelsize=size and 0.8 * size)
        axes.set_ylim(axes.get_ylim()[1] + height, None)
        for text in axes.texts:  # wider than their panels
            text.set_in_layout(False)
    panels[0].set_zorder(2)  # headings over the panels beside it
    across = blended_transform_factory(part.transSubfigure, panels[0].transData)
    for label, place, line in zip(panels[0].get_yticklabels(), panels[0].get_yticks(), block):
        label.set(color=line.colour)
        if not line.rows:
            label.set_visible(False)
            panels[0].text(
                0.01, place, line.text, transform=across, va="center", fontweight="bold", fontsize=size,
                in_layout=False, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip


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
        own.sort(key=lambda row: row.about == ELSEWHERE)  # a task's own error names its first line
        found.append(Line(heading(own[0]), ()))
        tasks = list(dict.fromkeys(row.task for row in own))
        shared = {f"{len(tasks)} tasks": own} if len(tasks) > STRIP else None
        for task, of_task in (shared or {task: [row for row in own if row.task == task] for task in tasks}).items():
            for measure in dict.fromkeys(row.measure for row in of_task):
                first = measure == of_task[0].measure
                text = task if first else measure
                text += f": {measure}" * (first and measure != own[0].measure)
                text = as_is("\n".join(textwrap.wrap(text, LABEL, max_lines=2, placeholder=" ...")))
                here = [row for row in of_task if row.measure == measure]
                found.append(Line(text, here, TRUTH if first else FAINT))
    return found
