"""Report of Figure 1, extra memory of a KAN layer: reads the record only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.fig1.record import MEASURED, Maps, Spread
from kansciml.reporting.palette import FAINT, SHADE
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"equation_2": "Equation (2), as printed"} | {kind: f"measured: {name}" for kind, name in MEASURED.items()}
AXES = {"size": ("output size O", "input size I"), "batch": ("batch size B", "width I = O")}
UNDER = SHADE
"""Cells where the KAN layer needs no more than the fully connected one: a logarithm has no place for them."""


def summary(record: Record) -> list[Table]:
    """Ratios of measured extra memory to Equation (2) with the verdict in words; what the layers keep for backward."""
    maps = Maps.read(record)
    rows = []
    for kind in MEASURED:
        spreads = {
            "input x output size": Spread.of(maps.ratios("size", kind)),
            "width x batch size": Spread.of(maps.ratios("batch", kind)),
            "both maps": maps.spread(kind),
        }
        rows += [[PANELS[kind], where, own.min, own.median, own.max] for where, own in spreads.items()]
    notes = [
        *(verdict(kind, maps.spread(kind)) for kind in MEASURED),
        "measured: parameters, buffers and peak of one forward and backward pass, less those of nn.Linear + SiLU.",
        f"The misprint in Equation (1), I (O + 1) for O (I + 1), moves its total by up to {100 * maps.misprint:.2g} %"
        " here.",
    ]
    columns = ["layer", "map", "lowest ratio", "median ratio", "highest ratio"]
    names = {"linear": "nn.Linear + SiLU", **MEASURED}
    return [
        Table("Measured extra memory over Equation (2)", columns, rows, notes),
        Table(
            f"Numbers kept for the backward pass at I = O = {maps.config.widths[-1]}, B = {maps.config.batch}",
            ["layer", "per input and sample"],
            [[name, maps.kept[kind]] for kind, name in names.items()],
            ["The textbook layer's share per weight is counted in. Over the layers of a deep network it adds up."],
        ),
    ]


def verdict(kind: str, ratio: Spread) -> str:
    """One sentence on what Equation (2) says of a layer."""
    subject = {"textbook": "the textbook recursion", "ours": "SplineKAN"}[kind]
    said = (
        "too low" if ratio.min > 1 else "too high" if ratio.max < 1 else "too low at some sizes and too high at others"
    )
    return (
        f"Equation (2) is {said} for {subject}: it takes {ratio.min:.3g} to {ratio.max:.3g} times that"
        f" (median {ratio.median:.3g})."
    )


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``extra_memory`` (SVG, PNG, PDF) and ``tables`` (Markdown, JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), {"extra_memory": partial(heat_maps, Maps.read(record))})


def heat_maps(maps: Maps) -> Figure:
    """Two rows (by sizes, by batch) of three maps on one logarithmic scale; measured cells name their ratio to
    Equation (2)."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    config = maps.config
    shown = np.concatenate([maps.bytes[name][kind].ravel() for name in AXES for kind in PANELS]) / 2**20
    norm = LogNorm(shown[shown > 0].min(), shown.max())
    colours = colormaps["viridis"].with_extremes(bad=UNDER)
    figure = new_figure(4.9)
    grid = figure.subplots(len(AXES), len(PANELS), squeeze=False)
    ticks = {"size": config.widths, "batch": config.batches}
    for row, (name, labels) in zip(grid, AXES.items()):
        for axes, kind in zip(row, PANELS):
            values = maps.bytes[name][kind] / 2**20
            image = axes.imshow(
                np.ma.masked_less_equal(values, 0), norm=norm, cmap=colours, origin="lower", aspect="auto"
            )
            _ticks(axes, ticks[name], config.widths)
            axes.set_xlabel(labels[0])
            if kind in MEASURED:
                _ratios(axes, values, maps.ratios(name, kind), lambda value: colours(norm(value)))
        row[0].set_ylabel(labels[1])
    for axes, title in zip(grid[0], PANELS.values()):
        axes.set_title(title)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, pad=0.015)
    bar.set_label("extra memory over a fully connected layer [MiB, float32]")
    bar.outline.set_linewidth(0.6)
    note = f"above: B = {config.batch}, below: I = O; G = {config.grid}, S = {config.spline_order}"
    figure.supxlabel(f"{note}; number in a cell: measured over Equation (2)", fontsize=6.5, color=FAINT)
    return figure


def _ticks(axes: Axes, x: Sequence[int], y: Sequence[int]) -> None:
    axes.set_xticks(range(len(x)), [str(value) for value in x], rotation=45 if len(x) > 5 else 0)
    axes.set_yticks(range(len(y)), [str(value) for value in y])
    axes.tick_params(length=2)
    axes.spines[:].set_visible(False)


def _ratios(axes: Axes, values: np.ndarray, ratios: np.ndarray, colour_of: Callable[[float], tuple]) -> None:
    size = min(7.0, 34.0 / max(values.shape))
    for (y, x), ratio in np.ndenumerate(ratios):
        red, green, blue, _ = colour_of(float(values[y, x])) if values[y, x] > 0 else (0.8, 0.8, 0.8, 1)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        text = f"{ratio:.0f}" if abs(ratio) >= 9.95 else f"{ratio:.1f}" if abs(ratio) >= 0.995 else f"{ratio:.2f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
