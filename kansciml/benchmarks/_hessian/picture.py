"""Picture of ``kansciml bench hessian``: time of a Lanczos iteration, and errors. Drawn from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kansciml.reporting.style import FAINT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by the colour-blind; hatching tells the recurrence from the product in grey.
COLOURS = ("#D55E00", "#0072B2", "#56B4E9")
GROUP = 0.8
"""Part of the space between two quantities that their bars fill."""
FLOOR = 1e-8
"""Smallest error drawn: float32 tells none apart below."""


def iterations_and_errors(document: Mapping[str, Any]) -> Figure:
    """Left: milliseconds of an iteration, product and recurrence, by algorithm and backend. Right: errors, log axis.

    Args:
        document: of ``kansciml bench hessian --json``; without ``accuracy`` there is no right panel.

    Call it within `publication_style`.
    """
    errors = document["accuracy"]
    figure = new_figure(3.4)
    if errors is None:
        _iterations(figure.subplots(), document)
        return figure
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _iterations(left, document)
    _errors(right, errors["rows"])
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _iterations(axes: Axes, document: Mapping[str, Any]) -> None:
    bars = [(result["backend"], row) for result in document["results"] for row in result["rows"]]
    places = range(len(bars))
    products = [row["product_ms"] for _, row in bars]
    rest = [row["recurrence_ms"] for _, row in bars]
    colours = [COLOURS[0 if row["candidate"].startswith("PyHessian") else 1] for _, row in bars]
    axes.barh(places, products, color=colours, height=0.7)
    axes.barh(places, rest, left=products, color=colours, height=0.7, hatch="////", edgecolor="white", linewidth=0.3)
    for place, (_, row) in zip(places, bars):
        axes.annotate(
            f"{row['ratio']:.2f}", (row["iteration_ms"], place), xytext=(2, 0), textcoords="offset points",
            va="center", fontsize=5,
        )  # fmt: skip
    axes.set_yticks(places, [f"{row['candidate']}, {backend}" for backend, row in bars], fontsize=5)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("Lanczos iteration [ms]; hatched: recurrence")
    axes.set_title(f"{document['parameters']:,} parameters, {document['images']} images")


def _errors(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    sides = [name for name in rows[0] if name != "quantity"]
    height = GROUP / len(sides)
    for place, (side, colour) in enumerate(zip(sides, COLOURS)):
        at = [index - GROUP / 2 + (place + 0.5) * height for index in range(len(rows))]
        axes.barh(at, [max(row[side], FLOOR) for row in rows], 0.9 * height, label=side, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(left=FLOOR)
    axes.set_yticks(range(len(rows)), [row["quantity"] for row in rows], fontsize=5)
    axes.invert_yaxis()
    axes.grid(axis="x", color=FAINT, linewidth=0.3, alpha=0.5)
    axes.set_xlabel("error, equal numbers of products")
