"""Tables and targets of ``kansciml bench ode``."""

from __future__ import annotations

from typing import Any

from kansciml.backends.julia import DEFAULT_SENSEALG
from kansciml.backends.torch import DEFAULT_GRADIENT
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Row
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


def tables(document: Row) -> list[Table]:
    """All methods on all systems, then each system by itself, several trajectories, and the targets."""
    found = [_overview(document)]
    for result in document["results"]:
        found.append(_table(result, document))
        found += [_table_of_many(result)] if "many" in result else []
    return [*found, measuring.targets_table(document["targets"], "A dash was not measured here.")]


def _overview(document: Row) -> Table:
    columns = {"method": "method [ms]"}
    shown: dict[str, dict[str, Any]] = {}
    for result in document["results"]:
        key = f"{result['system']} {result['model']}"
        columns[key] = f"{result['system']}, {result['label']}"
        for row in result["rows"]:
            shown.setdefault(row["method"], {"method": row["method"]})[key] = row.get("median_ms")
    rows = [dict.fromkeys(columns) | row for row in shown.values()]
    return measuring.table_of("One loss + gradient", rows, columns, [_setting(document)])


def _setting(document: Row) -> str:
    return (
        f"rtol = atol = {document['tolerance']:g}, float64, one thread; {measuring.versions_of(document['machine'])};"
        f" baseline: {document['baseline']}; medians of processor time, interleaved."
    )


def _title(result: Row) -> str:
    return f"{result['system']}, {result['label']}"


def _table(result: Row, document: Row) -> Table:
    """The methods side by side, on one trajectory."""
    notes = [
        _setting(document),
        "CPU: processor time of all threads, of Julia that of its process and of this one together.",
        f"A method that takes over {SLOW_S:g} s is timed once. Difference: to the first method of the same backend; of"
        f" diffrax to torch, both at a tolerance of {FINE:g}.",
    ]
    title = f"One loss + gradient: {_title(result)}, {result['parameters']} parameters"
    return measuring.table_of(title, result["rows"], COLUMNS, notes)


def _table_of_many(result: Row) -> Table:
    """The default methods, on several trajectories."""
    notes = [
        "The default method of each backend; diffrax under jax.vmap. Difference: to torch at a tolerance of"
        f" {FINE:g}, of diffrax at the same; of others it shows what the solver's own tolerance costs.",
    ]
    return measuring.table_of(f"Several trajectories: {_title(result)}", result["many"], MANY_COLUMNS, notes)
