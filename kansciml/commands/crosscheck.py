"""``kansciml crosscheck``: prove that the backends agree; exit code 1 if they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from kansciml._errors import UsageError, check_name
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "gates between the backends: right-hand side, trajectory, loss, gradient, training, threads"
EXAMPLES = (
    "kansciml crosscheck --system lotka --backend torch  # gradient methods of torch, a minute",
    "kansciml crosscheck --backend julia  # every system, torch against Julia",
)


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Hold the gradient methods of torch against each other, and torch against Julia."""

    system: str = "all"
    """A system, a path ending in .py, or all."""
    model: str = "both"
    """mlp, kan, or both."""
    backend: str = "auto"
    """auto (with Julia if it starts), torch (torch alone), or julia (fails without Julia)."""
    sensealg: str | None = None
    """Sensitivity algorithm of the Julia backend."""
    seed: int = 0
    """Seed of the initial parameters."""
    tolerance: float = 1e-10
    """rtol and atol of the solvers. A gate that fails here and passes at 1e-12 shows a solver's error, not a fault."""


def main(arguments: Sequence[str], out: Output) -> int:
    import torch

    from kansciml.backends.julia import DEFAULT_SENSEALG, JuliaBackend
    from kansciml.backends.select import check_methods, open_backend
    from kansciml.crosscheck import crosscheck_field, gates_in_julia
    from kansciml.models.field_spec import MODELS
    from kansciml.runs.progress import Progress
    from kansciml.runs.tables import Table, format_number
    from kansciml.tasks.ode.problem import make_field
    from kansciml.tasks.ode.registry import available_systems, get_system

    options = parse(Arguments, arguments, "crosscheck")
    models = MODELS if options.model == "both" else (options.model,)
    names = available_systems() if options.system == "all" else (options.system,)
    systems = [get_system(name) for name in names]
    fields = [(system, make_field(system, model, match="params")) for system in systems for model in models]
    check_name("backend", options.backend, ("auto", "torch", "julia"))
    check_methods(None, options.sensealg)
    torch.set_num_threads(1)  # these tensors hold a few numbers: threads only cost time
    julia, other, why = None, None, "not asked for"
    if options.backend != "torch":
        opened = open_backend(options.backend, sensealg=options.sensealg, log=out.log)
        julia = opened if isinstance(opened, JuliaBackend) else None
        why = "Julia does not start here; kansciml doctor says why"
    if not 0 < options.tolerance < 1:
        raise UsageError(f"got tolerance {options.tolerance}: expected a number between 0 and 1, such as 1e-10")
    gates = []
    try:
        if julia is not None:
            threads = 2 if julia.versions["threads"] == 1 else 1
            other = JuliaBackend(options.sensealg or DEFAULT_SENSEALG, threads=threads).start()
        with Progress() as progress, progress.task("crosscheck", len(fields)) as bar:
            for system, field in fields:
                settings: dict[str, Any] = {"seed": options.seed, "tolerance": options.tolerance}
                within = gates_in_julia(system, field, julia, other, **settings) if julia and other else ()
                for gate in chain(crosscheck_field(system, field, julia=julia, **settings), within):
                    gates.append(gate)
                    bar.update(advance=0, now=f"{system.name} {gate.pair}")
                bar.update(advance=1)
    finally:
        for backend in (julia, other):
            if backend is not None:
                backend.close()
    failed = [gate for gate in gates if not gate.passed]
    rows = [
        [g.system, g.model, g.pair, g.number, g.quantity, format_number(g.measured, 2), format_number(g.allowed, 2),
         "pass" if g.passed else "FAIL"]
        for g in gates
    ]  # fmt: skip
    notes = [
        f"float64, rtol = atol = {options.tolerance:g}; torch with Julia: "
        + ("compared" if julia else f"not compared ({why})")
    ]
    columns = ["system", "model", "pair", "gate", "quantity", "measured", "allowed", ""]
    verdict = f"{len(gates) - len(failed)} of {len(gates)} gates passed"
    document = {
        "passed": not failed,
        "julia": julia is not None,
        "gates": [{**asdict(gate), "passed": gate.passed} for gate in gates],
    }
    out.result(document, [Table("Cross-check", columns, rows, notes)], [verdict])
    if failed:
        which = "; ".join(f"{g.system} {g.model} {g.pair} gate {g.number}" for g in failed)
        out.log(f"error: {len(failed)} gates failed: {which}")
    return 1 if failed else 0
