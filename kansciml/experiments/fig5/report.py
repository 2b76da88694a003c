"""Report of Figure 5, a neural operator for Darcy flow with and without residual connections: reads the record only.

The layout of the record is that of `kansciml.experiments.fno.report`.
"""

from __future__ import annotations

from pathlib import Path

from kansciml.experiments.fno import report as fno
from kansciml.experiments.fno.report import curves_by_residual
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def summary(record: Record) -> list[Table]:
    """Verdicts on the paper's claims first; then tables of errors, resolutions and cost."""
    return sorted(fno.summary(record), key=lambda table: not table.title.startswith("Claims"))


def render(record: Record, folder: Path) -> list[Path]:
    """As `fno.report.render`, with ``curves`` in a column without, and one with residual connections."""
    return fno.render(record, folder, curves_by_residual)
