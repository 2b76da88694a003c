"""``kansciml bench ode``: one loss + gradient of a neural ODE, by every gradient method of every backend.

Setting: the system's training data, rtol = atol = 1e-7, float64, one thread, at parameters near the solution. The
baseline is torchdiffeq's ``dopri5`` with plain backpropagation through a `torch.nn.Module`; for the MLP that module is
a bare ``nn.Sequential`` with the state scaling folded into its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import SolveError, UsageError, unknown_name
from kansciml.backends.base import OdeProblem, OdeSolver
from kansciml.backends.select import BACKENDS, open_backend
from kansciml.backends.torch import DEFAULT_GRADIENT, GRADIENTS, ModuleField, TorchOdeSolver
from kansciml.benchmarks._timing import interleaved
from kansciml.models.field_spec import MODELS, FieldSpec
from kansciml.models.fields import VectorField
from kansciml.runs.progress import Progress
from kansciml.runs.tables import Table
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining, train_flat

SUMMARY = "one loss + gradient, by every gradient method and sensealg"
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
        spec, net = field.spec, field.net
        linear = [nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64) for layer in net.layers]
        with torch.no_grad():
            for ours, theirs in zip(linear, net.layers):
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


def candidates(problem: OdeProblem, params: np.ndarray, julia: Any) -> dict[str, tuple[OdeSolver, np.ndarray]]:
    """Everything that is timed: name -> (solver, its parameters)."""
    module: nn.Module = VectorField(problem.field).load_flat(params)
    if problem.field.model == "mlp":
        module = BareMLP(module)
    custom = OdeProblem(
        ModuleField(module, problem.field.state_size),
        **{k: v for k, v in vars(problem).items() if k != "field"},
    )
    own = custom.field.initial_parameters()
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
    system: System, model: str, options: Options, julia: Any, report: Callable[[str], None]
) -> tuple[FieldSpec, list[dict[str, Any]]]:
    """Rows of one system and model: name, median and quartiles in ms, ratio to the baseline, gradient difference."""
    spec = make_field(system, model, match="params")
    problem = make_problem(system, spec, options.tolerance, options.tolerance)
    report(f"{system.name} {model}: going near the solution")
    solver = TorchOdeSolver(problem)
    params = train_flat(solver.value_and_grad, spec.initial_parameters(0), WARM_UP).params
    exact: dict[str, np.ndarray] = {}  # by each backend's replay; the two differ by their solvers' errors
    calls, differences, failures = {}, {}, []
    for name, (candidate, its_params) in candidates(problem, params, julia).items():
        report(f"{system.name} {model}: {name}")
        try:
            gradient = candidate.value_and_grad(its_params)[1]
        except SolveError as error:
            failures.append({"method": name, "error": str(error)})
            continue
        own = exact.setdefault(candidate.backend, gradient) if "nn.Module" not in name else None
        differences[name] = None if own is None else float(np.max(np.abs(gradient - own)) / np.max(np.abs(own)))
        calls[name] = lambda candidate=candidate, its_params=its_params: candidate.value_and_grad(its_params)
    seconds = interleaved(calls, options.rounds, after_call=lambda name: report(f"{system.name} {model}: {name}"))
    base = seconds[BASELINE]
    rows = [
        {
            "method": name,
            "median_ms": 1e3 * float(np.median(values)),
            "low_ms": 1e3 * float(np.quantile(values, 0.25)),
            "high_ms": 1e3 * float(np.quantile(values, 0.75)),
            "ratio": float(np.median(values) / np.median(base)) if len(values) < 3 else _paired(values, base),
            "gradient_difference": differences[name],
        }
        for name, values in seconds.items()
    ]
    return spec, rows + failures


def _paired(values: np.ndarray, base: np.ndarray) -> float:
    """Median of the ratios round by round, which the machine's drift does not move."""
    return float(np.median(values / base[: len(values)]))


def run(options: Options, log: Callable[[str], None]) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables.

    Raises:
        UsageError: unknown names, or too few rounds for a median.
        BackendUnavailable: Julia was asked for and does not start.
    """
    if options.backend not in BACKENDS:
        raise unknown_name("backend", options.backend, BACKENDS)
    if options.model not in (*MODELS, "both"):
        raise unknown_name("model", options.model, (*MODELS, "both"))
    if options.rounds < 3:
        raise UsageError(f"got rounds {options.rounds}: expected at least 3 for a median")
    if not 0 < options.tolerance < 1:
        raise UsageError(f"got tolerance {options.tolerance}: expected a number between 0 and 1, such as 1e-7")
    systems = [get_system(name) for name in options.systems]
    models = MODELS if options.model == "both" else (options.model,)
    torch.set_num_threads(1)
    julia = None
    if options.backend != "torch":
        opened = open_backend(options.backend, log=log)
        julia = opened if opened.name == "julia" else None
    tables, document = [], {"tolerance": options.tolerance, "baseline": BASELINE, "results": []}
    try:
        with Progress() as progress, progress.task("bench ode", len(systems) * len(models)) as bar:
            for system in systems:
                for model in models:
                    spec, rows = measure(system, model, options, julia, lambda text: bar.update(advance=0, now=text))
                    bar.update(advance=1)
                    result = {"system": system.name, "model": model, "label": spec.label(), "rows": rows}
                    document["results"].append(result)
                    tables.append(_table(system.name, spec, rows, options))
    finally:
        if julia is not None:
            julia.close()
    return document, tables


def _table(system: str, spec: FieldSpec, rows: list[dict[str, Any]], options: Options) -> Table:
    shown = [
        [row["method"], row["error"], None, None, None, None]
        if "error" in row
        else [
            row["method"],
            row["median_ms"],
            row["low_ms"],
            row["high_ms"],
            row["ratio"],
            row["gradient_difference"],
        ]
        for row in rows
    ]
    return Table(
        f"One loss + gradient: {system}, {spec.label()}, {spec.n_parameters} parameters",
        ["method", "median [ms]", "25 % [ms]", "75 % [ms]", "x baseline", "gradient difference"],
        shown,
        [
            f"rtol = atol = {options.tolerance:g}, float64, one thread; baseline: {BASELINE}; medians, interleaved.",
            "A method that takes over 2 s is timed once. Difference: to the first method of the same backend.",
        ],
    )
