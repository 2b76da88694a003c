"""``kansciml bench hessian``: Lanczos on a loss's Hessian beside PyHessian's algorithm, on a mixer with KAN layers.

Equal work: one probe, 100 iterations, one product with the Hessian each, on the same model and data in float32. A
Lanczos iteration is a product and a step of the recurrence (with its reorthogonalisation, averaged over all
iterations), which are timed apart. Time is the processor time of this process on one thread, the candidates take
turns, and ratios are medians of the ratios round by round. Errors are against an exact spectrum in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kansciml._errors import UsageError, unknown_name
from kansciml.analysis.hessian import lanczos
from kansciml.analysis.memory import measure as measure_memory
from kansciml.benchmarks._hessian import accuracy, cases
from kansciml.benchmarks._hessian import pyhessian_like as rival
from kansciml.benchmarks._hessian.cases import LOADER, OURS, SINGLE, TEXTBOOK, Problem
from kansciml.benchmarks._hessian.tables import tables_of
from kansciml.layers._kernels import cpp_library
from kansciml.layers.textbook_kan import to_textbook
from kansciml.runs.progress import Progress
from kansciml.runs.tables import Table

SUMMARY = "Hessian-vector products and Lanczos beside PyHessian's algorithm: time, memory and accuracy"
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
    for name in ("width", "depth", "images"):
        if getattr(options, name) < 1:
            raise UsageError(f"got {name} {getattr(options, name)}: expected at least 1")
    if options.rounds < 3:
        raise UsageError(f"got rounds {options.rounds}: expected at least 3 for a median")
    if options.probes < 0:
        raise UsageError(f"got probes {options.probes}: expected at least 0")
    if options.backend not in BACKENDS:
        raise unknown_name("backend", options.backend, BACKENDS)
    if options.plot is not None and not options.plot.name:
        raise UsageError(f"got plot {str(options.plot)!r}: expected a file name without its ending, such as hessian")
    if options.backend == "cpp" and not cpp_library.available():
        raise UsageError(f"got backend 'cpp': {cpp_library.reason()}; use backend 'torch'")
    if options.backend == "auto":
        return ("cpp", "torch") if cpp_library.available() else ("torch",)
    return (options.backend,)


def run(options: Options, log: Callable[[str], None]) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables.

    Raises:
        UsageError: sizes below 1, too few rounds for a median, an unknown or unavailable backend.
        KansciError: the plot cannot be written.
    """
    backends = _checked(options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Progress() as progress, progress.task("bench hessian", len(backends) + 3) as bar:

            def report(text: str) -> None:
                bar.update(advance=0, now=text)

            report("model")
            hidden = {"width": options.width, "depth": options.depth, "kan_hidden": (options.width, options.width)}
            problem = cases.make_problem(options.images, WARM_UP_STEPS, **hidden)
            document: dict[str, Any] = {
                "machine": facts(),
                "model": f"{cases.MODEL} {cases.VARIANT}, width {options.width}, depth {options.depth}",
                "parameters": problem.size,
                "images": options.images,
                "iterations": rival.ITERATIONS,
                "dtype": "float32",
            }
            document["recurrence"] = recurrence_seconds(problem, rival.ITERATIONS, report)
            bar.update(advance=1)
            document["results"] = []
            for backend in backends:
                cases.set_backend(problem.module, backend)
                rows = measure_backend(problem, options.rounds, lambda text, on=backend: report(f"{on}: {text}"))
                document["results"].append({"backend": backend, "rows": rows})
                bar.update(advance=1)
            cases.set_backend(problem.module, backends[0])
            document["plan"] = planned(problem, report)
            report(TEXTBOOK)
            document["textbook"] = textbook(problem)
            bar.update(advance=1)
            document["accuracy"] = accuracy.compare(options.probes, report) if options.probes else None
            bar.update(advance=1)
    finally:
        torch.set_num_threads(threads)
    complete(document)
    document["targets"] = target_rows(document)
    if options.plot is not None:
        document["plots"] = [str(path) for path in _draw(document, options.plot)]
        log(f"drawn: {', '.join(document['plots'])}")
    return document, tables_of(document)


def facts() -> dict[str, Any]:
    """What the numbers depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "cpu_capability": capability}


def cpu_rounds(
    calls: Mapping[str, Callable[[], object]], rounds: int, report: Callable[[str], None], warm: bool = True
) -> dict[str, np.ndarray]:
    """Seconds of processor time of every call in every round, taking turns; `warm`: each is called once before."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + warm):
        for name, call in calls.items():
            report(name)
            began = time.process_time()
            call()
            if number >= warm:
                seconds[name].append(time.process_time() - began)
    return {name: np.array(taken) for name, taken in seconds.items()}


def recurrence_seconds(problem: Problem, iterations: int, report: Callable[[str], None]) -> dict[str, float]:
    """Milliseconds of an iteration without its product, mean over `iterations`, by PyHessian's algorithm and ours."""
    calls = cases.recurrences(problem, iterations)
    taken = cpu_rounds(calls, RECURRENCE_ROUNDS, lambda name: report(f"recurrence: {name}"), warm=False)
    return {name: 1e3 * float(np.min(values)) / iterations for name, values in taken.items()}


def measure_backend(problem: Problem, rounds: int, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per candidate: milliseconds of a product, its ratio to the loader's, peak bytes with all graphs."""
    makers = cases.products(problem)
    peaks = {}
    for name, make in makers.items():
        report(f"memory: {name}")
        peaks[name] = measure_memory(lambda make=make: make()()).peak_bytes
    seconds = cpu_rounds({name: make() for name, make in makers.items()}, rounds, report)
    return [
        {
            "candidate": name,
            "product_ms": 1e3 * float(np.median(values)),
            "product_low_ms": 1e3 * float(np.quantile(values, 0.25)),
            "product_high_ms": 1e3 * float(np.quantile(values, 0.75)),
            "product_ratio": float(np.median(values / seconds[LOADER])),
            "peak_bytes": peaks[name],
        }
        for name, values in seconds.items()
    ]


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


def planned(problem: Problem, report: Callable[[str], None]) -> dict[str, Any]:
    """What the plan says before, the peak that a few Lanczos steps reach, and three gradients with the basis."""
    report("plan")
    micro = max(1, len(problem.batch[1]) // cases.MICRO_PARTS)
    operator = problem.operator(keep_graph=False, micro_batch=micro)
    plan = operator.memory_needed(PLANNED_STEPS)
    start = torch.ones(operator.size)

    def steps() -> object:
        return lanczos(operator, start, PLANNED_STEPS, basis="memory")

    peak = measure_memory(steps).peak_bytes
    text, whole = plan.text(), operator.memory_needed(rival.ITERATIONS).text()
    return {
        "steps": PLANNED_STEPS, "micro_batch": micro, "text": text, "text_all": whole,
        "planned_bytes": plan.total_bytes,
        "graph_bytes": plan.graph_bytes, "basis_bytes": plan.basis_bytes, "gradient_bytes": plan.gradient_bytes,
        "measured_bytes": peak,
    }  # fmt: skip


def textbook(problem: Problem) -> dict[str, float]:
    """Milliseconds of one product by PyHessian's algorithm where the layers are the textbook's; replaces them."""
    call = cases.products(Problem(to_textbook(problem.module), problem.batch))[LOADER]()
    return {"product_ms": 1e3 * float(np.median(cpu_rounds({TEXTBOOK: call}, 3, lambda name: None)[TEXTBOOK]))}


def target_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per target: what, the number wanted, the number reached, and whether it is met (None: not measured)."""
    found = []
    for result in document["results"]:
        ratio = next(row["ratio"] for row in result["rows"] if row["candidate"] == OURS)
        what = f"time per Lanczos iteration over {LOADER}, {result['backend']} kernels"
        found.append({"target": what, "wanted": f"<= {TARGET:g}", "reached": ratio, "met": ratio <= TARGET})
    compared = document["accuracy"]
    if compared is not None:
        worse = [
            row["quantity"]
            for row in compared["rows"]
            if not accuracy.no_worse(row[accuracy.THEIRS], row[accuracy.SAME])
        ]
        what = f"quantities with a larger error from the same probe and {accuracy.PRODUCTS} products"
        found.append({"target": what, "wanted": "0", "reached": len(worse), "met": not worse})
    return found


def _draw(document: Mapping[str, Any], stem: Path) -> list[Path]:
    from kansciml.benchmarks._hessian.picture import iterations_and_errors
    from kansciml.reporting.style import publication_style, save_figure

    with publication_style():
        figure = iterations_and_errors(document)
    return save_figure(figure, stem.parent, stem.name)
