"""Loads the trained neural ODEs of a finished run, for studies of their minima."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from kansciml._errors import KansciError, UsageError, unknown_name
from kansciml.backends.trajectory_loss import trajectory_loss
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.record import LARGE
from kansciml.experiments.ode.run_rows import Run, numbered, read_runs
from kansciml.runs.records import Record
from kansciml.runs.trained import LoadedModel, TrainedModel, config_of
from kansciml.tasks.ode.data import training_trajectories
from kansciml.tasks.ode.evaluation import METRICS
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trained.saved import DESCRIPTION

C = TypeVar("C")


def trained_fields(record: Record, kind: type[C], plan_of: Callable[[C], Plan]) -> list[TrainedModel]:
    """The models of a run whose training ended (neither diverged nor interrupted), in the order of its plan.

    `kind`, of its configuration; `plan_of`: the experiment's `plan`.

    Raises:
        KansciError: the data of a system are not those of the record any more.
    """
    plan = plan_of(config_of(kind, record.config))
    runs = {run.id: run for run in read_runs(record) if run.status == "finished"}
    jobs = [job for job in plan.jobs if job.id in runs]
    for source in dict.fromkeys(job.system for job in jobs):
        _require_same_data(record, plan.systems[source])
    return [_trained(job, plan.systems[job.system], runs[job.id], record.folder) for job in jobs]


def model_folder(run: Path, name: str) -> Path:
    """Where the run in a folder keeps the trained model of this id."""
    return run / "models" / name


def models_named(record: Record, name: str | None = None) -> list[Run]:
    """The runs of this id, group or system, or (None) all, whose models are kept: see `model_folder`.

    Raises:
        UsageError: none is of that name. KansciError: no models are kept.
    """
    if "systems" not in record.result:
        raise KansciError(f"{record.folder} is a run of {record.experiment}: expected one of kansciml ode, or a model")
    runs = [run for run in read_runs(record) if model_folder(record.folder, run.id).is_dir()]
    if not runs:
        raise KansciError(f"{record.folder} keeps no trained neural ODEs: resume it, or run it again with --force")
    found = [run for run in runs if name in (None, run.id, run.group, run.system)]
    if not found:
        raise unknown_name("model", name, dict.fromkeys([*(run.group for run in runs), *(run.id for run in runs)]))
    return found


def _trained(job: Job, system: System, run: Run, folder: Path) -> TrainedModel:
    def load() -> LoadedModel:
        fit = job.config.fit
        if fit.shooting or fit.l1 or fit.entropy:
            raise UsageError(
                f"{job.id} was trained with windows or penalties: expected the loss to be the misfit alone"
            )
        problem, kept = job.problem(system), model_folder(folder, job.id) / DESCRIPTION
        data = fingerprint(*(part for one in problem.series for part in one.told()))  # also inputs and weights
        if system.rhs is None and kept.is_file() and json.loads(kept.read_text())["about"]["data"] != data:
            raise _other_data(system, folder)
        if not len(run.array("params")):
            raise KansciError(f"{folder} lacks the parameters of {job.id}: of over {LARGE} none are packed; train anew")
        # thousands of operations on a few numbers: a second thread only waits for the first
        params = np.asarray(run.array("params"), dtype=np.float64)
        return LoadedModel(*trajectory_loss(problem, params), threads=1)

    two = job.group != job.variant
    return TrainedModel(
        name=job.id,
        label=f"{job.spec.label()} ({job.backend})" if two else job.spec.label(),
        group=job.group,
        seed=job.seed,
        load=load,
        task=system.name,
        against=None if job.variant == "mlp" else replace(job, variant="mlp").group,
        metrics={name: getattr(run, name) for name in METRICS},
        loss=run.final_loss,
    )


def _require_same_data(record: Record, system: System) -> None:
    for place, data in enumerate(training_trajectories(system)):
        names = (f"{system.name}.{numbered(name, place)}" for name in ("data_t", "data"))
        times, states = (record.arrays.get(name) for name in names)
        if times is None or states is None:
            raise KansciError(f"{record.folder} holds no data of {system.name}: run it again")
        kept = np.isin(times, data.t.astype(times.dtype))  # a packed record holds singles
        digits = 1e-6 if states.dtype == np.float32 else 1e-9  # solved on another machine, the last of them differ
        near = digits * np.nanmax(np.abs(data.states), axis=0)
        same = kept.sum() == len(data) and np.array_equal(np.isnan(states[kept]), np.isnan(data.states))
        if not same or np.any(np.abs(states[kept] - data.states) > near):
            raise _other_data(system, record.folder)


def _other_data(system: System, folder: Path) -> KansciError:
    return KansciError(
        f"the data of {system.name} are not those that the run in {folder} was trained on: restore the file, or train"
        " anew"
    )
