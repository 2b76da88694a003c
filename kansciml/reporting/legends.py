"""Legends, and ticks of logarithmic axes, as the reports share them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kansciml.reporting.palette import FAINT, VariantStyle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SHARE = 0.25
"""Of a figure's height, up to which a legend is below it."""
NOTE_CHARACTERS = 19
"""Of a note, per inch of width."""
BESIDE = 5.0
"""Inches of width up to which a figure has room beside it."""
FEW_DECADES = 0.7
"""Decades of a logarithmic axis below which its ticks are evenly spaced."""
PLAIN = 1e-3, 1e4
"""Between which numbers at ticks are written out."""


def key(style: VariantStyle, label: str | None = None, line: bool = True, mark: bool = True, **look: Any) -> Line2D:
    """The entry of a legend for what is drawn in `style`, with its `line`, its `mark`, or both."""
    from matplotlib.lines import Line2D

    shown = {"linestyle": style.line if line else "", "marker": style.marker if mark else "", **look}
    return Line2D([], [], color=style.colour, label=label or style.name, **shown)


def hollow(label: str, **look: Any) -> Line2D:
    """The entry for marks that are drawn hollow, whatever their colour."""
    from matplotlib.lines import Line2D

    shown = {"marker": "o", "markerfacecolor": "white", "color": FAINT, **look}
    return Line2D([], [], linestyle="", label=label, **shown)


def place_legend(figure: Figure, handles: Sequence[Artist], note: str = "", **look: Any) -> None:
    """A legend under a note, below the panels, or beside them where it would take more than a quarter of the height.

    The figure grows by it: panels stay as large as they are.
    """
    look = {"handles": handles, "title_fontsize": 6.5, "handlelength": 2.6, **look}
    width, height = figure.get_size_inches()
    title = textwrap.fill(note, int(NOTE_CHARACTERS * width)) or None
    count = max(len(handles), 1)
    for columns in sorted({-(-count // rows) for rows in range(1, count + 1)}, reverse=True):
        legend = figure.legend(loc="outside lower center", ncols=columns, title=title, **look)
        size = legend.get_window_extent()
        # text is up to a tenth wider in the files than in the figure's own coarse pixels
        if columns == 1 or size.width <= 0.9 * figure.bbox.width:
            break
        legend.remove()
    if size.height > SHARE * figure.bbox.height and width < BESIDE:
        legend.remove()
        title = textwrap.fill(note, 32) or None
        legend = figure.legend(loc="outside right center", title=title, alignment="left", **look)
        figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, height)
    else:
        figure.set_size_inches(width, height + size.height / figure.dpi)
    legend.get_title().set_color(FAINT)


def uniform_ticks(figure: Figure) -> None:
    """The same kind of ticks on all logarithmic axes of base 10 of a figure: decades, more where there are fewer than
    two, and no minor ones; plain numbers where all panels' axes of the same direction are between 0.001 and 10,000,
    else powers of ten."""
    for name in ("xaxis", "yaxis"):
        _uniform([axis for axes in figure.axes if _is_log(axis := getattr(axes, name))])


def _is_log(axis: Axis) -> bool:
    from matplotlib.ticker import LogLocator

    return isinstance(axis.get_major_locator(), LogLocator) and getattr(axis.get_transform(), "base", 10) == 10


def _uniform(several: Sequence[Axis]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    views = [sorted(axis.get_view_interval()) for axis in several]
    plain = all(low > 0.5 * PLAIN[0] and high < 2 * PLAIN[1] for low, high in views)
    for axis, (low, high) in zip(several, views):
        decades = math.log10(high / low)
        if decades < FEW_DECADES:
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        else:
            powers = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
            few = (1.0, 2.0, 5.0) if plain else (1.0,) if powers > 1 else (1.0, 3.0)
            within = (1.0,) if decades >= 2 else few
            axis.set_major_locator(LogLocator(subs=within))
        axis.set_major_formatter(FuncFormatter(lambda value, _, plain=plain: f"{value:g}" if plain else power(value)))
        axis.set_minor_locator(NullLocator())


def power(value: float) -> str:
    """``10^-3`` or ``5 x 10^-3``, as mathematics; nothing for the 0 that evenly spaced ticks may begin with."""
    if value <= 0:
        return ""
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = f"{value / 10.0**exponent:.2g}"
    return rf"$10^{{{exponent}}}$" if factor == "1" else rf"${factor}\times10^{{{exponent}}}$"
