"""``kansciml bench ode``: one loss + gradient of a neural ODE, by every gradient method of every backend.

Setting: the system's training data, rtol = atol = 1e-7, float64, one thread, at parameters near the solution. The
baseline is torchdiffeq's ``dopri5`` with plain backpropagation through a `torch.nn.Module`; for the MLP that module is
a bare ``nn.Sequential`` with the state scaling folded into its weights.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import SolveError, UsageError, check_name
from kansciml.backends.base import OdeProblem, OdeSolver
from kansciml.backends.select import BACKENDS, open_backend
from kansciml.backends.torch import DEFAULT_GRADIENT, GRADIENTS, ModuleField, TorchOdeSolver
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Report, Row
from kansciml.models.field_spec import MODELS, FieldSpec
from kansciml.models.fields import VectorField
from kansciml.runs.tables import Table
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining, train_flat

BASELINE = "torchdiffeq backprop, nn.Module"
WARM_UP = FlatTraining(adam_steps=150, final_learning_rate=1e-3, lbfgs_steps=100)
"""Brings the parameters near the solution, where most evaluations of a training happen."""


@dataclass(frozen=True)
class Options:
    """Time one loss + gradient."""

    systems: tuple[str, ...] = ("lotka", "pleiades")
    """Systems."""
    model: str = "both"
    """mlp, kan, or both."""
    backend: str = "auto"
    """auto (with Julia if it starts), torch, or julia."""
    rounds: int = 15
    """Interleaved rounds; medians are reported."""
    tolerance: float = 1e-7
    """rtol and atol of the solver."""


class BareMLP(nn.Module):
    """What a user would write: Linear, Tanh, Linear. Same function as the field, scaling folded into the weights."""

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        spec = field.spec
        layers: Any = field.net.layers
        linear = [nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64) for layer in layers]
        with torch.no_grad():
            for ours, theirs in zip(linear, layers):
                ours.weight.copy_(theirs.weight)
                ours.bias.copy_(theirs.bias)
            first, last = linear[0], linear[-1]
            first.weight.div_(field.scale)
            first.bias.sub_(first.weight @ field.center)
            last.weight.mul_(field.rate[:, None])
            last.bias.mul_(field.rate)
        inner = [module for layer in linear[:-1] for module in (layer, nn.Tanh())]
        if spec.activation != "tanh" or spec.squash or spec.input_power != 1:
            raise UsageError("the bare MLP is written for tanh and affine scaling")
        self.net = nn.Sequential(*inner, linear[-1])

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.net(u)


def candidates(
    problem: OdeProblem, spec: FieldSpec, params: np.ndarray, julia: Any
) -> dict[str, tuple[OdeSolver, np.ndarray]]:
    """Everything that is timed: name -> (solver, its parameters)."""
    plain = VectorField(spec).load_flat(params)
    module = ModuleField(BareMLP(plain) if spec.model == "mlp" else plain, spec.state_size)
    custom, own = dataclasses.replace(problem, field=module), module.initial_parameters()
    found: dict[str, tuple[OdeSolver, np.ndarray]] = {
        BASELINE: (TorchOdeSolver(custom, "backprop"), own),
        "torch replay, any nn.Module": (TorchOdeSolver(custom, "replay"), own),
    }
    for gradient in GRADIENTS:
        mark = " (default)" if gradient == DEFAULT_GRADIENT else ""
        found[f"torch {gradient}{mark}"] = (TorchOdeSolver(problem, gradient), params)
    if julia is not None:
        from kansciml.backends.julia import DEFAULT_SENSEALG, SENSEALGS

        for sensealg in SENSEALGS:
            mark = " (default)" if sensealg == DEFAULT_SENSEALG else ""
            found[f"julia {sensealg}{mark}"] = (julia.solver(problem, sensealg), params)
    return found


def measure(
    system: System, model: str, options: Options, julia: Any, report: Report
) -> tuple[FieldSpec, list[dict[str, Any]]]:
    """Rows of one system and model: name, median and quartiles in ms, ratio to the baseline, gradient difference."""
    spec = make_field(system, model, match="params")
    problem = make_problem(system, spec, options.tolerance, options.tolerance)
    report("going near the solution")
    solver = TorchOdeSolver(problem)
    params = train_flat(solver.value_and_grad, spec.initial_parameters(0), WARM_UP).params
    exact: dict[str, np.ndarray] = {}  # by each backend's replay; the two differ by their solvers' errors
    calls, differences, failures = {}, {}, []
    for name, (candidate, its_params) in candidates(problem, spec, params, julia).items():
        report(name)
        try:
            gradient = candidate.value_and_grad(its_params)[1]
        except SolveError as error:
            failures.append({"method": name, "error": str(error)})
            continue
        own = exact.setdefault(candidate.backend, gradient) if "nn.Module" not in name else None
        differences[name] = None if own is None else float(np.max(np.abs(gradient - own)) / np.max(np.abs(own)))
        calls[name] = functools.partial(candidate.value_and_grad, its_params)
    seconds = measuring.in_turns(calls, options.rounds, report, clock=time.perf_counter, slow_s=2.0, budget_s=60.0)
    rows = []
    for name, values in seconds.items():
        shown = measuring.quartiles("", values)
        row = {"method": name, "median_ms": shown["ms"], "low_ms": shown["low_ms"], "high_ms": shown["high_ms"]}
        rows.append(
            row | {"ratio": measuring.ratio(values, seconds[BASELINE]), "gradient_difference": differences[name]}
        )
    return spec, rows + failures


def run(options: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    check_name("backend", options.backend, BACKENDS)
    check_name("model", options.model, (*MODELS, "both"))
    measuring.check_least(options)
    if not 0 < options.tolerance < 1:
        raise UsageError(f"got tolerance {options.tolerance}: expected a number between 0 and 1, such as 1e-7")
    systems = [get_system(name) for name in options.systems]
    models = MODELS if options.model == "both" else (options.model,)
    document: dict[str, Any] = {"tolerance": options.tolerance, "baseline": BASELINE, "results": []}
    tables, julia = [], None
    with measuring.one_thread("bench ode", len(systems) * len(models)) as bar:
        if options.backend != "torch":
            opened = open_backend(options.backend, log=log)
            julia = opened if opened.name == "julia" else None
        try:
            for system, model in itertools.product(systems, models):

                def report(text: str, of: str = f"{system.name} {model}") -> None:
                    bar(f"{of}: {text}")

                spec, rows = measure(system, model, options, julia, report)
                bar.done()
                result = {"system": system.name, "model": model, "label": spec.label(), "rows": rows}
                document["results"].append(result)
                tables.append(_table(system.name, spec, rows, options))
        finally:
            if julia is not None:
                julia.close()
    return document, tables


COLUMNS = {
    "method": "method",
    "median_ms": "median [ms]",
    "low_ms": "25 % [ms]",
    "high_ms": "75 % [ms]",
    "ratio": "x baseline",
    "gradient_difference": "gradient difference",
}


def _table(system: str, spec: FieldSpec, rows: Sequence[Row], options: Options) -> Table:
    notes = [
        f"rtol = atol = {options.tolerance:g}, float64, one thread; baseline: {BASELINE}; medians, interleaved.",
        "A method that takes over 2 s is timed once. Difference: to the first method of the same backend.",
    ]
    title = f"One loss + gradient: {system}, {spec.label()}, {spec.n_parameters} parameters"
    return measuring.table_of(title, rows, COLUMNS, notes)
