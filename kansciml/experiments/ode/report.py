"""Report of a neural-ODE experiment (Figure 2, ``kansciml ode``): its tables and pictures, from the record alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.experiments.ode import figures, paths
from kansciml.experiments.ode.anytime import figure
from kansciml.experiments.ode.anytime.tables import anytime_tables, generalisation_tables, tolerance_tables
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.tables import backend_tables, estimate_tables, loss_table, verdict_tables
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def summary(record: Record) -> list[Table]:
    """The tables of final losses and of estimated parameters, one of verdicts per claim where models can be compared,
    and those of the costs, tolerances and errors beyond the data that the record knows.

    Raises:
        KansciError: the record holds no finished run of a neural ODE.
    """
    ode = OdeRecord.read(record)
    costs = [*anytime_tables(ode), *tolerance_tables(record, ode), *generalisation_tables(ode)]
    return [loss_table(ode), *estimate_tables(ode), *verdict_tables(ode), *costs, *backend_tables(ode)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write all pictures (SVG, PNG and PDF) and tables (Markdown and JSON) into `folder`; returns their paths.

    ``loss_curves``, ``final_losses`` (of several runs), ``anytime`` (where costs are known), ``phase_portraits``,
    ``trajectories_<system>``, ``errors_<system>``, for systems of two components ``fields_<system>``, of bodies in a
    plane ``orbits_<system>``, and ``tables``.

    Raises:
        KansciError: the record holds no finished run of a neural ODE, or the folder cannot be written.
    """
    ode = OdeRecord.read(record)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "loss_curves": partial(figures.loss_curves, ode),
        "final_losses": partial(figures.final_losses, ode),
        "anytime": partial(figure.anytime, ode),
        "phase_portraits": partial(paths.phase_portraits, ode),
    }
    for system in ode.systems:
        for name, draw in (("trajectories", paths.trajectories), ("errors", paths.errors), ("fields", paths.fields)):
            drawings[f"{name}_{system.name}"] = partial(draw, ode, system)
        if system.bodies:
            drawings[f"orbits_{system.name}"] = partial(paths.orbits, ode, system)
    return save_report(folder, summary(record), drawings)
