"""``kansciml bench layers``: time and memory of one KAN layer against an MLP's, and against what the hardware allows.

Setting: forward, and forward + backward (to the input and all parameters), of one layer at x ~ 0.5 N(0, 1), cubic
splines on [-1, 1], one thread. Time is the processor time of this process, the candidates take turns, and ratios are
medians of the ratios round by round: on a shared machine only those can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kansciml._errors import UsageError, check_name
from kansciml.analysis.memory import measure as measure_memory
from kansciml.analysis.memory import training_step
from kansciml.benchmarks import _layer_cases as cases
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._cuda import model, timing
from kansciml.benchmarks._layer_cases import third_party
from kansciml.benchmarks._layers_picture import layer_ratios
from kansciml.benchmarks._measuring import Report, Row
from kansciml.runs.tables import Table

DTYPES = {"float32": torch.float32, "float64": torch.float64}
STACK_SHAPE, STACK_LAYERS = "S3", 4
FINE_SHAPE, FINE_GRID = "S2", 20
"""Where the layer must not slow down with the grid: only S + 1 of the G + S splines are non-zero."""

TARGET_GRID, TARGET_DTYPE = 5, "float32"
"""The setting that the targets are stated for."""
SAVED = 4.0
OVER_TEXTBOOK = {
    cases.TORCH: {"S1": 0.35, "S2": 0.48, "S3": 0.17, "S4": 0.60, "S5": 0.25},
    cases.CPP: {"S1": 0.12, "S2": 0.40, "S3": 0.11, "S4": 0.56, "S5": 0.10},
}
OVER_FLOOR = {"S2": 1.1, "S3": 1.1, "S4": 1.1}
FINE_OVER_TEXTBOOK = 0.18
STACK_OVER_MLP = 1.05
REFIT_OVER_LSTSQ = 30.0
REFIT_ERROR = 1.01
"""Largest ratio of the refit's error to least squares' that counts as the same."""


@dataclass(frozen=True)
class Options:
    """Time one layer, and count its memory."""

    shapes: tuple[str, ...] | None = None
    """Shapes, from S1 (64 -> 64, batch 256) to S5 (784 -> 64, batch 64) (default: all of them; on cuda S6 too)."""
    rounds: int = 9
    """Interleaved rounds; medians are reported."""
    dtype: str = "float32"
    """float32 or float64."""
    grid: int = 5
    """Grid intervals G."""
    compiled: bool = False
    """Also time torch.compile of the plain layers: needs a C++ compiler, and about a minute."""
    plot: Path | None = None
    """Draw the ratios to PLOT.png and PLOT.svg."""
    device: str = "cpu"
    """cpu or cuda; on cuda in float32, tf32, bfloat16 and float16, at S6 (192 -> 768, batch 25,000) too."""
    model_only: bool = False
    """Of cuda: the times to expect of V100, A100, H100 and H200 by their data sheets; needs no GPU."""
    rehearse: bool = False
    """Of cuda: run all of it on the CPU, to see that it runs; the times mean nothing."""


def measure_shape(
    shape: tuple[int, int, int],
    makers: Mapping[str, Callable[[], nn.Module]],
    grid: int,
    rounds: int,
    dtype: torch.dtype = torch.float32,
    report: Report = measuring.silent,
) -> list[dict[str, Any]]:
    """Rows of one shape, one per candidate; the first of `makers` is what the others' ratios refer to.

    A third party's layer, or a compiled one, that fails has a row with its ``error``.
    """
    ready: dict[str, cases.Case] = {}
    failures = []
    for name, make in makers.items():
        report(name)
        try:
            case = cases.make_case(name, make, shape, grid, dtype)
            case.both()
        except Exception as error:  # whatever a third party's package raises must not end the measurement of ours
            if not (third_party(name) or name.endswith(cases.COMPILED)):
                raise
            lines = str(error).splitlines() or [type(error).__name__]
            failures.append({"layer": name, "error": lines[0][:120]})
        else:
            ready[name] = case
    forward = cases.layers_in_turns({n: case.forward for n, case in ready.items()}, rounds, report)
    both = cases.layers_in_turns({n: case.both for n, case in ready.items()}, rounds, report)
    first = next(iter(makers))
    rows = []
    for name, case in ready.items():
        per_input, fixed = cases.saved_per_input(case, shape[0])
        row = {
            "layer": name,
            **measuring.quartiles("forward_", forward[name]),
            "forward_rounds": len(forward[name]),
            **measuring.quartiles("both_", both[name]),
            "both_rounds": len(both[name]),
            "forward_ratio": measuring.ratio(forward[name], forward[first]),
            "both_ratio": measuring.ratio(both[name], both[first]),
            "saved_bytes_per_input": per_input,
            "saved_bytes_fixed": fixed,
            "parameters": sum(p.numel() for p in case.parameters),
        }
        for key, other in cases.OVER.items():
            row[key] = measuring.ratio(both[name], both[other]) if other in both else None
        rows.append(row)
    return rows + failures


def stack_peaks(grid: int, dtype: torch.dtype, report: Report) -> dict[str, Any]:
    """Most bytes alive at once in forward + backward of four layers of S3, gradients counted, by candidate."""
    shape = cases.SHAPES[STACK_SHAPE]
    peaks: dict[str, int] = {}
    for name, make in cases.modules(shape, grid).items():
        if name == cases.FLOOR or third_party(name):
            continue
        report(f"peak memory: {name}")
        stack = nn.Sequential(*(make() for _ in range(STACK_LAYERS))).to(dtype)
        x = torch.randn(shape[2], shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        peaks[name] = measure_memory(training_step(stack, (0.5 * x).to(dtype).requires_grad_())).peak_bytes
    rows = [{"layer": n, "peak_bytes": peak, "ratio": peak / peaks[cases.BASELINE]} for n, peak in peaks.items()]
    return {"shape": STACK_SHAPE, "layers": STACK_LAYERS, "rows": rows}


def fine_grid(rounds: int, dtype: torch.dtype, report: Report) -> dict[str, Any]:
    """G = 20 at S2: rows of the textbook layer and ours."""
    shape = cases.SHAPES[FINE_SHAPE]
    wanted = (cases.TEXTBOOK, cases.TORCH, cases.CPP)
    makers = {name: make for name, make in cases.modules(shape, FINE_GRID).items() if name in wanted}
    rows = measure_shape(shape, makers, FINE_GRID, rounds, dtype, lambda name: report(f"G = {FINE_GRID}: {name}"))
    return {"shape": FINE_SHAPE, "grid": FINE_GRID, "rows": rows}


def _checked(options: Options) -> torch.dtype:
    check_name("dtype", options.dtype, DTYPES)
    measuring.check_least(options, grid=1)
    return DTYPES[options.dtype]


def run(options: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    check_name("device", options.device, ("cpu", "cuda"))
    for name in ("model_only", "rehearse"):
        if getattr(options, name) and options.device == "cpu":
            raise UsageError(f"got {name.replace('_', '-')} on the CPU: it is of GPUs; add --device cuda")
    if options.device == "cuda":
        measuring.check_least(options, grid=1)
        if options.dtype != TARGET_DTYPE or options.plot is not None:
            raise UsageError("got dtype or plot with --device cuda, whose dtypes are its own: leave them out")
        if options.model_only:
            return model.run(options.shapes, options.grid)
        return timing.run(options.shapes, options.grid, options.rounds, options.compiled, options.rehearse)
    dtype = _checked(options)
    names = model.chosen(options.shapes, cases.SHAPES)
    extras = (STACK_SHAPE in names) + (FINE_SHAPE in names) + 1
    with measuring.one_thread("bench layers", len(names) + extras) as bar:
        document: dict[str, Any] = {"machine": measuring.facts(True, cases.PACKAGES), "baseline": cases.BASELINE}
        document |= {"grid": options.grid, "spline_order": cases.SPLINE_ORDER, "dtype": options.dtype, "results": []}
        for name in names:
            torch.compiler.reset()  # a function compiled for too many shapes would silently run uncompiled
            makers = cases.modules(cases.SHAPES[name], options.grid, options.compiled)

            def report(text: str, name: str = name) -> None:
                bar(f"{name}: {text}")

            rows = measure_shape(cases.SHAPES[name], makers, options.grid, options.rounds, dtype, report)
            sizes = dict(zip(("inputs", "outputs", "batch"), cases.SHAPES[name]))
            document["results"].append({"shape": name, **sizes, "rows": rows})
            bar.done()
        document["stack"] = stack_peaks(options.grid, dtype, bar) if STACK_SHAPE in names else None
        document["fine_grid"] = fine_grid(options.rounds, dtype, bar) if FINE_SHAPE in names else None
        bar("grid refit")
        document["refit"] = cases.refit_against_lstsq(options.rounds, bar)
        bar.done(extras)
    document["targets"] = target_rows(document)
    measuring.draw(document, options.plot, layer_ratios, log)
    return document, tables(document)


def target_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per target, see `at_most`."""
    stated = document["grid"] == TARGET_GRID and document["dtype"] == TARGET_DTYPE
    rows = {
        (result["shape"], row["layer"]): row
        for result in document["results"]
        for row in result["rows"]
        if stated and "error" not in row
    }
    found = []
    for kind, name in (("eager", cases.TORCH), ("eager", cases.CPP), ("compiled", cases.TORCH + cases.COMPILED)):
        saved = [row["saved_bytes_per_input"] for (_, layer), row in rows.items() if layer == name]
        what = f"bytes saved per input, {kind}: {name.removesuffix(cases.COMPILED)}, most of all shapes"
        found.append(measuring.at_most(what, SAVED, max(saved, default=None)))
    for name, targets in OVER_TEXTBOOK.items():
        for shape, wanted in targets.items():
            reached = rows.get((shape, name), {}).get("over_textbook")
            found.append(measuring.at_most(f"{name} over textbook, {shape}", wanted, reached))
    for shape, wanted in OVER_FLOOR.items():
        reached = rows.get((shape, cases.CPP + cases.UNSCALED), {}).get("over_floor")
        found.append(measuring.at_most(f"{cases.CPP}{cases.UNSCALED} over the GEMMs alone, {shape}", wanted, reached))
    fine = document["fine_grid"] if document["dtype"] == TARGET_DTYPE else None
    reached = next((row["over_textbook"] for row in fine["rows"] if row["layer"] == cases.CPP), None) if fine else None
    found.append(measuring.at_most(f"{cases.CPP} over textbook, G = 20, S2 (sparse)", FINE_OVER_TEXTBOOK, reached))
    stack = document["stack"] if stated else None
    peaks = {row["layer"]: row["ratio"] for row in stack["rows"]} if stack else {}
    for name in (cases.TORCH, cases.CPP):
        found.append(
            measuring.at_most(
                f"peak of four layers of S3 over {cases.BASELINE}: {name}", STACK_OVER_MLP, peaks.get(name)
            )
        )
    for refit in (document["refit"], document["refit"]["more_samples"]):
        for rival in refit["rivals"]:
            speed = rival["speed_ratio"]
            met = speed >= REFIT_OVER_LSTSQ and rival["error_ratio"] <= REFIT_ERROR
            what = f"grid refit, times faster at the same error: {rival['method']}, {refit['samples']} samples"
            found.append({"target": what, "wanted": f">= {REFIT_OVER_LSTSQ:g}", "reached": speed, "met": met})
    return found


COLUMNS = {
    "layer": "layer",
    "forward_ms": "forward [ms]",
    "both_ms": "both [ms]",
    "both_low_ms": "25 % [ms]",
    "both_high_ms": "75 % [ms]",
    "forward_ratio": "forward, x {}",
    "both_ratio": "both, x {}",
    "over_peer": "both, x efficient-kan",
    "over_textbook": "both, x textbook",
    "over_floor": "both, x GEMMs",
    "saved_bytes_per_input": "saved [B/input]",
    "saved_bytes_fixed": "saved apart [B]",
}
"""Keys of a row -> headings of a table, with the name of its baseline to be filled in."""


def _shape_table(result: Row, document: Row, grid: int, keys: list[str], baseline: str = "MLP") -> Table:
    machine = document["machine"]
    notes = [
        f"{document['dtype']}, S = {document['spline_order']}, one thread ({machine['cpu_capability']}), "
        f"{measuring.versions_of(machine)}: processor time, interleaved medians. Both: forward + backward.",
        "Saved for backward: what grows with the batch, per input element; apart: what does not, such as copies of "
        "weights. Parameters themselves are not counted.",
    ]
    if "over_floor" in keys:
        notes.append("x textbook: compare layers with an edge scale, which the textbook layer has; x GEMMs: without.")
    title = f"{result['shape']}: {result['inputs']} -> {result['outputs']}, batch {result['batch']}, G = {grid}"
    return measuring.table_of(title, result["rows"], {key: COLUMNS[key].format(baseline) for key in keys}, notes)


def _overview(document: Row) -> Table:
    """Forward + backward of all layers at all shapes over efficient-kan's, or without it over the textbook layer's."""
    results, machine = document["results"], document["machine"]
    rows = {(result["shape"], row["layer"]): row for result in results for row in result["rows"] if "error" not in row}
    measured = any(layer == cases.EFFICIENT for _, layer in rows)
    key, peer = ("over_peer", cases.EFFICIENT) if measured else ("over_textbook", cases.TEXTBOOK)
    columns = {"layer": "layer"}
    columns |= {one["shape"]: f"{one['inputs']} x {one['outputs']} x {one['batch']}" for one in results}
    columns |= {"kept": "kept [B/input]"}
    shown = []
    for layer in dict.fromkeys(layer for _, layer in rows):
        own = [row for (_, name), row in rows.items() if name == layer]
        ratios = {result["shape"]: rows.get((result["shape"], layer), {}).get(key) for result in results}
        shown.append({"layer": layer, **ratios, "kept": max(row["saved_bytes_per_input"] for row in own)})
    notes = [
        f"Inputs x outputs x batch; {document['dtype']}, G = {document['grid']}, S = {document['spline_order']}, one"
        f" thread ({machine['cpu_capability']}), {measuring.versions_of(machine)}."
    ]
    return measuring.table_of(f"Forward + backward over {peer}", shown, columns, notes)


def tables(document: Row) -> list[Table]:
    """Ratios of all shapes, one table per shape, the peak memory, and the targets."""
    found = [_overview(document)]
    found += [_shape_table(result, document, document["grid"], list(COLUMNS)) for result in document["results"]]
    fine, stack = document["fine_grid"], document["stack"]
    if fine is not None:
        sizes = dict(zip(("inputs", "outputs", "batch"), cases.SHAPES[fine["shape"]]))
        keys = [key for key in COLUMNS if not key.startswith("over_")]  # its baseline is the textbook layer already
        found.append(_shape_table({**fine, **sizes}, document, fine["grid"], keys, "textbook"))
    if stack is not None:
        title = f"Peak of {stack['layers']} layers of {stack['shape']}, forward + backward"
        columns = {"layer": "layers", "peak_bytes": "peak [MB]", "ratio": "x MLP"}
        note = "Tensors alive at once: gradients counted; weights, input, and what a kernel takes for itself not."
        found.append(measuring.table_of(title, stack["rows"], columns, [note]))
    notes = (
        "The textbook layer stands for efficient-kan: the same recursion and the same parameters.",
        "Against it ours has an edge scale too; against the GEMMs alone it has none.",
        "A dash was not measured: a shape left out, not G = 5 in float32, not compiled, or no C++ here.",
    )
    return [*found, measuring.targets_table(document["targets"], *notes)]
