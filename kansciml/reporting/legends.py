"""Legends, and ticks of logarithmic axes, as the reports share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kansciml.reporting.style import FAINT, VariantStyle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


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


def legend_below(figure: Figure, handles: Sequence[Artist], note: str = "", most: int = 3, **look: Any) -> None:
    """A legend below the panels, in as many columns (up to `most`) as the figure is wide enough for, under a note."""
    for columns in range(min(most, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, title=note or None, title_fontsize=6.5,
            **{"handlelength": 2.6, **look},
        )  # fmt: skip
        # text is up to a tenth wider in the files than in the figure's own coarse pixels
        if columns == 1 or legend.get_window_extent().width <= 0.9 * figure.bbox.width:
            break
        legend.remove()
    legend.get_title().set_color(FAINT)


def log_ticks(
    axis: Axis, ends: tuple[float, float], text: Callable[[float], str] = "{:g}".format, few: float = 100.0
) -> None:
    """Plain numbers on a logarithmic axis between `ends`: at 1, 2, 5 up to a factor `few`, else at powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ends[1] < few * ends[0] else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())
