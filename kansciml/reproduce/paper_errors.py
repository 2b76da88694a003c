"""What is wrong in the paper, in the words of ``paper_errors.json``, with the numbers that show it, counted here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from kansciml.analysis.cost import Sizes, equation_1, equation_2, linear_layer, spline_layer, textbook_layer
from kansciml.experiments.table1.claims import MARGINS
from kansciml.experiments.table1.costs import PRINTED
from kansciml.layers.bspline import uniform_knots
from kansciml.models.registry import find, model_config
from kansciml.reproduce.page.content import PaperError
from kansciml.runs.tables import Table
from kansciml.tasks.ode.data import training_data
from kansciml.tasks.ode.registry import get_system

GRID, SPLINE_ORDER, GRID_RANGE = 5, 3, (-1.0, 1.0)
"""Of the paper's splines; the range is the default of the implementation it names."""
LAYERS = [
    Sizes(i, o, b, GRID, SPLINE_ORDER)
    for i, o, b in ((64, 64, 128), (64, 128, 128), (128, 64, 128), (784, 64, 64), (768, 3072, 256), (256, 256, 16384))
]
"""Layers that the equations are tried on: inputs, outputs and batch sizes."""
CAPTION_MARGIN = (8.0, 12.0)
"""Points by which the caption of Table 1 has MLPs better than KANs."""
SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
MIXERS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("mixer-nano", {}, "replaced by splines"),
    ("conv-mixer-256-8", {"placement": "append"}, "splines appended to 1x1 convolutions"),
    ("conv-mixer-256-8", {"placement": "replace"}, "splines in place of 1x1 convolutions"),
)

Counted = tuple[Sequence[Sequence[object]], Mapping[str, object]]
"""Rows of an error's table, and the numbers in its words."""


def paper_errors() -> list[PaperError]:
    """All of them, the equations first."""
    text = resources.files(__package__).joinpath("paper_errors.json").read_text("utf-8")
    return [_error(found, *COUNTS[name]()) for name, found in json.loads(text).items()]


def _error(found: Mapping[str, Any], rows: Sequence[Sequence[object]], numbers: Mapping[str, object]) -> PaperError:
    notes = [found["note"]] if "note" in found else []
    tables = [Table(found["table"], found["columns"], rows, notes)] if rows else []
    paragraphs = [text.format(**numbers) for text in found["paragraphs"]]
    return PaperError(found["title"], paragraphs, tables, found.get("command", ""))


def equation_1_misprint() -> Counted:
    """I (O + 1) is printed where O (I + 1) is meant."""
    rows = []
    for sizes in LAYERS:
        printed, true = (equation_1(sizes, corrected).parameters for corrected in (False, True))
        counted = textbook_layer(sizes).parameters - linear_layer(sizes).parameters
        rows.append([sizes.inputs, sizes.outputs, printed, true, counted, printed - true])
    return rows, {}


def equation_2_too_low() -> Counted:
    """The equation counts one tensor for the backward pass; autograd keeps every level of the recursion."""
    rows, ratios, lean = [], [], []
    for sizes in LAYERS:
        linear, estimate = linear_layer(sizes).footprint, equation_2(sizes)
        textbook, spline = (layer(sizes).footprint - linear for layer in (textbook_layer, spline_layer))
        ratios.append(textbook / estimate)
        lean.append(spline / estimate)
        name = f"{sizes.inputs} -> {sizes.outputs}, batch {sizes.batch}"
        rows.append([name, estimate, textbook, ratios[-1], spline, lean[-1]])
    return rows, {"low": min(ratios), "high": max(ratios), "lean": lean[-1], "last": ratios[-1]}


def dead_parameters() -> Counted:
    """The printed KAN counts contain MLPs that the forward pass never calls."""
    rows, shares, used = [], [], {}
    for row in PRINTED:
        model, preset = find(f"deit-{row.size}")
        config = model.config(preset, row.variant)
        active, dead, printed = model.count(config).active, config.dead_parameters(), model.printed[preset, row.variant]
        held, used[row.size, row.variant] = active + dead, active
        shares += [100 * dead / held] * bool(dead)
        against = active / used[row.size, "mlp"]
        rows.append([row.size, row.variant, printed / 1e6, held / 1e6, dead, active, dead / held, against])
    rswaf, mlp = used["small", "kan-rswaf"], used["small", "mlp"]
    than = "fewer" if rswaf < mlp else "more"
    return rows, {"low": min(shares), "high": max(shares), "rswaf": rswaf, "mlp": mlp, "than": than}


def table_1_margins() -> Counted:
    """The margins in caption and text do not cover the table's own rows."""
    mlps = {row.size: row.top1 for row in PRINTED if row.variant == "mlp"}
    rows, outside = [], {"text": 0, "caption": 0}
    for row in PRINTED:
        if row.variant == "mlp":
            continue
        gap = mlps[row.size] - row.top1
        cells: list[object] = [row.size, row.variant, mlps[row.size], row.top1, gap]
        for name, (low, high) in (("text", MARGINS[row.variant]), ("caption", CAPTION_MARGIN)):
            inside = low <= round(gap, 2) <= high
            outside[name] += not inside
            cells.append(f"{low:g} to {high:g}: {'yes' if inside else 'no'}")
        rows.append(cells)
    return rows, {"differences": len(rows), **outside}


def table_1_confounds() -> Counted:
    """What else differs between the KANs and the MLPs of Table 1."""
    rows = []
    for row in PRINTED:
        config = model_config(f"deit-{row.size}", row.variant)
        (slot,) = config.slots()
        width, kan = slot.widths[0], row.variant != "mlp"
        hidden = config.kan_widths()[0][1] if kan else slot.widths[1]
        start, path = ("random", "off") if kan else ("ImageNet weights", "on")
        lost = slot.lost * slot.count if kan else 0
        rows.append([row.size, row.variant, start, width, hidden, hidden / width, lost, path])
    return rows, {}


def spiral_grid_range() -> Counted:
    """States beyond the grid lose their splines; the paper says neither the range nor whether states are scaled."""
    rows, numbers = [], {}
    for name in SYSTEMS:
        system = get_system(name)
        states = np.abs(training_data(system).states)
        covered = spline_sum(states)
        numbers[name] = {"largest": states.max(), "outside": 100 * np.mean(states > GRID_RANGE[1])}
        rows.append([system.title, *numbers[name].values(), covered.min(), 100 * np.mean(covered == 0)])
    return rows, {"reach": uniform_knots(GRID, SPLINE_ORDER, GRID_RANGE)[-1], **numbers["spiral"]}


def sharpness_and_size() -> Counted:
    """Counting positive eigenvalues compares models of different size."""
    rows = []
    for name, options, how in MIXERS:
        model, preset = find(name)
        mlp, kan = (model.count(model.config(preset, kind, **options)).active for kind in ("mlp", "kan-spline"))
        rows.append([name, how, mlp, kan, kan / mlp])
    return rows, {}


def names_and_silence() -> Counted:
    """A wrong name, two statements that disagree, and what nobody can reproduce because it is not printed."""
    return [], {}


COUNTS: Mapping[str, Callable[[], Counted]] = {
    count.__name__: count
    for count in (
        equation_1_misprint, equation_2_too_low, dead_parameters, table_1_margins, table_1_confounds, spiral_grid_range,
        sharpness_and_size, names_and_silence,
    )
}  # fmt: skip


def spline_sum(x: np.ndarray) -> np.ndarray:
    """Sum of the paper's splines on `GRID` intervals over `GRID_RANGE` at x: 1 on the grid, 0 far outside."""
    from scipy.interpolate import BSpline

    # more knots with coefficients of zero, or SciPy would take the outermost polynomials on beyond the grid
    low, high = GRID_RANGE
    step = (high - low) / GRID
    wide = uniform_knots(GRID + 2 * SPLINE_ORDER, SPLINE_ORDER, (low - SPLINE_ORDER * step, high + SPLINE_ORDER * step))
    coefficients = np.concatenate([np.zeros(SPLINE_ORDER), np.ones(GRID + SPLINE_ORDER), np.zeros(SPLINE_ORDER)])
    inside = np.clip(x, wide[SPLINE_ORDER], wide[-SPLINE_ORDER - 1])
    values = np.asarray(BSpline(wide, coefficients, SPLINE_ORDER)(inside))
    return np.where(np.abs(values) < 1e-12, 0.0, values)
