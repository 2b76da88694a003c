"""Report of Figure 1, extra memory of a KAN layer: reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``config``: widths, batches, batch, grid, spline_order.
* ``result["ratio_to_equation_2"][kind]``: min, median and max over all cells, kind ``textbook`` or ``ours``.
* ``result["kept_per_input"][kind]``: numbers kept for backward per input and sample, at the largest width and
  ``batch``; kind also ``linear``.
* arrays in bytes: ``size.<kind>`` (inputs, outputs) and ``batch.<kind>`` (widths, batches), kind also ``equation_2``
  (as printed) and ``corrected``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.reporting.style import new_figure, publication_style, save_figure
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.tables import Table, save_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "equation_2": "Equation (2), as printed",
    "textbook": "measured: textbook recursion",
    "ours": "measured: SplineKAN",
}
MAPS = {"size": ("output size O", "input size I"), "batch": ("batch size B", "width I = O")}
UNDER = "#d0d0d0"
"""Cells where the KAN layer needs no more than the fully connected one: a logarithm has no place for them."""


def summary(record: Record) -> list[Table]:
    """Ratios of measured extra memory to Equation (2) with the verdict in words; what the layers keep for backward.

    Raises:
        KansciError: the record holds no finished run of fig1.
    """
    arrays = read_arrays(record)
    ratios = record.result["ratio_to_equation_2"]
    rows = []
    for kind in ("textbook", "ours"):
        for name, where in (("size", "input x output size"), ("batch", "width x batch size")):
            ratio = arrays[f"{name}.{kind}"] / arrays[f"{name}.equation_2"]
            rows.append([PANELS[kind], where, float(ratio.min()), float(np.median(ratio)), float(ratio.max())])
        rows.append([PANELS[kind], "both maps", *(ratios[kind][key] for key in ("min", "median", "max"))])
    printed = max(float(np.abs(arrays[f"{name}.equation_2"] / arrays[f"{name}.corrected"] - 1).max()) for name in MAPS)
    notes = [
        verdict(kind, ratios[kind]) for kind in ("textbook", "ours")
    ] + [
        "measured: parameters, buffers and peak of one forward and backward pass, less those of nn.Linear + SiLU.",
        f"The misprint in Equation (1), I (O + 1) for O (I + 1), moves its total by up to {100 * printed:.2g} % here.",
    ]  # fmt: skip
    columns = ["layer", "map", "lowest ratio", "median ratio", "highest ratio"]
    kept = record.result["kept_per_input"]
    width, batch = record.config["widths"][-1], record.config["batch"]
    names = {"linear": "nn.Linear + SiLU", "textbook": "textbook recursion", "ours": "SplineKAN"}
    return [
        Table("Measured extra memory over Equation (2)", columns, rows, notes),
        Table(
            f"Numbers kept for the backward pass at I = O = {width}, B = {batch}",
            ["layer", "per input and sample"],
            [[name, kept[kind]] for kind, name in names.items()],
            ["The textbook layer's share per weight is counted in. Over the layers of a deep network it adds up."],
        ),
    ]


def verdict(kind: str, ratio: dict[str, float]) -> str:
    """One sentence on what Equation (2) says of a layer, from the lowest, median and highest ratio."""
    subject = {"textbook": "the textbook recursion", "ours": "SplineKAN"}[kind]
    low, middle, high = (f"{ratio[key]:.3g}" for key in ("min", "median", "max"))
    if ratio["min"] > 1:
        said = "Equation (2) is too low for"
    elif ratio["max"] < 1:
        said = "Equation (2) is too high for"
    else:
        said = "Equation (2) is too low at some sizes and too high at others for"
    return f"{said} {subject}: it takes {low} to {high} times that (median {middle})."


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``extra_memory`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths.

    Raises:
        KansciError: the record holds no finished run of fig1, or the folder cannot be written.
    """
    arrays = read_arrays(record)
    paths = save_tables(summary(record), folder, "tables")
    with publication_style():
        figure = heat_maps(record.config, arrays)
    return [*paths, *save_figure(figure, folder, "extra_memory")]


def heat_maps(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Figure:
    """Two rows (by sizes, by batch) of three maps on one logarithmic scale; measured cells name their ratio to
    Equation (2)."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    shown = np.concatenate([arrays[f"{name}.{kind}"].ravel() for name in MAPS for kind in PANELS]) / 2**20
    positive = shown[shown > 0]
    norm = LogNorm(positive.min(), positive.max())
    colours = colormaps["viridis"].with_extremes(bad=UNDER)
    figure = new_figure(4.9)
    grid = figure.subplots(len(MAPS), len(PANELS), squeeze=False)
    ticks = {"size": (config["widths"], config["widths"]), "batch": (config["batches"], config["widths"])}
    for row, (name, labels) in zip(grid, MAPS.items()):
        reference = arrays[f"{name}.equation_2"]
        for axes, kind in zip(row, PANELS):
            values = arrays[f"{name}.{kind}"] / 2**20
            image = axes.imshow(
                np.ma.masked_less_equal(values, 0), norm=norm, cmap=colours, origin="lower", aspect="auto"
            )
            _ticks(axes, *ticks[name])
            axes.set_xlabel(labels[0])
            if kind != "equation_2":
                _ratios(axes, values, arrays[f"{name}.{kind}"] / reference, lambda v: colours(norm(v)))
        row[0].set_ylabel(labels[1])
    for axes, title in zip(grid[0], PANELS.values()):
        axes.set_title(title)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, pad=0.015)
    bar.set_label("extra memory over a fully connected layer [MiB, float32]")
    bar.outline.set_linewidth(0.6)
    note = f"above: B = {config['batch']}, below: I = O; G = {config['grid']}, S = {config['spline_order']}"
    figure.supxlabel(f"{note}; number in a cell: measured over Equation (2)", fontsize=6.5, color="#666666")
    return figure


def _ticks(axes: Axes, x: list[int], y: list[int]) -> None:
    axes.set_xticks(range(len(x)), [str(value) for value in x], rotation=45 if len(x) > 5 else 0)
    axes.set_yticks(range(len(y)), [str(value) for value in y])
    axes.tick_params(length=2)
    axes.spines[:].set_visible(False)


def _ratios(axes: Axes, values: np.ndarray, ratios: np.ndarray, colour_of: Any) -> None:
    size = min(7.0, 34.0 / max(values.shape))
    for (y, x), ratio in np.ndenumerate(ratios):
        red, green, blue, _ = colour_of(values[y, x]) if values[y, x] > 0 else (0.8, 0.8, 0.8, 1)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        text = f"{ratio:.0f}" if abs(ratio) >= 9.95 else f"{ratio:.1f}" if abs(ratio) >= 0.995 else f"{ratio:.2f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")


def read_arrays(record: Record) -> dict[str, np.ndarray]:
    """The maps, in bytes.

    Raises:
        KansciError: the record holds no finished run of fig1.
    """
    wanted = [f"{name}.{kind}" for name in MAPS for kind in (*PANELS, "corrected")]
    if record.experiment != "fig1" or any(name not in record.arrays for name in wanted):
        raise DamagedRecord(f"{record.folder} holds no finished run of fig1: kansciml run fig1 makes one")
    return record.arrays
