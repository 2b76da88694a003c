"""Picture of a layer benchmark: what each layer costs beside an MLP's. Drawn from the benchmark's JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kansciml.reporting import palette
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import FAINT
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "textbook KAN": palette.TEXTBOOK,
    "SplineKAN, torch": palette.SEQUENCE[0],
    "SplineKAN, C++": palette.KAN,
    "RSWAFKAN": palette.RSWAF,
    **dict(zip(("InKAN", "pykan KANLayer", "fast-kan", "the GEMMs alone"), palette.SERIES)),
}
HATCHES = {", no edge scale": "////", ", compiled": "...."}
GROUP = 0.84
"""Part of the space between two shapes that their bars fill."""
PANELS = (
    ("both_ratio", "time over Linear + SiLU"),
    ("saved_bytes_per_input", "kept for backward [B/input]"),
)


def layer_ratios(document: Mapping[str, Any]) -> Figure:
    """Bars on log axes, grouped by shape: forward + backward time over the MLP's, and bytes kept for backward.

    Args:
        document: of ``kansciml bench layers --json``. Layers that failed have no bar.

    Call it within `publication_style`.
    """
    results = document["results"]
    names = list(dict.fromkeys(row["layer"] for result in results for row in result["rows"] if "error" not in row))
    figure = new_figure(4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    baseline = document["baseline"]
    others = [name for name in names if name != baseline]
    handles = _bars(upper, results, others, *PANELS[0])
    _bars(lower, results, others, *PANELS[1])
    upper.axhline(1.0, color=FAINT, linewidth=0.8, linestyle="--")
    for index, result in enumerate(results):
        saved = [row["saved_bytes_per_input"] for row in result["rows"] if row["layer"] == baseline]
        style = {"color": FAINT, "linewidth": 0.8, "linestyle": "--"}
        lower.hlines(saved, index - GROUP / 2, index + GROUP / 2, **style)
    labels = [f"{r['shape']}\n{r['inputs']} → {r['outputs']}, batch {r['batch']}" for r in results]
    lower.set_xticks(range(len(results)), labels)
    low, high = lower.get_ylim()
    lower.set_ylim(low / 2, high)  # bars on a log axis start where it does: the least must still be seen
    lower.tick_params(axis="x", length=0)
    lower.set_xlim(-0.5, len(results) - 0.5)
    upper.tick_params(axis="x", length=0)
    upper.set_title(
        f"One layer, forward + backward: G = {document['grid']}, {document['dtype']}, one thread; dashes: MLP"
    )
    place_legend(figure, handles)
    return figure


def _bars(axes: Axes, results: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, label: str) -> list[Any]:
    width = GROUP / max(len(names), 1)
    handles = []
    for place, name in enumerate(names):
        found = [
            (index, row[key])
            for index, result in enumerate(results)
            for row in result["rows"]
            if row["layer"] == name and "error" not in row
        ]
        x = [index - GROUP / 2 + (place + 0.5) * width for index, _ in found]
        heights = [value for _, value in found]
        hatch = next((hatch for ending, hatch in HATCHES.items() if name.endswith(ending)), None)
        plain = name
        for ending in HATCHES:
            plain = plain.removesuffix(ending)
        bars = axes.bar(
            x, heights, 0.9 * width, label=name, color=COLOURS.get(plain, FAINT), hatch=hatch,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
        handles.append(bars)
        if key == "both_ratio":
            for at, value in zip(x, heights):
                axes.annotate(
                    f"{value:.0f}" if value >= 9.95 else f"{value:.1f}", (at, value), xytext=(0, 1.5),
                    textcoords="offset points", ha="center", fontsize=5,
                )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel(label)
    return handles
