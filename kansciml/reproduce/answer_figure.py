"""One picture of all comparisons of KANs with MLPs: a line per task, a column per kind of equality."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import UNDECIDED
from kansciml.reporting.legends import key, legend_below
from kansciml.reporting.ratios import Ratio, height_of, limits, ratio_panel, sides
from kansciml.reporting.style import FAINT, VariantStyle, new_figure, publication_style, save_figure
from kansciml.reproduce.answer import Answer
from kansciml.runs.findings import COST, EQUAL, ERROR, KAN_BETTER, MLP_BETTER, KanOverMlp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    KAN_BETTER: VariantStyle(KAN_BETTER, "#D55E00", "-", "s"),
    MLP_BETTER: VariantStyle(MLP_BETTER, "#0072B2", "-", "o"),
    UNDECIDED: VariantStyle(UNDECIDED, FAINT, "-", "o"),
}
MOST_LINES = 16
"""Lines of one kind of task; of more those of errors beyond the training data are left to the text."""
LABEL = 30
"""Characters of a line's label before it is cut."""
MORE = "\n"
"""Between a task and what else was measured of it."""
NARROW = 4
"""Columns from which there is no room for more than a word on each side."""
SPAN = 30.0
"""Factor between an axis' ends from which only powers of ten are named."""
AROUND = 0.42
"""Inches that a panel takes beside its lines."""


def draw(answer: Answer, folder: Path) -> list[Path]:
    """Write ``answer.svg``, ``.png`` and ``.pdf`` into `folder`; returns their paths."""
    with publication_style():
        figure = answer_figure(answer.rows)
    return save_figure(figure, folder, "answer")


def answer_figure(rows: Sequence[KanOverMlp]) -> Figure:
    """The picture: panels below each other by kind of task, side by side by what is equal; colour tells the verdict.

    Call it within `publication_style`.
    """
    from matplotlib.ticker import LogLocator

    kinds = {kind: _drawn([row for row in rows if row.kind == kind]) for kind in dict.fromkeys(r.kind for r in rows)}
    columns = [equal for equal in EQUAL if any(row.equal == equal for row in rows if row.about != COST)]
    heights = [height_of([("", ())] * len(_lines(own))) + AROUND for own in kinds.values()]
    figure = new_figure(sum(heights) + 0.75)
    grid = figure.add_gridspec(len(kinds), max(len(columns), 1), height_ratios=heights)
    titled: set[object] = set()
    for place, (kind, own) in enumerate(kinds.items()):
        ends = limits([row.outcome for row in own])
        cost = all(row.about == COST for row in own)
        here = [own[0].equal] if cost else [equal for equal in columns if any(row.equal == equal for row in own)]
        for equal in here:
            axes = figure.add_subplot(grid[place, :] if cost else grid[place, columns.index(equal)])
            lines = _lines(own)
            ratio_panel(axes, [(name, _marks(line, equal)) for name, line in lines.items()], ends)
            if ends[1] > SPAN * ends[0]:
                axes.xaxis.set_major_locator(LogLocator(numticks=4))
            if equal == here[0]:
                _name(axes, own[0].measure.capitalize() if cost else f"{kind}, {own[0].measure}", lines)
            else:
                axes.tick_params(axis="y", labelleft=False)
            if cost or equal not in titled:
                axes.set_title(EQUAL[equal], pad=12)
                sides(axes, *((KAN_BETTER, MLP_BETTER) if cost or len(columns) < NARROW else ("KAN", "MLP")))
                titled.add(equal)
    keys = [key(style, markersize=4) for style in STYLES.values()]
    keys[-1].set_markerfacecolor("white")
    note = (
        f"Ratio KAN / MLP; bars: {100 * (1 - ALPHA):g} % intervals over paired seeds; colours: after Holm's correction"
    )
    legend_below(figure, keys, note)
    return figure


def _drawn(rows: Sequence[KanOverMlp]) -> list[KanOverMlp]:
    return list(rows) if len(_lines(rows)) <= MOST_LINES else [row for row in rows if row.about == ERROR]


def _lines(rows: Sequence[KanOverMlp]) -> dict[str, list[KanOverMlp]]:
    """Label -> what is drawn on one line: a task, and below it what else was measured of it."""
    found: dict[str, list[KanOverMlp]] = {}
    main = {row.task: row.measure for row in reversed(rows)}
    for task in dict.fromkeys(row.task for row in rows):
        for row in rows:
            if row.task == task:
                name = textwrap.shorten(task, LABEL, placeholder=" ...")
                found.setdefault(name if row.measure == main[task] else f"{name}{MORE}{row.measure}", []).append(row)
    return found


def _marks(line: Sequence[KanOverMlp], equal: str) -> list[Ratio]:
    return [Ratio(row.outcome, STYLES[row.verdict]) for row in line if row.equal == equal][:1]


def _name(axes: Axes, title: str, lines: Iterable[str]) -> None:
    """Write the title above the lines' names, and those of further measures paler."""
    axes.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(-4, 3), textcoords="offset points", ha="right", fontsize=7,
        fontweight="bold",
    )  # fmt: skip
    axes.set_yticks(axes.get_yticks(), [name.partition(MORE)[2] or name for name in lines])
    for text, name in zip(axes.get_yticklabels(), lines):
        text.set_color(FAINT if MORE in name else "black")
