"""Errors of the trained neural ODEs of a run on other data: ``kansciml evaluate results/ode/... --data other.csv``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import SolveError, UsageError, check_name
from kansciml.backends.select import BACKENDS
from kansciml.experiments.ode.backends import closing_backends, shared_backend
from kansciml.experiments.ode.trained import model_folder, models_named
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.tables import Table
from kansciml.runs.trained import Scoring, ScoringOptions
from kansciml.tasks.ode.evaluation import Metrics
from kansciml.tasks.ode.table import read_table
from kansciml.tasks.ode.trained.model import OdeModel
from kansciml.tasks.ode.trained.saved import load_model
from kansciml.tasks.ode.trajectory import Trajectory

NAMES = ("mse", "relative_mse")


@dataclass(frozen=True, kw_only=True)
class OdeScoring(ScoringOptions):
    """Which neural ODEs are scored, and on what."""

    data: Path | None = None
    """CSV or Parquet file of other trajectories, its columns named as those of the data that were trained on."""
    id_column: str | None = None
    """Name or number of the column of --data that tells its trajectories apart, where it holds several."""
    time_column: str | None = None
    """Name or number of the column of times in --data, where it is not named as that of the data trained on."""
    states: tuple[str, ...] = ()
    """Columns of --data that are the components of the state, in the model's order, where they have other names."""
    inputs: tuple[str, ...] = ()
    """Columns of --data that are the inputs, in the model's order, where they have other names."""
    backend: str = "torch"
    """torch, julia, or auto; a layer of Lux wants julia, which runs the file that defined it."""


def score(record: Record, options: OdeScoring, progress: Progress) -> tuple[dict[str, Any], list[Table]]:
    """Every chosen model on every trajectory, from its first row on and driven by its inputs, at tolerance 1e-10.

    Raises:
        UsageError: no data, columns that the model wants and are not there, a first row with gaps.
        KansciError: the run keeps no models.
    """
    if options.data is None:
        raise UsageError("evaluate of neural ODEs wants --data, a table of other trajectories to score them on")
    runs = models_named(record, options.model)
    found, notes, told = [], [], set()

    def log(line: str) -> None:
        if line not in told:  # once for all models
            progress.log(line)
        told.add(line)

    check_name("backend", options.backend, BACKENDS)
    with closing_backends(), progress.task("evaluating", len(runs)) as bar:
        backend = "torch" if options.backend == "torch" else shared_backend(options.backend, None, log)
        for run in runs:
            model = load_model(model_folder(record.folder, run.id), backend=backend)
            data = _data(options, model, log)
            about = {"id": run.id, "system": run.system, "group": run.group, "label": run.label, "seed": run.seed}
            found.append({**about, "parameters": run.n_parameters, **errors_on(model, data)})
            bar.update(advance=1)
    for one in found:
        notes += [f"{one['id']}, {row['name']}: {row['missing']}." for row in one["trajectories"] if row["missing"]]
    rows = [
        [one["id"], one["label"], row["name"], row["rows"], *(row[name] for name in NAMES)]
        for one in found
        for row in (*one["trajectories"], *([one["all"]] if len(one["trajectories"]) > 1 else []))
    ]
    columns = ["Run", "Model", "Trajectory", "Rows", "MSE", "Relative MSE"]
    note = "From the first row of each trajectory on. Relative: squared error over the variation of the data."
    return {"data": str(options.data), "models": found}, [Table("Errors on other data", columns, rows, [note, *notes])]


def errors_on(model: OdeModel, data: Sequence[Trajectory]) -> dict[str, Any]:
    """Errors on each trajectory, and on all together where the model could be solved on all."""
    states, rows = [], []
    for k, one in enumerate(data):
        start = one.states[0]
        if np.isnan(start).any():
            lacking = ", ".join(label for label, value in zip(one.labels, start) if np.isnan(value))
            raise one.error(f"{lacking} not measured in its first row, the initial state: leave this row out")
        try:
            states.append(model.trajectory(one.t, u0=start, t0=float(one.t[0]), inputs=one.forcing))
            measured = _measured(states[-1], one.states, model)
        except SolveError as error:
            measured = {**dict.fromkeys(NAMES), "missing": str(error)}
        rows.append({"name": one.name or str(k), "rows": len(one), **measured})
    together: dict[str, Any] = {**dict.fromkeys(NAMES), "missing": "not every trajectory could be solved"}
    if len(states) == len(data):
        together = _measured(np.concatenate(states), np.concatenate([one.states for one in data]), model)
    return {"trajectories": rows, "all": {"name": "all", "rows": sum(map(len, data)), **together}}


def _measured(states: np.ndarray, data: np.ndarray, model: OdeModel) -> dict[str, Any]:
    found = Metrics()
    found.measure("data", states, data, model.problem.loss_scale)
    missing = found.missing.get("data_mse") or found.missing.get("data_relative_mse", "")
    return {**{name: found.get(f"data_{name}") for name in NAMES}, "missing": missing}


def _data(options: OdeScoring, model: OdeModel, log: Callable[[str], None]) -> tuple[Trajectory, ...]:
    assert options.data is not None
    inputs = model.problem.series[0].inputs
    for what, given, own in (("states", options.states, model.labels), ("inputs", options.inputs, model.input_labels)):
        if given and len(given) != len(own):
            raise UsageError(f"got {len(given)} {what}: expected {len(own)} columns, for {', '.join(own) or 'none'}")
    return read_table(
        options.data,
        options.id_column,
        options.time_column,
        options.states or model.labels,
        options.inputs or model.input_labels,
        input_kind=inputs.kind if inputs else "linear",
        log=log,
        clock=model.clock,
    )


SCORING = Scoring(OdeScoring, score)
