"""Report of a tuning: what was chosen, errors of tuned and untuned models, verdicts, and two pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import REFUTED, SUPPORTED, Comparison, compare, corrected
from kansciml.experiments.ode.figures import SPANS, final_losses, panels_of
from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.tables import loss_table
from kansciml.experiments.tune.record import Tuned, read_tuned
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import variant_styles
from kansciml.reporting.style import as_is, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"mlp": "MLP", "kan": "KAN"}
TUNED = "KAN below MLP, tuned"
"""Claim on both models with their chosen settings."""


def summary(record: Record) -> list[Table]:
    """What was chosen, the errors of all models, and verdicts.

    Raises:
        KansciError: the record holds no finished run.
    """
    tuned = read_tuned(record)
    return [chosen_table(tuned), loss_table(OdeRecord.read(record)), verdict_table(tuned)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write the pictures ``search`` and ``tuned`` (SVG, PNG and PDF) and ``tables`` into `folder`."""
    ode, tuned = OdeRecord.read(record), read_tuned(record)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "tuned": partial(final_losses, ode, span_of(ode.systems)),
        "search": partial(trials_of, tuned),
    }
    return save_report(folder, summary(record), drawings)


def chosen_table(tuned: list[Tuned]) -> Table:
    """The chosen settings of each model beside the default ones, with their errors on validation data."""
    rows = []
    for one in tuned:
        first, best = one.trials[0], one.best
        for how, trial in (("default", first), *([("tuned", best)] if best is not first else [])):
            text = trial.choice.said(one.model)
            rows.append([one.system.title, NAMES[one.model], how, trial.label, trial.n_parameters, text, trial.score])
    n, seeds = max(len(one.trials) for one in tuned), max(len(one.trials[0].errors) for one in tuned)
    both = [outcome.corrected for _, claim, outcome in comparisons(tuned) if claim == TUNED]
    result = (
        f"Both tuned, errors on {SPANS[span_of(one.system for one in tuned)]}: KAN lower on {both.count(SUPPORTED)} of"
        f" {len(both)} systems, MLP on {both.count(REFUTED)}, after Holm's correction."
    )
    note = (
        f"Lowest validation error of {n} trials of each model, the default settings among them, each trained with"
        f" {seeds} seeds; geometric mean of their relative squared errors on the validation trajectories."
        " No tuned row: no trial was better than the default."
    )
    columns = ["System", "Model", "Settings", "Field", "Parameters", "Chosen", "Validation relative MSE"]
    return Table("Chosen settings", columns, rows, [result, note])


def comparisons(tuned: list[Tuned]) -> list[tuple[str, str, Comparison]]:
    """(title of the system, claim, outcome), paired by seed, with Holm's correction over all of them."""
    systems: dict[str, dict[str, Tuned]] = {}
    for one in tuned:
        systems.setdefault(one.system.name, {})[one.model] = one
    about, found = [], []
    metric = f"{span_of(one.system for one in tuned)}_relative_mse"
    for models in systems.values():
        for claim, sides in (
            ("KAN below MLP, untuned", (("kan", False), ("mlp", False))),
            (TUNED, (("kan", True), ("mlp", True))),
            ("KAN tuned below untuned", (("kan", True), ("kan", False))),
            ("MLP tuned below untuned", (("mlp", True), ("mlp", False))),
        ):
            first, second = (models[model].group(how) if model in models else None for model, how in sides)
            if first is not None and second is not None and first is not second:
                about.append((models["kan"].system.title, claim))
                a, b = (group.by_seed(lambda run: run.ranked(metric)) for group in (first, second))
                found.append(compare(a, b, below=1))
    return [(*of, one) for of, one in zip(about, corrected(found))]


def span_of(systems: Iterable[OdeSystem]) -> str:
    """Whose errors decide, a key of `SPANS`: of unseen trajectories, or, where there are none, of those trained on."""
    return "unseen" if any("unseen" in system.roles for system in systems) else "train"


def verdict_table(tuned: list[Tuned]) -> Table:
    """Who is better tuned, who untuned, and what tuning gains; one family of tests."""
    rows = [
        [title, claim, one.corrected, one.verdict, one.effect, one.low, one.high, one.p_value, one.adjusted_p,
         one.n_pairs, one.reason]
        for title, claim, one in comparisons(tuned)
    ]  # fmt: skip
    columns = ["System", "Claim", "Verdict", "before Holm", "Ratio", "low", "high", "p", "p (Holm)", "Seeds", "Why"]
    note = (
        f"Errors on {SPANS[span_of(one.system for one in tuned)]}, paired by seed; exact signed-rank test, Holm's"
        " correction over this table."
    )
    return Table("Tuned and untuned", columns, rows, [note])


def trials_of(tuned: list[Tuned]) -> Figure:
    """Validation error of every trial, and the lowest one so far, by system."""
    systems = list(dict.fromkeys(one.system.name for one in tuned))
    figure, panels = panels_of(2.0, len(systems))
    styles = variant_styles(NAMES)
    for axes, name in zip(panels, systems):
        for one in (one for one in tuned if one.system.name == name):
            scores = np.array([trial.score for trial in one.trials])
            at, finite, style = np.arange(1, len(scores) + 1), np.isfinite(scores), styles[one.model]
            axes.plot(at[finite], scores[finite], linestyle="", marker=style.marker, color=style.colour, alpha=0.45)
            axes.step(at, np.minimum.accumulate(scores), where="post", color=style.colour, linestyle=style.line)
            axes.set_title(as_is(one.system.title))
        axes.set_yscale("log")
        axes.set_xlabel("trial")
        axes.locator_params(axis="x", nbins=5, integer=True)
    figure.supylabel("validation relative MSE", fontsize=8)
    place_legend(
        figure, [key(style) for style in styles.values()], "line: the lowest so far; trial 1: default settings"
    )
    return figure
