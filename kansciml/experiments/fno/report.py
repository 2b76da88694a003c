"""Report of trained neural operators (``kansciml fno``, Figure 5): reads the record only.

Of the record's result, ``data`` holds `SamplesRow` by name and ``runs`` `OperatorRow`. Arrays of a run, (epochs,):
``<id>.epoch``, ``.step``, ``.loss``, ``.test_error``, ``.learning_rate``, ``.samples_per_s``, ``.train_s`` (seconds
without evaluations); ``.errors.<size>`` (test samples,) at each resolution; ``.prediction`` (k, s, s) of the first test
samples. Arrays of the data: ``<data>.a``, ``<data>.u`` (k, s, s) of the same samples, and ``<data>.normaliser``
(4, s, s): mean and deviation of a, and of u, over the training samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.experiments.fno import figures as fno_figures
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.tables import all_tables
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def summary(record: Record) -> list[Table]:
    """Tables of errors and of cost, at other resolutions where there are some, and verdicts on the paper's claims."""
    return all_tables(FnoRecord.read(record))


def render(record: Record, folder: Path, curves: Callable[[FnoRecord, str], Figure] = fno_figures.curves) -> list[Path]:
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
            drawings[stem] = partial(fno_figures.prediction_maps, fno, task, sample)
    return save_report(folder, all_tables(fno), drawings)
