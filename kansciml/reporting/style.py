"""How pictures look, but for colours (`palette`): one publication style, uniform ticks, and files that are repeatable.

matplotlib is imported inside functions and only through `Figure` objects: no pyplot, no global state, no display.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kansciml._files import write_bytes
from kansciml.reporting.legends import uniform_ticks
from kansciml.reporting.palette import dark_css
from kansciml.runs.tables import Table, save_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Figure width in inches: the text width of a two-column paper."""
PNG_DPI = 200
FORMATS = (
    ("svg", {"Date": None, "Creator": "kansciml"}),
    ("png", {"Software": "kansciml"}),
    ("pdf", {"CreationDate": None, "Creator": "kansciml"}),
)
"""Files of every picture, with metadata that do not depend on the day."""
RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that pictures agree between machines
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",  # text stays text: searchable, editable, small
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask
    "svg.hashsalt": "kansciml",  # element ids do not depend on the run
}


@contextlib.contextmanager
def publication_style() -> Iterator[None]:
    """Within it, figures are made and drawn in the style of this module; the user's own settings come back after."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def _matplotlib() -> ModuleType:
    """matplotlib, also where MPLBACKEND names no backend, at which it refuses to be imported: no picture needs one."""
    if "matplotlib" in sys.modules or "MPLBACKEND" not in os.environ:
        return importlib.import_module("matplotlib")
    backend = os.environ.pop("MPLBACKEND")
    try:
        found = importlib.import_module("matplotlib")
    finally:
        os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):  # as it would have done itself, for whoever opens windows later
        found.rcParams["backend"] = backend
    return found


def as_is(text: str) -> str:
    """Text of the user's, such as a column's name, that is drawn as it is: dollar signs in it are no mathematics."""
    return text.replace("$", r"\$")


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of `width` x `height` inches in constrained layout. Call it within `publication_style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, folder: Path, stem: str, only: str | None = None) -> list[Path]:
    """Write ``stem.svg`` (text as text; dark where the screen is), ``stem.png`` (200 dpi) and ``stem.pdf``, the same
    bytes each time, with `uniform_ticks`.

    Args:
        only: the one kind among these that is wanted.

    Returns:
        The paths.
    """
    paths = []
    with publication_style():
        uniform_ticks(figure)
        for kind, metadata in [one for one in FORMATS if only in (None, one[0])]:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
            data = buffer.getvalue()
            if kind == "svg":
                data = data.replace(b"</style>", dark_css().encode() + b"</style>", 1)
            paths.append(write_bytes(folder / f"{stem}.{kind}", data))
    return paths


def save_report(
    folder: Path, tables: Sequence[Table], drawings: Mapping[str, Callable[[], Figure | None]]
) -> list[Path]:
    """Write `tables` as ``tables.md`` and ``tables.json``, and each drawing by its stem; returns all paths.

    Args:
        drawings: stem -> what draws the picture, called within `publication_style`; None: there is nothing to draw.
    """
    paths = save_tables(tables, folder, "tables")
    for stem, draw in drawings.items():
        with publication_style():
            figure = draw()
        paths += save_figure(figure, folder, stem) if figure is not None else []
    return paths
