"""A sweep in one table and one picture: median, lowest and highest loss over the seeds of each setting."""

from __future__ import annotations

import csv
import io
import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._files import to_jsonable, write_text
from kansciml.reporting import style
from kansciml.reporting.results_table import TRAINED_LISTS, flatten, is_list_of_objects
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, save_tables

LOSSES = (
    "final_loss", "test_mse", "train_loss", "relative_l2", "loss", "top1",
)  # fmt: skip
"""Losses and scores of a trained model that are summed up, by the names that experiments give them."""
PICTURED = ("final_loss", "train_loss", "relative_l2", "loss")
"""Which of them is drawn: the first that there is."""
MAX_PANELS = 12
MAX_TICKS = 6


@dataclass(frozen=True)
class SweepRun:
    """One task of a sweep as the tables need it: `record` is None, and `error` says why, where it did not finish."""

    setting: Mapping[str, Any]
    seed: int | None
    record: Record | None = None
    error: str = ""


@dataclass
class _Line:
    """The values of one loss of one model at one setting."""

    values: list[float] = field(default_factory=list)
    diverged: int = 0

    def numbers(self) -> list[Any]:
        low, middle, high = spread(self.values)
        return [len(self.values), middle, low, high, self.diverged]


def spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Lowest, median and highest value; None each where there are none."""
    if not values:
        return None, None, None
    return min(values), statistics.median(values), max(values)


def summary(experiment: str, runs: Sequence[SweepRun], label: Any) -> Table:
    """One row per setting, task, model and loss.

    Args:
        runs: a setting's seeds need not follow one another.
        label: a value of a setting as text.
    """
    names = swept_settings(runs, label)
    fixed = [f"{name}={label(value)}" for name, value in (runs[0].setting if runs else {}).items() if name not in names]
    failures: dict[tuple[str, ...], int] = {}
    found: dict[tuple[str, ...], dict[tuple[str, str, str], _Line]] = {}
    for run in runs:
        key = tuple(label(run.setting[name]) for name in names)
        lines = found.setdefault(key, {})
        failures[key] = failures.get(key, 0) + bool(run.error)
        for task, variant, name, value in losses(run.record):
            line = lines.setdefault((task, variant, name), _Line())
            if value is None:
                line.diverged += 1
            else:
                line.values.append(value)
    rows = []
    for key, lines in found.items():
        for what, line in lines.items():
            rows.append([*key, *what, *line.numbers(), failures[key]])
        if not lines:
            rows.append([*key, "", "", "", 0, None, None, None, 0, failures[key]])
    columns = [*names, "task", "model", "loss", "runs", "median", "lowest", "highest", "diverged", "failed tasks"]
    notes = ["Over the seeds of a setting. Diverged: the value is not finite, and is in no median."]
    notes += [f"Everywhere: {', '.join(fixed)}."] if fixed else []
    return Table(f"Sweep of {experiment}", columns, rows, notes)


def swept_settings(runs: Sequence[SweepRun], label: Any) -> list[str]:
    """Settings with more than one value."""
    names = dict.fromkeys(name for run in runs for name in run.setting)
    return [name for name in names if len({label(run.setting[name]) for run in runs}) > 1]


def losses(record: Record | None) -> Iterator[tuple[str, str, str, float | None]]:
    """Task, model, name and value of each loss of a record; a value that is not finite is None.

    A record without trained models has the numbers of its result instead, as far as they are named.
    """
    if record is None:
        return
    trained = next((record.result[name] for name in TRAINED_LISTS if is_list_of_objects(record.result.get(name))), [])
    for row in trained:
        task = str(row.get("task", row.get("system", row.get("model", ""))))
        variant = str(row.get("group", row.get("variant", row.get("label", ""))))
        for name in LOSSES:
            if name in row:
                yield task, variant, name, _finite(row[name])
    if not trained:
        for name, value in flatten(record.result).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield "", "", name, _finite(value)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def save_sweep(folder: Path, experiment: str, runs: Sequence[SweepRun], label: Any) -> tuple[Table, list[Path]]:
    """Write ``summary.md``, ``.json`` and ``.csv``, and a picture where a swept setting is a number.

    Returns:
        the table, and the files.

    Raises:
        KansciError: unwritable folder or full disk.
    """
    table = summary(experiment, runs, label)
    paths = save_tables([table], folder, "summary")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([table.columns, *(to_jsonable(row) for row in table.rows)])
    paths.append(write_text(folder / "summary.csv", buffer.getvalue()))
    name = numeric_setting(runs)
    if name is not None:
        paths += picture(folder, runs, name, label)
    return table, paths


def numeric_setting(runs: Sequence[SweepRun]) -> str | None:
    """The first swept setting whose values are two numbers or more."""
    for name in runs[0].setting if runs else ():
        values = {run.setting[name] for run in runs}
        if len(values) > 1 and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
            return name
    return None


def picture(folder: Path, runs: Sequence[SweepRun], name: str, label: Any) -> list[Path]:
    """Median loss against setting `name`, lowest to highest shaded: a panel per task and other swept settings."""
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    swept = swept_settings(runs, label)
    seen = [loss for run in runs for _, _, loss, value in losses(run.record) if value is not None]
    pictured = next((one for one in (*PICTURED, *dict.fromkeys(seen)) if one in seen), None)
    for run in runs:
        others = ", ".join(f"{other}={label(run.setting[other])}" for other in swept if other != name)
        for task, variant, loss, value in losses(run.record):
            if loss == pictured and value is not None:
                title = ", ".join(part for part in (task, others) if part)
                curves = panels.setdefault(title, {})
                curves.setdefault(variant or loss, {}).setdefault(run.setting[name], []).append(value)
    if not panels:
        return []
    with style.publication_style():
        figure = _drawn(dict(list(panels.items())[:MAX_PANELS]), name, str(pictured))
    return style.save_figure(figure, folder, "summary")


def _drawn(panels: Mapping[str, Mapping[str, Mapping[float, list[float]]]], name: str, loss: str) -> Any:
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = style.new_figure(2.3 * rows + 0.4)
    styles = style.variant_styles(variant for curves in panels.values() for variant in curves)
    handles: dict[str, Any] = {}
    for index, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for variant, points in curves.items():
            at = sorted(points)
            low, middle, high = zip(*(spread(points[x]) for x in at))
            look = styles[variant]
            (handles[look.name],) = axes.plot(at, middle, color=look.colour, linestyle=look.line, marker=look.marker)
            axes.fill_between(at, low, high, color=look.colour, alpha=0.15, linewidth=0)
        _scale(axes, curves)
        axes.set(xlabel=name, ylabel=loss if index % columns == 0 else "")
        axes.set_title("\n".join(textwrap.wrap(title, 100 // columns)))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 4))
    return figure


def _scale(axes: Any, curves: Mapping[str, Mapping[float, list[float]]]) -> None:
    """Logarithmic axes where values of one sign span more than a factor of 20; ticks at the swept values, if few."""
    at = sorted({x for points in curves.values() for x in points})
    values = [value for points in curves.values() for found in points.values() for value in found]
    for numbers, set_scale in ((at, axes.set_xscale), (values, axes.set_yscale)):
        if min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            set_scale("log")
    if len(at) <= MAX_TICKS:
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.set_xticks([], minor=True)
