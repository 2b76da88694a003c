"""Report of a neural-ODE experiment (Figure 2, ``kansciml ode``): reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``result["systems"][name]``: title, labels, n, train_end, test_end (or null), phase_plane (or null), loss_scale.
* ``result["runs"]``: id, system, model, variant, label, n_parameters, seed, backend, method, status ("finished",
  "diverged" or "interrupted"), message, final_loss, train_mse, train_relative_mse, test_mse, test_relative_mse,
  not_computed, evaluations, wall_s; errors are re-evaluated at tolerance 1e-10, null where that fails, the truth is
  unknown or, for relative errors, the data are constant in time: ``not_computed`` says why, metric -> one line.
  Variants are named ``mlp``, ``kan``, ``kan-width`` (equal width), ``kan-params`` (equal parameters), ``kan-unscaled``
  and ``kan-tanh`` (the state enters the grid as it is, or through tanh); others are drawn and listed under their name.
  A run on two backends names its variants ``variant@backend`` and has ``result["gates"]``, rows of
  `kansciml.crosscheck.Gate`.
* arrays per run: ``<id>.iteration``, ``.loss``, ``.phase`` (0 Adam, 1 L-BFGS), all (K,), and ``.trajectory`` (Td, n),
  NaN after a blow-up; per system: ``<system>.t`` (Td,), ``.truth`` (Td, n, absent if unknown), ``.data_t``, ``.data``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kansciml.experiments.ode import figures
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.tables import backend_tables, loss_table, verdict_tables
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def summary(record: Record) -> list[Table]:
    """The table of final losses, and a table of verdicts per claim where two models can be compared.

    Raises:
        KansciError: the record holds no finished run of a neural ODE.
    """
    ode = OdeRecord.read(record)
    return [loss_table(ode), *verdict_tables(ode), *backend_tables(ode)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write all pictures (SVG, PNG and PDF) and tables (Markdown and JSON) into `folder`; returns their paths.

    ``loss_curves``, ``final_losses`` (of more than one run), ``phase_portraits``, ``trajectories_<system>``, for
    systems of bodies in a plane ``orbits_<system>``, and ``tables``.

    Raises:
        KansciError: the record holds no finished run of a neural ODE, or the folder cannot be written.
    """
    ode = OdeRecord.read(record)
    drawings = {
        "loss_curves": partial(figures.loss_curves, ode),
        "final_losses": partial(figures.final_losses, ode),
        "phase_portraits": partial(figures.phase_portraits, ode),
    }
    if sum(len(group.rows) for group in ode.groups) == 1:
        del drawings["final_losses"]
    for name, system in ode.systems.items():
        drawings[f"trajectories_{name}"] = partial(figures.trajectories, ode, system)
        if system.bodies:
            drawings[f"orbits_{name}"] = partial(figures.orbits, ode, system)
    return save_report(folder, summary(record), drawings)
