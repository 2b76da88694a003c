"""The tables and the picture of ``kansciml bench hessian``, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kansciml.benchmarks._hessian import accuracy
from kansciml.benchmarks._hessian.cases import LOADER, SINGLE, TEXTBOOK
from kansciml.benchmarks._measuring import Row, table_of, targets_table
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import FAINT, SERIES
from kansciml.reporting.style import new_figure
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = {
    "candidate": "algorithm",
    "product_ms": "product [ms]",
    "product_low_ms": "25 % [ms]",
    "product_high_ms": "75 % [ms]",
    "recurrence_ms": "recurrence [ms]",
    "iteration_ms": "iteration [ms]",
    "ratio": "iteration, x loader",
    "over_textbook": "x the same with textbook layers",
    "peak_bytes": "peak [MB]",
    "peak_gradients": "peak [gradients]",
}
COLOURS = SERIES[1], SERIES[0], SERIES[2]
"""Of PyHessian and of both ways here; hatching tells the recurrence from the product."""
GROUP = 0.8
"""Part of the space between two quantities that their bars fill."""
FLOOR = 1e-8
"""Smallest error drawn: float32 tells none apart below."""


def tables(document: Row) -> list[Table]:
    """Times and memory by backend, the plan, accuracy where it was compared, and the targets."""
    found = [_times(document, result) for result in document["results"]]
    found.append(_plan(document["plan"]))
    if document["accuracy"] is not None:
        found += _accuracy(document["accuracy"])
    return [*found, targets_table(document["targets"])]


def _times(document: Row, result: Row) -> Table:
    facts, gradient = document["machine"], 4 * document["parameters"]
    rows = [{**row, "peak_gradients": row["peak_bytes"] / gradient} for row in result["rows"]]
    notes = [
        f"One thread ({facts['cpu_capability']}), PyTorch {facts['torch']}, {document['dtype']}: processor time, "
        f"interleaved medians. Iteration: product + recurrence, which is the mean over {document['iterations']} steps.",
        f"{LOADER}: its defaults on a data set, the gradient's graph recomputed for every product; "
        f"{SINGLE.rpartition(', ')[2]}: its other way, the graph kept.",
        f"All use the same layers; {TEXTBOOK} (the recursion of efficient-kan): "
        f"{document['textbook']['product_ms']:.0f} ms a product.",
        "Peak: making the product and one call of it, tensors alive at once; the basis not counted.",
    ]
    title = f"Lanczos on {document['model']}: {document['parameters']:,} parameters, {document['images']} images, "
    return table_of(title + f"{result['backend']} kernels", rows, COLUMNS, notes)


def _plan(plan: Row) -> Table:
    gradient = plan["gradient_bytes"]
    named = {
        "said beforehand": plan["planned_bytes"],
        "measured peak": plan["measured_bytes"],
        "3 gradients and the basis": 3 * gradient + plan["basis_bytes"],
    }
    rows = [[name, size / 1e6, (size - plan["basis_bytes"]) / gradient] for name, size in named.items()]
    title = f"Memory of {plan['steps']} Lanczos steps, micro-batches of {plan['micro_batch']}"
    return Table(title, ["", "[MB]", "beyond the basis [gradients]"], rows, plan["text_all"].splitlines())


def _accuracy(found: Row) -> list[Table]:
    sides = (accuracy.THEIRS, accuracy.SAME, accuracy.BETTER)
    notes = [
        f"Root mean square over {found['probes']} probes, the same for the first two; float32 against all eigenvalues "
        f"in float64. At most {accuracy.PRODUCTS} products each: "
        + ", ".join(f"{side} {found['products'][side]}" for side in sides)
        + ".",
        "Trace: relative. Eigenvalues: by the largest |eigenvalue|. Wasserstein-1: by the mean |eigenvalue|. Counts: by"
        " the number of parameters.",
    ]
    title = f"Error of the spectral density: {found['parameters']:,} parameters, {found['images']} images"
    alone = "Theirs: Hutchinson's mean; power iteration. Ours: XTrace; Lanczos. Root mean square; mean of the products."
    return [
        table_of(title, found["rows"], {name: name for name in ("quantity", *sides)}, notes),
        table_of(
            "Relative error at as many products as PyHessian's own stopping rule takes",
            found["alone"],
            {name: name for name in ("quantity", accuracy.THEIRS, "kansciml", "products")},
            [alone],
        ),
    ]


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
    place_legend(figure, right.get_legend_handles_labels()[0])
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
