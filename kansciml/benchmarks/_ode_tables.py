"""Tables and targets of ``kansciml bench ode``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kansciml.backends.julia import DEFAULT_SENSEALG
from kansciml.backends.torch import DEFAULT_GRADIENT
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Row
from kansciml.models.field_spec import FieldSpec
from kansciml.runs.tables import Table

BASELINE = "torchdiffeq backprop, nn.Module"
DIFFRAX = "diffrax Dopri5, RecursiveCheckpointAdjoint"
TORCH, JULIA = f"torch {DEFAULT_GRADIENT}", f"julia {DEFAULT_SENSEALG}"
SLOW_S, BUDGET_S = 1.0, 12.0
"""A method that takes longer is timed once; the rounds of a table end after so long, but for the first three."""
MOST_BRIDGE_MS = 0.3
FINE = 1e-12
"""Tolerance at which the gradients of torch and of diffrax are compared."""


def target_rows(document: Row) -> list[dict[str, Any]]:
    """What is to be reached, in processor time; by many trajectories on several threads beside one, on the wall."""
    found = []
    for result in document["results"]:
        of = f"{result['system']}, {result['model']}"
        times = {row["method"]: row.get("median_ms") for row in result["rows"]}
        theirs = times.get(DIFFRAX)
        for method, most in ((TORCH, 1.0), (JULIA, 0.6)):
            ours = times.get(f"{method} (default)")
            found.append(
                measuring.at_most(f"{of}: {method} over diffrax", most, ours / theirs if ours and theirs else None)
            )
        if "bridge_ms" in result:
            what = f"{of}: {JULIA} called from Python, beyond its computation [ms]"
            found.append(measuring.at_most(what, MOST_BRIDGE_MS, result["bridge_ms"]))
        for row in result.get("many", ()):
            if (result["system"], row["trajectories"]) == ("lotka", 64) and row["method"] != DIFFRAX:
                most = 12.0 if row["method"] == TORCH else 64 / row["threads"]
                what = f"{of}: {row['method']}, {threads_of(row['threads'])}, 64 trajectories over one"
                reached = row["ratio" if row["threads"] == 1 else "wall_ratio"]
                found.append(measuring.at_most(what, most, reached))
    return found


def threads_of(count: int) -> str:
    """In words."""
    return f"{count} thread" + "s" * (count > 1)


COLUMNS = {
    "method": "method",
    "median_ms": "CPU, median [ms]",
    "low_ms": "25 % [ms]",
    "high_ms": "75 % [ms]",
    "ratio": "x baseline",
    "wall_ms": "wall, median [ms]",
    "gradient_difference": "gradient difference",
}
MANY_COLUMNS = {
    "method": "method",
    "threads": "threads",
    "trajectories": "trajectories",
    "median_ms": "CPU, median [ms]",
    "ratio": "CPU, x the first number",
    "wall_ms": "wall, median [ms]",
    "wall_ratio": "wall, x the first number",
    "gradient_difference": "gradient difference",
}


def table(system: str, spec: FieldSpec, rows: Sequence[Row], tolerance: float) -> Table:
    """The methods side by side, on one trajectory."""
    notes = [
        f"rtol = atol = {tolerance:g}, float64, one thread; baseline: {BASELINE}; medians, interleaved.",
        "CPU: processor time of all threads, of Julia that of its process and of this one together.",
        f"A method that takes over {SLOW_S:g} s is timed once. Difference: to the first method of the same backend; of"
        f" diffrax to torch, both at a tolerance of {FINE:g}.",
    ]
    title = f"One loss + gradient: {system}, {spec.label()}, {spec.n_parameters} parameters"
    return measuring.table_of(title, rows, COLUMNS, notes)


def table_of_many(system: str, spec: FieldSpec, rows: Sequence[Row]) -> Table:
    """The default methods, on several trajectories."""
    notes = [
        "The default method of each backend; diffrax under jax.vmap. Difference: to torch at a tolerance of"
        f" {FINE:g}, of diffrax at the same; of others it shows what the solver's own tolerance costs.",
    ]
    return measuring.table_of(f"Several trajectories: {system}, {spec.label()}", rows, MANY_COLUMNS, notes)
