"""Report of Figure 5, a neural operator for Darcy flow with and without residual connections: reads the record only.

The layout of the record is that of `kansciml.experiments.fno.report`.
"""

from __future__ import annotations

from pathlib import Path

from kansciml.experiments.fno import report as fno
from kansciml.experiments.fno.figures import curves_by_residual
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def summary(record: Record) -> list[Table]:
    """Verdicts on the paper's claims first; then tables of errors, resolutions and cost.

    Raises:
        KansciError: the record holds no trained neural operators.
    """
    tables = fno.summary(record)
    return sorted(tables, key=lambda table: not table.title.startswith("Claims"))


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``curves`` (a column without, one with residual connections), ``prediction_1`` ... and ``tables``.

    Raises:
        KansciError: the record holds no trained neural operators, or the folder cannot be written.
    """
    return fno.write_all(record, folder, curves_by_residual)
