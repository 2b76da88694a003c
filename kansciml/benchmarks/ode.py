"""``kansciml bench ode``: one loss + gradient of a neural ODE, by every gradient method of every backend.

Setting: the system's training data, rtol = atol = 1e-7, float64, one thread, at parameters near the solution. The
baseline is torchdiffeq's ``dopri5`` with plain backpropagation through a `torch.nn.Module`; for the MLP that module is
a bare ``nn.Sequential`` with the state scaling folded into its weights. Where jax and diffrax are installed, diffrax
takes part. A second table has several trajectories, from states of the system's box, by the default methods, in torch
also on several threads.

Two clocks run: the processor time of all threads of this process and of Julia's, and the time on the wall. The first
tells methods apart also where others use the machine, the second is what threads save.
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
from kansciml._workers import processors
from kansciml.backends.base import OdeProblem, Subset
from kansciml.backends.julia import DEFAULT_SENSEALG, SENSEALGS
from kansciml.backends.select import BACKENDS, open_backend
from kansciml.backends.torch import DEFAULT_GRADIENT, GRADIENTS, ModuleField, TorchOdeSolver
from kansciml.benchmarks import _diffrax
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Report
from kansciml.benchmarks._ode_tables import (
    BASELINE,
    BUDGET_S,
    DIFFRAX,
    FINE,
    JULIA,
    SLOW_S,
    TORCH,
    tables,
    target_rows,
)
from kansciml.models.field_spec import MODELS, FieldSpec
from kansciml.models.fields import VectorField
from kansciml.runs.tables import Table
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.sampling import sampled
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining, train_flat

PACKAGES = ("torchdiffeq", "diffrax", "jax")
SHORTEST_S = 0.01
"""Of the methods side by side, shorter calls are repeated in a round, as a training repeats them."""
BRIDGE_CALLS = 500
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
    sensealgs: tuple[str, ...] = (DEFAULT_SENSEALG,)
    """Gradient methods of Julia; all: every one, which compiles for minutes."""
    rounds: int = 15
    """Interleaved rounds; medians are reported."""
    tolerance: float = 1e-7
    """rtol and atol of the solver."""
    trajectories: tuple[int, ...] = (1, 8, 64)
    """Trajectories that are solved and differentiated together; none: no such rows."""
    threads: int = 0
    """Threads of torch for several trajectories, beside one; 0: as many as processors may be used."""


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
    problem: OdeProblem, spec: FieldSpec, params: np.ndarray, julia: Any, sensealgs: Sequence[str]
) -> dict[str, tuple[Any, np.ndarray]]:
    """Everything that is timed: name -> (solver, its parameters)."""
    plain = VectorField(spec).load_flat(params)
    module = ModuleField(BareMLP(plain) if spec.model == "mlp" else plain, spec.state_size)
    custom, own = dataclasses.replace(problem, field=module), module.initial_parameters()
    found: dict[str, tuple[Any, np.ndarray]] = {
        BASELINE: (TorchOdeSolver(custom, "backprop"), own),
        "torch replay, any nn.Module": (TorchOdeSolver(custom, "replay"), own),
    }
    for gradient in GRADIENTS:
        mark = " (default)" if gradient == DEFAULT_GRADIENT else ""
        found[f"torch {gradient}{mark}"] = (TorchOdeSolver(problem, gradient), params)
    if julia is not None:
        for sensealg in sensealgs:
            mark = " (default)" if sensealg == DEFAULT_SENSEALG else ""
            found[f"julia {sensealg}{mark}"] = (julia.solver(problem, sensealg), params)
    if _diffrax.available():
        found[DIFFRAX] = (_diffrax.DiffraxSolver(problem), params)
    return found


def gradient_of(solver: Any, params: np.ndarray, subset: Subset | None = None) -> np.ndarray:
    """At the problem's tolerance; of diffrax, which ends its last step elsewhere, at one where that is not seen."""
    told = {"tolerance": FINE} if isinstance(solver, _diffrax.DiffraxSolver) else {}
    return solver.value_and_grad(params, subset, **told)[1]


def relative(gradient: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference of two gradients over the largest number of the second."""
    return float(np.max(np.abs(gradient - exact)) / np.max(np.abs(exact)))


def bridge_ms(julia: Any, problem: OdeProblem, params: np.ndarray) -> float:
    """Processor time of a call to Julia in both processes, beyond what the computation takes there, in ms."""
    solver, inside = julia.solver(problem), []
    solver.value_and_grad(params)
    began = clock(julia)[0]
    for _ in range(BRIDGE_CALLS):
        solver.value_and_grad(params)
        inside.append(solver.seconds)
    return 1e3 * float((clock(julia)[0] - began) / BRIDGE_CALLS - np.median(inside))


def julia_version(julia: Any) -> dict[str, str]:
    """Of the worker, if there is one."""
    return {} if julia is None else {"Julia": julia.versions["julia"]}


def clock(julia: Any) -> np.ndarray:
    """Seconds (2,): of processors, Julia's included, and on the wall."""
    elsewhere = 0.0 if julia is None else julia.cpu_seconds()
    return np.array([time.process_time() + elsewhere, time.perf_counter()])


def measure(
    system: System, model: str, options: Options, julia: Any, report: Report
) -> tuple[FieldSpec, list[dict[str, Any]], dict[str, float]]:
    """Rows of one system and model: name, median and quartiles in ms, ratio to the baseline, gradient difference. And
    with Julia its `bridge_ms`."""
    spec = make_field(system, model, match="params")
    problem = make_problem(system, spec, options.tolerance, options.tolerance)
    report("going near the solution")
    params = near_solution(problem)
    exact = {
        "diffrax": fine_gradient(problem, params)
    }  # by each backend's replay: they differ by their solvers' errors
    calls, differences, failures = {}, {}, []
    for name, (candidate, its_params) in candidates(problem, spec, params, julia, options.sensealgs).items():
        report(name)
        try:
            gradient = gradient_of(candidate, its_params)
        except SolveError as error:
            failures.append({"method": name, "error": str(error)})
            continue
        own = exact.setdefault(candidate.backend, gradient) if "nn.Module" not in name else None
        differences[name] = None if own is None else relative(gradient, own)
        calls[name] = functools.partial(candidate.value_and_grad, its_params)
    seconds = in_turns(calls, options, julia, report, shortest_s=SHORTEST_S)
    rows = [
        {"method": name, **timing(values, seconds[BASELINE]), "gradient_difference": differences[name]}
        for name, values in seconds.items()
    ]
    return spec, rows + failures, {} if julia is None else {"bridge_ms": bridge_ms(julia, problem, params)}


def measure_many(system: System, model: str, options: Options, julia: Any, report: Report) -> list[dict[str, Any]]:
    """Rows of several trajectories of one system and model, by the default method of each backend and by diffrax."""
    report("drawing trajectories")
    several = sampled(system, max(options.trajectories))
    problem = make_problem(several, make_field(several, model, match="params"), options.tolerance, options.tolerance)
    report("going near the solution of all trajectories")
    params = near_solution(problem)
    torch_solver = TorchOdeSolver(problem)
    one, *more = thread_counts(options)
    solvers: dict[tuple[str, int], Any] = {(TORCH, one): torch_solver}
    if julia is not None:
        solvers[JULIA, julia.versions["threads"]] = julia.solver(problem)
    if _diffrax.available():
        solvers[DIFFRAX, 1] = _diffrax.DiffraxSolver(problem)
    solvers |= {(TORCH, count): torch_solver for count in more}  # last: one after the other would find a warm cache
    calls, differences = {}, {}
    for count in options.trajectories:
        subset = Subset(series=tuple(range(count)))
        exact = fine_gradient(problem, params, subset)
        for (name, threads), solver in solvers.items():
            report(f"{name}, {threads} threads, {count} trajectories")
            differences[name, threads, count] = relative(gradient_of(solver, params, subset), exact)
            calls[f"{name} {threads} {count}"] = functools.partial(on_threads, threads, solver, params, subset)
    seconds = in_turns(calls, options, julia, report)
    return [
        {
            "method": name,
            "threads": threads,
            "trajectories": count,
            **timing(seconds[f"{name} {threads} {count}"], seconds[f"{name} {threads} {options.trajectories[0]}"]),
            "gradient_difference": differences[name, threads, count],
        }
        for name, threads in solvers
        for count in options.trajectories
    ]


def thread_counts(options: Options) -> tuple[int, ...]:
    """One, and the other number of torch's threads, if it is another."""
    return tuple(sorted({1, options.threads or processors()}))


def on_threads(threads: int, solver: Any, params: np.ndarray, subset: Subset) -> Any:
    """The loss and gradient with so many threads of torch; Julia's are those of its worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return solver.value_and_grad(params, subset)
    finally:
        torch.set_num_threads(before)


def near_solution(problem: OdeProblem) -> np.ndarray:
    """Parameters after the first part of a training."""
    return train_flat(TorchOdeSolver(problem).value_and_grad, problem.initial_parameters(0), WARM_UP).params


def fine_gradient(problem: OdeProblem, params: np.ndarray, subset: Subset | None = None) -> np.ndarray:
    """Where no solver's error is seen."""
    fine = dataclasses.replace(problem, rtol=FINE, atol=FINE)
    return TorchOdeSolver(fine).value_and_grad(params, subset)[1]


def in_turns(
    calls: dict[str, Any], options: Options, julia: Any, report: Report, shortest_s: float = 0.0
) -> dict[str, np.ndarray]:
    """Seconds of every call in every round, (rounds, 2): see `clock`."""
    now = functools.partial(clock, julia)
    return measuring.in_turns(
        calls, options.rounds, report, clock=now, slow_s=SLOW_S, budget_s=BUDGET_S, shortest_s=shortest_s
    )


def timing(values: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """Median and quartiles of the processor time in ms, median on the wall, and the ratios to the times of another."""
    shown, wall = measuring.quartiles("", values[:, 0]), measuring.quartiles("wall_", values[:, 1])
    times = {"median_ms": shown["ms"], "low_ms": shown["low_ms"], "high_ms": shown["high_ms"]}
    ratios = {name: measuring.ratio(values[:, k], base[:, k]) for k, name in enumerate(("ratio", "wall_ratio"))}
    return times | {"wall_ms": wall["wall_ms"]} | ratios


def run(options: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    check_name("backend", options.backend, BACKENDS)
    check_name("model", options.model, (*MODELS, "both"))
    measuring.check_least(options)
    if min(options.trajectories, default=1) < 1:
        raise UsageError(f"got trajectories {options.trajectories}: expected numbers of at least 1, such as 1 8 64")
    if not 0 < options.tolerance < 1:
        raise UsageError(f"got tolerance {options.tolerance}: expected a number between 0 and 1, such as 1e-7")
    if options.threads < 0:
        raise UsageError(f"got threads {options.threads}: expected at least 1, or 0 for all processors")
    if options.sensealgs == ("all",):
        options = dataclasses.replace(options, sensealgs=SENSEALGS)
    for sensealg in options.sensealgs:
        check_name("sensealg", sensealg, (*SENSEALGS, "all"))
    systems = [get_system(name) for name in options.systems]
    models = MODELS if options.model == "both" else (options.model,)
    document: dict[str, Any] = {"tolerance": options.tolerance, "baseline": BASELINE, "results": []}
    julia = None
    with measuring.one_thread("bench ode", len(systems) * len(models)) as bar:
        if options.backend != "torch":
            opened = open_backend(options.backend, log=log)
            julia = opened if opened.name == "julia" else None
        try:
            for system, model in itertools.product(systems, models):

                def report(text: str, of: str = f"{system.name} {model}") -> None:
                    bar(f"{of}: {text}")

                spec, rows, bridge = measure(system, model, options, julia, report)
                result = {"system": system.name, "model": model, "label": spec.label(), "parameters": spec.n_parameters}
                result |= {"rows": rows, **bridge}
                if options.trajectories and system.box is not None:
                    result["many"] = measure_many(system, model, options, julia, report)
                document["results"].append(result)
                bar.done()
            document["machine"] = measuring.facts(packages=PACKAGES)
            document["machine"]["versions"] |= julia_version(julia)
        finally:
            if julia is not None:
                julia.close()
    document["targets"] = target_rows(document)
    return document, tables(document)
