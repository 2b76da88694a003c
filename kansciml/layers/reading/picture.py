"""Picture of a KAN's edge functions: the network as a diagram where it is small, else a grid of panels a layer.

The diagram follows Figure 2.1 of Liu et al. 2024: nodes as dots, one column a layer, and on each edge its own curve.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml._errors import UsageError
from kansciml._files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Sequence[tuple[np.ndarray, np.ndarray]]
INK, FAINT, SHADE = "#000000", "#6b6b6b", "#e9e9e9"
WIDTH = 7.0
"""Largest width in inches: the text width of a two-column paper."""
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that pictures agree between machines
    "font.size": 8,
    "savefig.dpi": 300,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kansciml",  # element ids do not depend on the run
    "pdf.fonttype": 42,
}
DIAGRAM_EDGES = 20
"""Edges of one layer above which a diagram could not be read."""
DIAGRAM_LAYERS = 4
PALEST = 0.15
"""Opacity of an edge of norm 0, of 1: it stays visible."""
COLUMNS = 8
"""Panels in a row of the grid."""


def edge_functions_figure(
    curves: Curves,
    norms: Sequence[np.ndarray] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    max_panels: int = 64,
    path: Path | str | None = None,
) -> Figure:
    """Every edge's function, the more opaque the larger its norm in its layer.

    Up to 20 edges a layer and 4 layers: a diagram, from the inputs on the left to the outputs on the right. Otherwise
    a grid of panels, the edges of largest norm first; a line below says how many are left out.

    Args:
        curves: per layer x (n, I) and y (n, I, O): the edge from i to o takes x[:, i] to y[:, i, o]. The x of each
            column increase. O of a layer is I of the next.
        norms: per layer (I, O) at least 0 (default: the mean of abs(y) over the curve).
        inputs, outputs: names of the first and the last nodes (default: x1 ..., y1 ...).
        max_panels: panels in the grid (default 64).
        path: file to write the picture to, in the format that its ending tells: png, pdf, svg ...

    Raises:
        UsageError: no layers, shapes that do not belong together, numbers that are not finite, max_panels below 1, a
            path whose ending is no format.
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
    # told apart within a layer: layers differ in scale
    opacity = [PALEST + (1 - PALEST) * norm / (norm.max() or 1.0) for norm in norms]
    with _style():
        if len(curves) <= DIAGRAM_LAYERS and max(i * o for i, o in shapes) <= DIAGRAM_EDGES:
            figure = _diagram(curves, opacity, inputs, outputs)
        else:
            figure = _grid(curves, norms, opacity, inputs, outputs, max_panels)
        if path is not None:
            _write(figure, Path(path))
    return figure


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Within it, figures are made and drawn in `STYLE`; the user's own settings come back after."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _write(figure: Figure, path: Path) -> None:
    kind, known = path.suffix[1:].lower(), figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise UsageError(f"got path {str(path)!r}: expected an ending among {', '.join(f'.{one}' for one in known)}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    write_bytes(path, buffer.getvalue())


def _new_figure(height: float, width: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


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
    return [str(name) for name in names]


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, opacity: float) -> None:
    axes.plot(x, y, color=INK, alpha=opacity, linewidth=1.0)
    axes.set(xticks=[], yticks=[])
    middle, half = (y.max() + y.min()) / 2, (y.max() - y.min()) / 2
    half = half if half > 1e-9 * max(abs(middle), 1e-300) else 1.0  # a constant is a line in the middle
    axes.set_ylim(middle - 1.15 * half, middle + 1.15 * half)
    for spine in axes.spines.values():
        spine.set(visible=True, color=SHADE, linewidth=0.6)


def _diagram(curves: Curves, opacity: list[np.ndarray], inputs: list[str], outputs: list[str]) -> Figure:
    """Nodes and panels placed in inches, one column a layer of nodes, one in between for the edges' panels."""
    panel, step = 0.42, 0.5
    # room for the names, whose letters are about 0.07 wide
    before, after = (max(0.5, 0.25 + 0.07 * max(map(len, names))) for names in (inputs, outputs))
    gap = min(max((WIDTH - before - after) / len(curves), 3 * panel), 2.4)
    most = max(max(y.shape[1] * y.shape[2] for _, y in curves), 2)
    width, height = before + gap * len(curves) + after, step * most + 0.1
    figure = _new_figure(height, width)
    figure.set_layout_engine("none")  # places are given here
    plane = figure.add_axes((0, 0, 1, 1))
    plane.set(xlim=(0, width), ylim=(height, 0))
    plane.axis("off")

    def spread(number: int) -> np.ndarray:
        return (np.arange(number) + 0.5) / number * height

    for layer, ((x, y), opaque) in enumerate(zip(curves, opacity)):
        left, right = spread(y.shape[1]), spread(y.shape[2])
        start = before + gap * layer
        middle = start + gap / 2
        for row, (i, o) in zip(spread(opaque.size), np.ndindex(opaque.shape)):
            tone, edge = float(opaque[i, o]), (middle - panel / 2, middle + panel / 2)
            for ends in (((start, left[i]), (edge[0], row)), ((edge[1], row), (start + gap, right[o]))):
                plane.plot(*zip(*ends), color=INK, alpha=tone, linewidth=0.7)
            place = (edge[0] / width, 1 - (row + panel / 2) / height, panel / width, panel / height)
            axes = figure.add_axes(place, label=f"layer {layer + 1}: {i + 1} to {o + 1}")
            _curve(axes, x[:, i], y[:, i, o], tone)
        plane.plot([start] * len(left), left, "o", color=INK, markersize=4, zorder=3)
    end = before + gap * len(curves)
    last = spread(curves[-1][1].shape[2])
    plane.plot([end] * len(last), last, "o", color=INK, markersize=4, zorder=3)
    for names, at, side, shift in ((inputs, before, "right", -0.08), (outputs, end, "left", 0.08)):
        for name, row in zip(names, spread(len(names))):
            plane.text(at + shift, row, name, ha=side, va="center")
    return figure


def _grid(
    curves: Curves,
    norms: list[np.ndarray],
    opacity: list[np.ndarray],
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
    figure = _new_figure(0.85 * rows + (0.25 if left_out else 0.05), WIDTH * columns / COLUMNS if columns > 3 else 3.2)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (_, k, i, o) in zip(panels, shown):
        x, y = curves[k]
        _curve(axes, x[:, i], y[:, i, o], float(opacity[k][i, o]))
        first = inputs[i] if k == 0 else str(i + 1)
        last = outputs[o] if k == len(curves) - 1 else str(o + 1)
        number = f"{k + 1}: " if len(curves) > 1 else ""
        axes.set_title(f"{number}{first} → {last}", fontsize=6, pad=2)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    if left_out:
        figure.supxlabel(f"{left_out} of {len(edges)} edges left out: those of smallest norm", fontsize=7, color=FAINT)
    return figure
