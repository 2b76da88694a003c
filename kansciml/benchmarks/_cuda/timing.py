"""``kansciml bench layers --device cuda``: layers in turns on a GPU, by its clock, beside what the model expects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kansciml._errors import KansciError
from kansciml.benchmarks import _layer_cases as cases
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._cuda.model import SHAPES, chosen
from kansciml.benchmarks._cuda.roofline import DEVICES, TYPES, expected
from kansciml.layers._kernels._triton import library
from kansciml.layers.spline_kan import SplineKAN
from kansciml.runs.progress import Progress
from kansciml.runs.tables import Table

TRITON, PLAIN = "SplineKAN, Triton", "SplineKAN, torch"
WAYS = ("dense", "fused", "sparse")
CALLS = 5
"""Calls between two readings of the device's clock."""
COLUMNS = {
    "dtype": "type",
    "layer": "layer",
    "forward_ms": "forward [ms]",
    "both_ms": "both [ms]",
    "over_textbook": "both, x textbook",
    "over_floor": "both, x products alone",
    "peak_bytes": "peak [MB]",
    "expected_ms": "expected both [ms]",
}


def _makers(shape: tuple[int, int, int], grid: int) -> dict[str, tuple[str | None, Callable[[], nn.Module]]]:
    """Candidates by name: the way that Triton's kernels are made to go (None: their own choice), and what makes it."""
    found: dict[str, tuple[str | None, Callable[[], nn.Module]]] = {
        name: (None, make) for name, make in cases.modules(shape, grid).items() if not name.startswith("SplineKAN")
    }

    def spline(backend: str) -> Callable[[], nn.Module]:
        return lambda: SplineKAN(shape[0], shape[1], grid, cases.SPLINE_ORDER, backend=backend)

    found[PLAIN] = None, spline("torch")
    if library.available():
        found[TRITON] = None, spline("triton")
        found |= {f"{TRITON} {way}": (way, spline("triton")) for way in WAYS}
    return found


@contextlib.contextmanager
def _going(way: str | None) -> Iterator[None]:
    """Within, Triton's kernels go that way."""
    if way is None:
        yield
        return
    from kansciml.layers._kernels._triton import backend

    own, backend.way = backend.way, lambda given: way
    try:
        yield
    finally:
        backend.way = own


def _in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per call by the device's clock, (rounds,) per name, after two calls that do not count."""
    for call in calls.values():
        call()
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(CALLS):
                call()
            end.record()
            end.synchronize()
            found[name].append(begin.elapsed_time(end) / CALLS)
    return {name: np.array(times) for name, times in found.items()}


def measure_shape(shape: tuple[int, int, int], grid: int, kind: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of one shape and type; a layer that fails has a row with its ``error``."""
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    ready: dict[str, cases.Case] = {}
    ways: dict[str, str | None] = {}
    rows: list[dict[str, Any]] = []
    for name, (way, make) in _makers(shape, grid).items():
        try:
            case = cases.make_case(name, make, shape, grid, dtype)
            case = cases.Case(case.module.cuda(), case.x.detach().cuda().requires_grad_())
            with _going(way):
                case.both()
            torch.cuda.synchronize()
        except Exception as error:  # of a third party, of too little memory: the others are measured all the same
            rows.append(
                {"dtype": kind, "layer": name, "error": (str(error).splitlines() or [type(error).__name__])[0][:120]}
            )
        else:
            ready[name], ways[name] = case, way

    def call(name: str, run: Callable[[], object]) -> Callable[[], object]:
        def going() -> object:
            with _going(ways[name]):
                return run()

        return going

    forward = _in_turns({name: call(name, case.forward) for name, case in ready.items()}, rounds)
    both = _in_turns({name: call(name, case.both) for name, case in ready.items()}, rounds)
    model = _model(shape, grid, kind)
    for name, case in ready.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(name, case.both)()
        row = {
            "dtype": kind,
            "layer": name,
            **{"forward_ms": float(np.median(forward[name])), "both_ms": float(np.median(both[name]))},
            "peak_bytes": torch.cuda.max_memory_allocated() - before,
            "expected_ms": model.get(
                {cases.BASELINE: "nn.Linear + SiLU", cases.TEXTBOOK: "efficient-kan"}.get(name, name)
            ),
        }
        for key, other in (("over_textbook", cases.TEXTBOOK), ("over_floor", cases.FLOOR)):
            row[key] = measuring.ratio(both[name], both[other]) if other in both else None
        rows.append(row)
    return rows


def _model(shape: tuple[int, int, int], grid: int, kind: str) -> dict[str, float]:
    """Expected milliseconds on this device by layer, where its data sheet is known."""
    name = torch.cuda.get_device_name()
    known = next((one for one in DEVICES if one in name), None)
    if known is None or kind not in DEVICES[known].products:
        return {}
    rows = expected(shape, grid, cases.SPLINE_ORDER, known, kind)
    return {row["layer"]: row["both_ms"] for row in rows} | {cases.FLOOR: rows[-1]["both_ms"]}


def run(shapes: Sequence[str] | None, grid: int, rounds: int) -> tuple[dict[str, Any], list[Table]]:
    """Measure on this machine's GPU; returns the JSON document and the tables.

    Raises:
        KansciError: there is no CUDA device.
    """
    names = chosen(shapes)
    if not torch.cuda.is_available():
        raise KansciError("got no CUDA device: run this where there is one, or add --model-only for expected times")
    kinds = [kind for kind in TYPES if kind != "tf32" or torch.cuda.get_device_capability() >= (8, 0)]
    device = {"name": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability())}
    document: dict[str, Any] = {"machine": {**measuring.facts(), "device": device, "triton": library.reason()}}
    document |= {"grid": grid, "spline_order": cases.SPLINE_ORDER, "results": []}
    tables, before = [], torch.get_float32_matmul_precision()
    with Progress() as progress, progress.task("bench layers", len(names) * len(kinds)) as task:
        for name in names:
            rows: list[dict[str, Any]] = []
            for kind in kinds:
                task.update(advance=0, now=f"{name} {kind}")
                torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
                try:
                    rows += measure_shape(SHAPES[name], grid, kind, rounds)
                finally:
                    torch.set_float32_matmul_precision(before)
                task.update(advance=1)
            sizes = dict(zip(("inputs", "outputs", "batch"), SHAPES[name]))
            document["results"].append({"shape": name, **sizes, "rows": rows})
            title = "{}: {} -> {}, batch {:,}".format(name, *SHAPES[name]) + f", G = {grid}, {device['name']}"
            notes = ["Times by the device's clock, medians of interleaved rounds. Both: forward + backward."]
            tables.append(measuring.table_of(title, rows, {**{"dtype": "type"}, **COLUMNS}, notes))
    return document, tables
