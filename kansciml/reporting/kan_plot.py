"""Picture of a KAN's edge functions: the network as a diagram where it is small, else a grid of panels a layer.

The diagram follows Figure 2.1 of Liu et al. 2024: nodes as dots, one column a layer, and on each edge its own curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kansciml._errors import UsageError
from kansciml.reporting.palette import FAINT, SHADE, TRUTH
from kansciml.reporting.style import WIDTH, new_figure, publication_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Sequence[tuple[np.ndarray, np.ndarray]]
DIAGRAM_EDGES = 20
"""Edges of one layer above which a diagram could not be read."""
DIAGRAM_LAYERS = 4
PALEST = 0.15
"""Darkness of an edge of norm 0, of 1: it stays visible."""
COLUMNS = 8
"""Panels in a row of the grid."""


def edge_functions_figure(
    curves: Curves,
    norms: Sequence[np.ndarray] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    max_panels: int = 64,
) -> Figure:
    """Every edge's function, the darker the larger its norm in its layer.

    Up to 20 edges a layer and 4 layers: a diagram, from the inputs on the left to the outputs on the right. Otherwise
    a grid of panels, the edges of largest norm first; a line below says how many are left out.

    Args:
        curves: per layer x (n, I) and y (n, I, O): the edge from i to o takes x[:, i] to y[:, i, o]. The x of each
            column increase. O of a layer is I of the next.
        norms: per layer (I, O) at least 0 (default: the mean of abs(y) over the curve).
        inputs, outputs: names of the first and the last nodes (default: x1 ..., y1 ...).
        max_panels: panels in the grid (default 64).

    Raises:
        UsageError: no layers, shapes that do not belong together, numbers that are not finite, max_panels below 1.
    """
    curves = _checked(curves)
    if max_panels < 1:
        raise UsageError(f"got max_panels {max_panels}: expected at least 1")
    shapes = [y.shape[1:] for _, y in curves]
    norms = [np.abs(y).mean(0) for _, y in curves] if norms is None else [np.asarray(norm, float) for norm in norms]
    if [norm.shape for norm in norms] != shapes or not all(np.isfinite(n).all() and (n >= 0).all() for n in norms):
        raise UsageError(
            f"got norms of shapes {[norm.shape for norm in norms]}: expected {shapes}, finite and at least 0"
        )
    inputs = _names("inputs", inputs, shapes[0][0], "x")
    outputs = _names("outputs", outputs, shapes[-1][1], "y")
    # darkness is told apart within a layer: layers differ in scale
    darkness = [PALEST + (1 - PALEST) * norm / (norm.max() or 1.0) for norm in norms]
    with publication_style():
        if len(curves) <= DIAGRAM_LAYERS and max(i * o for i, o in shapes) <= DIAGRAM_EDGES:
            return _diagram(curves, darkness, inputs, outputs)
        return _grid(curves, norms, darkness, inputs, outputs, max_panels)


def _checked(curves: Curves) -> Curves:
    if not isinstance(curves, Sequence) or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in curves):
        raise UsageError(f"got {type(curves).__name__}: expected a pair x, y of each layer, as KAN.edge_curves() gives")
    layers = [(np.asarray(x, float), np.asarray(y, float)) for x, y in curves]
    if not layers:
        raise UsageError("got no layers: expected at least one pair x (n, I), y (n, I, O)")
    width = None
    for number, (x, y) in enumerate(layers, 1):
        if x.ndim != 2 or y.ndim != 3 or y.shape[:2] != x.shape or y.size == 0 or len(x) < 2:
            raise UsageError(f"got x {x.shape} and y {y.shape} in layer {number}: expected (n, I), (n, I, O), n >= 2")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise UsageError(f"got curves in layer {number} that are NaN or infinite: expected finite numbers")
        if width not in (None, x.shape[1]):
            raise UsageError(f"got {x.shape[1]} inputs in layer {number}: expected {width}, the outputs before it")
        width = y.shape[2]
    return layers


def _names(kind: str, names: Sequence[str] | None, number: int, letter: str) -> list[str]:
    if names is None:
        return [f"{letter}{index + 1}" for index in range(number)]
    if len(names) != number:
        raise UsageError(f"got {len(names)} names of {kind}: expected {number}")
    return list(names)


def _grey(darkness: float) -> tuple[float, float, float]:
    return (1 - darkness,) * 3


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, darkness: float) -> None:
    axes.plot(x, y, color=_grey(darkness), linewidth=1.0)
    axes.set(xticks=[], yticks=[])
    middle, half = (y.max() + y.min()) / 2, (y.max() - y.min()) / 2
    half = half if half > 1e-9 * max(abs(middle), 1e-300) else 1.0  # a constant is a line in the middle
    axes.set_ylim(middle - 1.15 * half, middle + 1.15 * half)
    for spine in axes.spines.values():
        spine.set(visible=True, color=SHADE, linewidth=0.6)


def _diagram(curves: Curves, darkness: list[np.ndarray], inputs: list[str], outputs: list[str]) -> Figure:
    """Nodes and panels placed in inches, one column a layer of nodes, one in between for the edges' panels."""
    panel, step, gap = 0.42, 0.5, min(WIDTH / (len(curves) + 0.6), 2.4)
    most = max(max(y.shape[1] * y.shape[2] for _, y in curves), 2)
    width, height = gap * (len(curves) + 0.6), step * most + 0.1
    figure = new_figure(height, width)
    figure.set_layout_engine("none")  # places are given here
    plane = figure.add_axes((0, 0, 1, 1))
    plane.set(xlim=(0, width), ylim=(height, 0))
    plane.axis("off")

    def spread(number: int) -> np.ndarray:
        return (np.arange(number) + 0.5) / number * height

    for layer, ((x, y), dark) in enumerate(zip(curves, darkness)):
        left, right = spread(y.shape[1]), spread(y.shape[2])
        start = gap * (layer + 0.3)
        middle = start + gap / 2
        pitch = min(height / dark.size, 2 * step)
        rows = height / 2 + (np.arange(dark.size) - (dark.size - 1) / 2) * pitch
        for row, (i, o) in zip(rows, np.ndindex(dark.shape)):
            tone, edge = float(dark[i, o]), (middle - panel / 2, middle + panel / 2)
            for ends in (((start, left[i]), (edge[0], row)), ((edge[1], row), (start + gap, right[o]))):
                plane.plot(*zip(*ends), color=_grey(tone), linewidth=0.7, zorder=1 + tone)
            place = (edge[0] / width, 1 - (row + panel / 2) / height, panel / width, panel / height)
            axes = figure.add_axes(place, label=f"layer {layer + 1}: {i + 1} to {o + 1}")
            _curve(axes, x[:, i], y[:, i, o], tone)
        plane.plot([start] * len(left), left, "o", color=TRUTH, markersize=4, zorder=3)
    end = gap * (len(curves) + 0.3)
    last = spread(curves[-1][1].shape[2])
    plane.plot([end] * len(last), last, "o", color=TRUTH, markersize=4, zorder=3)
    for names, at, side, shift in ((inputs, gap * 0.3, "right", -0.08), (outputs, end, "left", 0.08)):
        for name, row in zip(names, spread(len(names))):
            plane.text(at + shift, row, name, ha=side, va="center")
    return figure


def _grid(
    curves: Curves,
    norms: list[np.ndarray],
    darkness: list[np.ndarray],
    inputs: list[str],
    outputs: list[str],
    max_panels: int,
) -> Figure:
    # share of the layer, as layers differ in scale; ties stay in order
    edges = [(-n[i, o] / (n.sum() or 1.0), k, i, o) for k, n in enumerate(norms) for i, o in np.ndindex(n.shape)]
    shown = sorted(sorted(edges)[:max_panels], key=lambda edge: edge[1:])
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    left_out = len(edges) - len(shown)
    figure = new_figure(0.85 * rows + (0.25 if left_out else 0.05), WIDTH * columns / COLUMNS if columns > 3 else 3.2)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (_, k, i, o) in zip(panels, shown):
        x, y = curves[k]
        _curve(axes, x[:, i], y[:, i, o], float(darkness[k][i, o]))
        first = inputs[i] if k == 0 else str(i + 1)
        last = outputs[o] if k == len(curves) - 1 else str(o + 1)
        number = f"{k + 1}: " if len(curves) > 1 else ""
        axes.set_title(f"{number}{first} → {last}", fontsize=6, pad=2)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    if left_out:
        figure.supxlabel(f"{left_out} of {len(edges)} edges left out: those of smallest norm", fontsize=7, color=FAINT)
    return figure
