"""Report of trained neural operators (``kansciml fno``, Figure 5): reads the record only.

Of the record's result, ``data`` holds `SamplesRow` by name and ``runs`` `OperatorRow`. Arrays of a run, (epochs,):
``<id>.epoch``, ``.step``, ``.loss``, ``.test_error``, ``.learning_rate``, ``.samples_per_s``, ``.train_s`` (seconds
without evaluations), ``.cpu_s`` (those of the processor, on one alone); ``.errors.<size>`` (test samples,) at each
resolution; ``.prediction`` (k, s, s) of the first test samples. Arrays of the data: ``<data>.a``, ``<data>.u``
(k, s, s) of the same samples, and ``<data>.normaliser`` (4, s, s): mean and deviation of a, and of u, over the training
samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import compare
from kansciml.experiments.fno.record import RESIDUALS, FnoRecord, OperatorGroup, OperatorRow
from kansciml.experiments.minibatch import figures as drawn
from kansciml.experiments.minibatch.figures import TITLE, Column, Curve
from kansciml.experiments.minibatch.record import cost_table
from kansciml.reporting.claims import Claim, claim_table, in_families
from kansciml.reporting.groups import diverged_notes
from kansciml.reporting.palette import FAINT
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


LOWER, HELPS = "lower", "helps"
"""Names of claims: on KANs against MLPs, and on residual connections."""
ROWS = (
    Curve("loss", "training error\n(relative L2)", log=True),
    Curve("test_error", "test error\n(relative L2)", log=True),
)


def error_table(fno: FnoRecord) -> Table:
    """What each kind of network reaches on the test samples."""
    rows = []
    for group in fno.groups:
        row = [fno.title(group.task), group.label, group.first.parameters, group.first.ends_parameters, len(group.rows)]
        row += [group.median(lambda row: row.relative_l2), *group.spread(lambda row: row.relative_l2)]
        row += [group.median(lambda row: row.best_relative_l2), group.median(lambda row: row.train_loss)]
        rows.append([*row, group.first.epochs])
    columns = [
        "Task", "Model", "Parameters", "of lift and projection", "Seeds", "Test error", "min", "max", "best epoch",
        "Training error", "Epochs",
    ]  # fmt: skip
    data = ", ".join(f"{one.n_train} / {one.n_test}" for one in fno.data.values())
    notes = [
        "Error: relative L2, mean over samples, in the units of the solutions; median over the seeds that did not"
        f" diverge, of the weights of the last step. Training / test samples: {data}. Best epoch: chosen by the test"
        " samples, so too good. Training error: mean over the steps of the last epoch."
    ]
    return Table("Error", columns, rows, notes + diverged_notes(fno.groups))


def resolution_table(fno: FnoRecord) -> Table | None:
    """Errors at other resolutions than trained at; None where there is but one."""
    sizes = sorted({int(size) for group in fno.groups for row in group.rows for size in row.relative_l2_at})
    if len(sizes) < 2:
        return None
    rows = []
    for group in fno.groups:
        found = ([row.relative_l2_at.get(str(size)) for row in group.rows] for size in sizes)
        known = ([error for error in errors if error is not None] for errors in found)
        medians = [statistics.median(errors) if errors else None for errors in known]
        rows.append([fno.title(group.task), group.label, *medians])
    notes = [
        "Test error, median over seeds, of networks that were trained at the resolution of their task alone; means and"
        " deviations of the normalisation are interpolated to the others. The same samples at every resolution."
    ]
    return Table("Resolution", ["Task", "Model", *(f"{size} x {size}" for size in sizes)], rows, notes)


def claims(fno: FnoRecord) -> list[Claim[OperatorGroup]]:
    """The paper's two claims on KANs against MLPs, and whether residual connections help; ratios of errors.

    Of residual connections the paper says so for KANs alone (caption of Figure 5).
    """
    found = []
    for group, base in fno.pairs():
        residual = group.first.residual
        text = "KAN lower" if residual else "MLP lower"
        above, below = (None, 1) if residual else (1, None)
        outcome = compare(group.by_seed(), base.by_seed(), above=above, below=below, text=text)
        found.append(Claim(LOWER, f"{text}, {RESIDUALS[residual]}", group, base, outcome))
    for group in fno.groups:
        plain = fno.without_residual(group)
        if plain is not None:
            outcome = compare(group.by_seed(), plain.by_seed(), below=1, text="residual lower")
            paper = None if group.first.variant == "mlp" else "yes"
            found.append(Claim(HELPS, "residual lower than without", group, plain, outcome, paper=paper))
    return in_families(found)


def claims_table(fno: FnoRecord) -> Table | None:
    """`claims` as a table; None where no two groups are compared."""
    found = claims(fno)
    if not found:
        return None
    return claim_table(
        "Claims: which ends at the lower test error",
        ["Task", "Claim", "Model", "Paper"],
        "Error over other",
        [([fno.title(one.group.task), one.text, one.group.label, one.paper], one) for one in found],
        [
            "Error over other: of this model over the MLPs', or over the same model's without residual. Paper: Pal &"
            " Das (2024, Figure 5) claim it; it says nothing of the rows with a dash.",
        ],
    )


def all_tables(fno: FnoRecord) -> list[Table]:
    """All of them, but those that have nothing to say."""
    found = [
        error_table(fno),
        resolution_table(fno),
        cost_table(fno, "Samples", lambda row: row.samples_per_s),
        claims_table(fno),
    ]
    return [table for table in found if table is not None]


def draw_curves(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs and against seconds of training."""
    groups = fno.of(task)
    return drawn.curves(fno, task, ROWS, [Column("", groups), Column("", groups, over_time=True)])


def curves_by_residual(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs: a column without, and one with residual connections."""
    found = {title: fno.of_residual(task, residual) for residual, title in RESIDUALS.items()}
    columns = [Column(title, groups) for title, groups in found.items() if groups]
    return drawn.curves(fno, task, ROWS, columns)


def _shown(group: OperatorGroup) -> OperatorRow | None:
    """The seed whose predictions are drawn: the first that did not diverge."""
    return next((row for row in group.rows if not row.diverged), None)


def unshown(record: Record) -> set[str]:
    """Names of the predictions that no picture draws."""
    groups = FnoRecord.read(record).groups
    drawn = {f"{row.id}.prediction" for group in groups if (row := _shown(group)) is not None}
    return {name for name in record.arrays if name.endswith(".prediction")} - drawn


def prediction_maps(fno: FnoRecord, task: str, sample: int) -> Figure | None:
    """Coefficients, solution, each kind of network's prediction (its first seed), and its error, of one test sample.

    Solutions share one colour scale, errors another. None where nothing was predicted.
    """
    rows = [row for group in fno.of(task) if (row := _shown(group)) is not None]
    data, name = fno.record.arrays, fno.of(task)[0].first.data
    if not rows or sample >= len(data[f"{name}.u"]):
        return None
    a, u = data[f"{name}.a"][sample], data[f"{name}.u"][sample]
    found = [data[f"{row.id}.prediction"][sample] for row in rows]
    errors = [np.abs(one - u) for one in found]
    largest = max(float(error.max()) for error in errors)
    columns = 1 + len(rows)
    side = 6.0 / columns
    figure = new_figure(min(0.75 + 2 * min(side, 1.9), 6.0))
    panels = figure.subplots(2, columns, squeeze=False)
    top = _map(panels[0, 0], u, "solution", u.min(), u.max())
    own = _map(panels[1, 0], a, "coefficient", a.min(), a.max(), "Greys")
    for place, (row, one, error) in enumerate(zip(rows, found, errors), start=1):
        _map(panels[0, place], one, row.label.replace(", residual", ",\nresidual"), u.min(), u.max())
        relative = np.linalg.norm(one - u) / np.linalg.norm(u)
        bottom = _map(panels[1, place], error, f"|error|, relative {relative:.2g}", 0.0, largest, "magma")
    for mappable, axes in ((top, panels[0]), (bottom, panels[1])):
        bar = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.01, aspect=15)
        bar.outline.set_linewidth(0.4)
        bar.ax.ticklabel_format(scilimits=(-2, 3))
        bar.ax.tick_params(labelsize=6)
        bar.ax.yaxis.get_offset_text().set_fontsize(6)
    own.axes.set_xlabel(f"{a.min():g} white, {a.max():g} black", fontsize=6.5, color=FAINT)
    figure.suptitle(f"{fno.title(task)}, test sample {sample + 1}", fontsize=TITLE)
    return figure


def _map(axes: Axes, values: np.ndarray, title: str, low: float, high: float, colours: str = "viridis") -> AxesImage:
    """Values (s, s) at the nodes, x to the right and y upwards."""
    shown = axes.imshow(values.T, origin="lower", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=7)
    return shown


def summary(record: Record) -> list[Table]:
    """Tables of errors and of cost, at other resolutions where there are some, and verdicts on the paper's claims."""
    return all_tables(FnoRecord.read(record))


def render(record: Record, folder: Path, curves: Callable[[FnoRecord, str], Figure] = draw_curves) -> list[Path]:
    """Write pictures (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths.

    ``curves``, as the function of this name draws them, and ``prediction_1`` ... of the first test samples, with the
    task in their stems where there are several.
    """
    fno = FnoRecord.read(record)
    drawings: dict[str, Callable[[], Figure | None]] = {}
    for task in fno.tasks:
        drawings[f"curves{fno.suffix(task)}"] = partial(curves, fno, task)
        for sample in range(len(record.arrays[f"{fno.of(task)[0].first.data}.u"])):
            stem = f"prediction_{sample + 1}{fno.suffix(task)}"
            drawings[stem] = partial(prediction_maps, fno, task, sample)
    return save_report(folder, all_tables(fno), drawings)
