"""Summarises a sweep in one table and one picture: median, lowest and highest loss over the seeds of each setting."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kansciml._files import write_text
from kansciml.reporting import palette, style
from kansciml.reporting.legends import place_legend
from kansciml.reporting.results_table import TRAINED_LISTS, flatten, is_list_of_objects
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, save_tables
from kansciml.sweep.plan import setting_label, value_label

LOSSES = (
    "final_loss", "test_mse", "train_loss", "relative_l2", "loss", "top1",
)  # fmt: skip
"""Losses and scores of a trained model that are summed up, by the names that experiments give them."""
PICTURED = ("final_loss", "train_loss", "relative_l2", "loss")
"""Which of them is drawn: the first that there is."""
MAX_PANELS = 12
MAX_TICKS = 6
MODEL = ["task", "model", "loss"]


@dataclass(frozen=True)
class SweepRun:
    """One task of a sweep as the tables need it: `record` is None, and `error` says why, where it did not finish."""

    setting: Mapping[str, Any]
    record: Record | None = None
    error: str = ""


def summary(experiment: str, runs: Sequence[SweepRun]) -> Table:
    """One row per setting, task, model and loss."""
    names = swept_settings(runs)
    frame = _losses_of(runs).groupby(["setting", *MODEL], sort=False)["value"]
    found = frame.agg(runs="count", median="median", lowest="min", highest="max", all="size").reset_index()
    settings = {setting_label(run.setting): run.setting for run in runs}
    failed = Counter(setting_label(run.setting) for run in runs if run.error)
    rows = pd.DataFrame(
        [[key, *(value_label(one[name]) for name in names), failed[key]] for key, one in settings.items()],
        columns=["setting", *names, "failed tasks"],
    ).merge(found, on="setting", how="left")
    rows["diverged"] = rows["all"] - rows["runs"]
    nothing = dict.fromkeys(MODEL, "") | {"runs": 0, "diverged": 0}
    rows = rows.fillna(nothing).astype({"runs": int, "diverged": int})
    columns = [*names, *MODEL, "runs", "median", "lowest", "highest", "diverged", "failed tasks"]
    notes = ["Over the seeds of a setting. Diverged: the value is not finite, and is in no median."]
    if fixed := {name: value for name, value in next(iter(settings.values()), {}).items() if name not in names}:
        notes.append(f"Everywhere: {setting_label(fixed)}.")
    return Table(f"Sweep of {experiment}", columns, rows[columns].astype(object).to_numpy().tolist(), notes)


def swept_settings(runs: Sequence[SweepRun]) -> list[str]:
    """Settings with more than one value."""
    names = dict.fromkeys(name for run in runs for name in run.setting)
    return [name for name in names if len({value_label(run.setting[name]) for run in runs}) > 1]


def losses(record: Record | None) -> Iterator[tuple[str, str, str, float]]:
    """Task, model, name and value of each loss of a record; a value that is not finite is NaN.

    A record without trained models has the numbers of its result instead, as far as they are named.
    """
    if record is None:
        return
    lists = [record.result[name] for name in TRAINED_LISTS if is_list_of_objects(record.result.get(name))]
    for row in lists[0] if lists else ():
        task = str(row.get("task", row.get("system", row.get("model", ""))))
        variant = str(row.get("group", row.get("variant", row.get("label", ""))))
        for name in LOSSES:
            if name in row:
                yield task, variant, name, _finite(row[name])
    if not lists:
        for name, value in flatten(record.result).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield "", "", name, _finite(value)


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _losses_of(runs: Sequence[SweepRun]) -> pd.DataFrame:
    rows = [(setting_label(run.setting), *loss) for run in runs for loss in losses(run.record)]
    return pd.DataFrame(rows, columns=["setting", *MODEL, "value"]).astype({"value": float})


def save_sweep(folder: Path, experiment: str, runs: Sequence[SweepRun]) -> tuple[Table, list[Path]]:
    """Write ``summary.md``, ``.json`` and ``.csv``, and a picture where a swept setting is a number.

    Returns:
        the table, and the files.
    """
    table = summary(experiment, runs)
    csv = pd.DataFrame(table.rows, columns=list(table.columns)).to_csv(index=False, lineterminator="\n")
    paths = [*save_tables([table], folder, "summary"), write_text(folder / "summary.csv", csv)]
    name = numeric_setting(runs)
    if name is not None:
        paths += picture(folder, runs, name)
    return table, paths


def numeric_setting(runs: Sequence[SweepRun]) -> str | None:
    """The first swept setting whose values are two numbers or more."""
    for name in runs[0].setting if runs else ():
        values = {run.setting[name] for run in runs}
        if len(values) > 1 and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
            return name
    return None


def picture(folder: Path, runs: Sequence[SweepRun], name: str) -> list[Path]:
    """Median loss against setting `name`, lowest to highest shaded: a panel per task and other swept settings."""
    frame = _losses_of(runs).dropna(subset="value")
    seen = frame["loss"].unique()
    pictured = next((one for one in (*PICTURED, *seen) if one in seen), None)
    frame = frame[frame["loss"] == pictured]
    if frame.empty:
        return []
    others = [other for other in swept_settings(runs) if other != name]
    settings = {setting_label(run.setting): run.setting for run in runs}
    labels = {key: setting_label({other: one[other] for other in others}) for key, one in settings.items()}
    where = frame["setting"].map(labels if others else lambda key: "")
    frame = frame.assign(
        x=frame["setting"].map({key: one[name] for key, one in settings.items()}),
        curve=frame["model"].where(frame["model"] != "", frame["loss"]),
        panel=[", ".join(filter(None, both)) for both in zip(frame["task"], where)],
    )
    with style.publication_style():
        return style.save_figure(_drawn(frame, name, str(pictured)), folder, "summary")


def _drawn(frame: pd.DataFrame, name: str, loss: str) -> Figure:
    """The picture of a frame with columns x, value, curve and panel."""
    panels = list(frame.groupby("panel", sort=False))[:MAX_PANELS]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = style.new_figure(2.3 * rows)
    styles = palette.variant_styles(frame["curve"].unique())
    handles: dict[str, Any] = {}
    for index, (title, panel) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for curve, points in panel.groupby("curve", sort=False):
            spread, look = points.groupby("x")["value"].agg(["min", "median", "max"]), styles[str(curve)]
            (handles[look.name],) = axes.plot(
                spread.index,
                spread["median"],
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                label=look.name,
            )
            axes.fill_between(spread.index, spread["min"], spread["max"], color=look.colour, alpha=0.15, linewidth=0)
        _scale(axes, sorted(panel["x"].unique()), list(panel["value"]))
        axes.set(xlabel=name, ylabel=loss if index % columns == 0 else "")
        axes.set_title("\n".join(textwrap.wrap(str(title), 100 // columns)))
    place_legend(figure, list(handles.values()), "line: median; band: lowest to highest")
    return figure


def _scale(axes: Axes, at: Sequence[float], values: Sequence[float]) -> None:
    """Logarithmic axes where values of one sign span more than a factor of 20; ticks at the swept values, if few."""
    for numbers, set_scale in ((at, axes.set_xscale), (values, axes.set_yscale)):
        if min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            set_scale("log")
    if len(at) <= MAX_TICKS:
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.set_xticks([], minor=True)
