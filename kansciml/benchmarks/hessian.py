"""``kansciml bench hessian``: Lanczos on a loss's Hessian beside PyHessian's algorithm, on a mixer with KAN layers.

Equal work: one probe, 100 iterations, one product with the Hessian each, on the same model and data in float32. A
Lanczos iteration is a product and a step of the recurrence (with its reorthogonalisation, averaged over all
iterations), which are timed apart. Time is the processor time of this process on one thread, the candidates take
turns, and ratios are medians of the ratios round by round. Errors are against an exact spectrum in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kansciml._errors import UsageError, check_name
from kansciml.analysis.hessian import lanczos
from kansciml.analysis.memory import measure as measure_memory
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._hessian import accuracy, cases
from kansciml.benchmarks._hessian import pyhessian_like as rival
from kansciml.benchmarks._hessian.cases import LOADER, OURS, SINGLE, TEXTBOOK, Problem
from kansciml.benchmarks._hessian.tables import iterations_and_errors, tables
from kansciml.benchmarks._measuring import Report, Row
from kansciml.layers._kernels import cpp_library
from kansciml.layers.spline_kan import set_backend
from kansciml.layers.textbook_kan import to_textbook
from kansciml.runs.tables import Table

TARGET = 0.5
"""Time of our Lanczos iteration over that of PyHessian's algorithm with its defaults."""
BACKENDS = ("auto", "torch", "cpp")
WARM_UP_STEPS = 5
"""Steps of Adam before the Hessian is taken."""
RECURRENCE_ROUNDS = 2
"""A recurrence is 100 steps long and hardly varies."""
PLANNED_STEPS = 3
"""Lanczos steps whose peak is measured beside what the plan said."""


@dataclass(frozen=True)
class Options:
    """Time Lanczos iterations, count their memory, and compare their accuracy."""

    width: int = 64
    """Features per patch of the mixer, and hidden widths of its KANs."""
    depth: int = 3
    """Blocks of the mixer."""
    images: int = 32
    """Random images of 3 x 32 x 32 in the batch."""
    rounds: int = 5
    """Interleaved rounds; medians are reported."""
    backend: str = "auto"
    """torch or cpp (kernels of the spline layers); auto measures both where the C++ ones were built."""
    probes: int = 6
    """Probes of the comparison of accuracy; 0 leaves it out."""
    plot: Path | None = None
    """Draw times and errors to PLOT.png and PLOT.svg."""


def _checked(options: Options) -> tuple[str, ...]:
    measuring.check_least(options, width=1, depth=1, images=1, probes=0)
    check_name("backend", options.backend, BACKENDS)
    if options.backend == "cpp" and not cpp_library.available():
        raise UsageError(f"got backend 'cpp': {cpp_library.reason()}; use backend 'torch'")
    if options.backend == "auto":
        return ("cpp", "torch") if cpp_library.available() else ("torch",)
    return (options.backend,)


def run(options: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    backends = _checked(options)
    with measuring.one_thread("bench hessian", len(backends) + 3) as bar:
        bar("model")
        hidden: dict[str, Any] = {
            "width": options.width,
            "depth": options.depth,
            "kan_hidden": (options.width, options.width),
        }
        problem = cases.make_problem(options.images, WARM_UP_STEPS, **hidden)
        document: dict[str, Any] = {
            "machine": measuring.facts(),
            "model": f"{cases.MODEL} {cases.VARIANT}, width {options.width}, depth {options.depth}",
            "parameters": problem.size,
            "images": options.images,
            "iterations": rival.ITERATIONS,
            "dtype": "float32",
        }
        document["recurrence"] = recurrence_seconds(problem, rival.ITERATIONS, bar)
        bar.done()
        document["results"] = []
        for backend in backends:
            set_backend(problem.module, backend)

            def report(text: str, backend: str = backend) -> None:
                bar(f"{backend}: {text}")

            rows = measure_backend(problem, options.rounds, report)
            document["results"].append({"backend": backend, "rows": rows})
            bar.done()
        set_backend(problem.module, backends[0])
        bar("plan")
        document["plan"] = planned(problem)
        bar(TEXTBOOK)
        document["textbook"] = textbook(problem)
        bar.done()
        document["accuracy"] = accuracy.compare(options.probes, bar) if options.probes else None
        bar.done()
    complete(document)
    document["targets"] = target_rows(document)
    measuring.draw(document, options.plot, iterations_and_errors, log)
    return document, tables(document)


def recurrence_seconds(problem: Problem, iterations: int, report: Report) -> dict[str, float]:
    """Milliseconds of an iteration without its product, mean over `iterations`, by PyHessian's algorithm and ours."""
    calls = cases.recurrences(problem, iterations)
    taken = measuring.in_turns(calls, RECURRENCE_ROUNDS, lambda name: report(f"recurrence: {name}"), warm=False)
    return {name: 1e3 * float(np.min(values)) / iterations for name, values in taken.items()}


def measure_backend(problem: Problem, rounds: int, report: Report) -> list[dict[str, Any]]:
    """One row per candidate: milliseconds of a product, its ratio to the loader's, peak bytes with all graphs."""
    makers = cases.products(problem)
    peaks = {}
    for name, make in makers.items():
        report(f"memory: {name}")
        peaks[name] = measure_memory(functools.partial(_made_and_called, make)).peak_bytes
    seconds = measuring.in_turns({name: make() for name, make in makers.items()}, rounds, report)
    return [
        {
            "candidate": name,
            **measuring.quartiles("product_", values),
            "product_ratio": measuring.ratio(values, seconds[LOADER]),
            "peak_bytes": peaks[name],
        }
        for name, values in seconds.items()
    ]


def _made_and_called(make: Callable[[], Callable[[], object]]) -> object:
    return make()()


def complete(document: dict[str, Any]) -> None:
    """Add to each row the whole iteration: product and recurrence, and its ratio to the loader's."""
    recurrence, slow = document["recurrence"], document["textbook"]
    slow["iteration_ms"] = slow["product_ms"] + recurrence[LOADER]
    for result in document["results"]:
        base = result["rows"][0]
        base_ms = base["product_ms"] + recurrence[LOADER]
        for row in result["rows"]:
            own = recurrence[LOADER if row["candidate"] in (LOADER, SINGLE) else OURS]
            row["recurrence_ms"] = own
            row["iteration_ms"] = row["product_ms"] + own
            # The ratio round by round, not of the medians: products are what drifts.
            row["ratio"] = (row["product_ratio"] * base["product_ms"] + own) / base_ms
            row["over_textbook"] = row["iteration_ms"] / slow["iteration_ms"]


def planned(problem: Problem) -> dict[str, Any]:
    """What the plan says of a few Lanczos steps before, and the peak that they reach."""
    micro = max(1, len(problem.batch[1]) // cases.MICRO_PARTS)
    operator = problem.operator(keep_graph=False, micro_batch=micro)
    plan, start = operator.memory_needed(PLANNED_STEPS), torch.ones(operator.size)
    return {
        "steps": PLANNED_STEPS,
        "micro_batch": micro,
        "text": plan.text(),
        "text_all": operator.memory_needed(rival.ITERATIONS).text(),
        "planned_bytes": plan.total_bytes,
        "graph_bytes": plan.graph_bytes,
        "basis_bytes": plan.basis_bytes,
        "gradient_bytes": plan.gradient_bytes,
        "measured_bytes": measure_memory(lambda: lanczos(operator, start, PLANNED_STEPS, basis="memory")).peak_bytes,
    }


def textbook(problem: Problem) -> dict[str, float]:
    """Milliseconds of one product by PyHessian's algorithm where the layers are the textbook's; replaces them."""
    call = cases.products(Problem(to_textbook(problem.module), problem.batch))[LOADER]()
    return {"product_ms": 1e3 * float(np.median(measuring.in_turns({TEXTBOOK: call}, 3)[TEXTBOOK]))}


def target_rows(document: Row) -> list[dict[str, Any]]:
    """One row per target, see `at_most`; and how many quantities have a larger error than the rival's."""
    found = []
    for result in document["results"]:
        reached = next(row["ratio"] for row in result["rows"] if row["candidate"] == OURS)
        what = f"time per Lanczos iteration over {LOADER}, {result['backend']} kernels"
        found.append(measuring.at_most(what, TARGET, reached))
    if document["accuracy"] is not None:
        errors = [(row[accuracy.THEIRS], row[accuracy.SAME]) for row in document["accuracy"]["rows"]]
        worse = sum(not accuracy.no_worse(theirs, ours) for theirs, ours in errors)
        what = f"quantities with a larger error from the same probe and {accuracy.PRODUCTS} products"
        found.append({"target": what, "wanted": "0", "reached": worse, "met": not worse})
    return found
