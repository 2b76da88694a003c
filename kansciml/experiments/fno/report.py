"""Report of trained neural operators (``kansciml fno``, Figure 5): reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``result["data"][name]``: name, title, size (nodes along a side), n_train, n_test, n_minimum, and train_hash,
  test_hash, minimum_hash of the samples. "Minimum": the training samples on which sharpness is measured.
* ``result["runs"]``: id, task (data and model: groups of one task are compared), data, model, resized (sizes other than
  the model's own), variant (``mlp``, ``kan-spline``, ``kan-rswaf``), residual, group (the variant, with ``-residual``),
  label, seed, status ("finished" or "diverged"), message; parameters, ends_parameters (of lift and projection);
  relative_l2 (mean over test samples), relative_l2_at (the same by resolution, as text), train_loss of the last epoch,
  minimum_loss, best_relative_l2, best_epoch; epochs, steps, samples_per_s, seconds_per_step, peak_memory_mb, wall_s,
  batch_size, precision, processes; network (its configuration) and weights (a file, from the record's folder).
* arrays per run, (epochs,): ``<id>.epoch``, ``.step``, ``.loss``, ``.test_error``, ``.learning_rate``,
  ``.samples_per_s``, ``.train_s`` (seconds without evaluations); ``.errors.<size>`` (test samples,) at each resolution;
  ``.prediction`` (k, s, s) of the first test samples.
* arrays per data set: ``<data>.a``, ``<data>.u`` (k, s, s) of the same samples, and ``<data>.normaliser`` (4, s, s):
  mean and deviation of a, and of u, over the training samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kansciml.experiments.fno import figures as fno_figures
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.tables import all_tables
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def summary(record: Record) -> list[Table]:
    """Tables of errors and of cost, at other resolutions where there are some, and verdicts on the paper's claims.

    Raises:
        KansciError: the record holds no trained neural operators.
    """
    return all_tables(FnoRecord.read(record))


def render(record: Record, folder: Path) -> list[Path]:
    """Write all pictures (SVG, PNG and PDF) and tables (Markdown and JSON) into `folder`; returns their paths.

    ``curves``, ``prediction_1`` ... of the first test samples, and ``tables``.

    Raises:
        KansciError: the record holds no trained neural operators, or the folder cannot be written.
    """
    return write_all(record, folder, fno_figures.curves)


def write_all(record: Record, folder: Path, curves: Callable[[FnoRecord, str], Any]) -> list[Path]:
    """`render` with its own picture of curves."""
    fno = FnoRecord.read(record)
    drawings: dict[str, Callable[[], Any]] = {}
    for task in fno.tasks:
        suffix = fno.suffix(task)
        shown = len(record.arrays[f"{fno.of(task)[0].first.data}.u"])
        drawings[f"curves{suffix}"] = partial(curves, fno, task)
        for sample in range(shown):
            drawings[f"prediction_{sample + 1}{suffix}"] = partial(fno_figures.prediction_maps, fno, task, sample)
    return save_report(folder, all_tables(fno), drawings)
