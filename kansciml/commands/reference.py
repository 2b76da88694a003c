"""``kansciml reference SYSTEM --t 3.5``: the true state of a system at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kansciml.commands._output import JsonFlag, Output, named_first, parse

SUMMARY = "print the true state of a system at any time (SciPy DOP853 at 1e-12)"
EXAMPLES = (
    "kansciml reference lotka --t 3.5",
    "kansciml reference my_system.py --t 0 1 2",
)


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Reference solution of a system."""

    t: tuple[float, ...] = ()
    """Times; none: the end of the training span."""


def main(arguments: Sequence[str], out: Output) -> int:
    import numpy as np

    from kansciml.runs.tables import Table
    from kansciml.tasks.ode.reference import invariant_drift, reference_solution
    from kansciml.tasks.ode.registry import available_systems, get_system

    wanted = f"reference wants a system: one of {', '.join(available_systems())}, or a path ending in .py"
    name, rest = named_first(arguments, wanted)
    options = parse(Arguments, rest, "reference SYSTEM")
    system = get_system(name)
    times = options.t or (system.train_end,)
    states = reference_solution(system, np.array(times))
    drift = {key: np.asarray(value).tolist() for key, value in invariant_drift(system, states).items()}
    document = {
        "system": system.name,
        "labels": list(system.labels),
        "t": list(times),
        "u": states.tolist(),
        "method": "SciPy DOP853, rtol = atol = 1e-12, float64",
        "invariant_drift": drift,
    }
    rows = [[f"{t:.15g}", *(f"{value:.12g}" for value in u)] for t, u in zip(times, states)]
    if system.state_size > 8:  # one row per component reads better than 28 columns
        columns = ["state", *(f"t = {t:.15g}" for t in times)]
        rows = [[label, *(f"{u[i]:.12g}" for u in states)] for i, label in enumerate(system.labels)]
    else:
        columns = ["t", *system.labels]
    out.result(document, [Table(f"{system.title}: true states", columns, rows, [document["method"]])])
    return 0
