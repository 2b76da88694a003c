"""``kansciml bench layers --device cuda``: layers in turns on a GPU, by its clock, beside what the model expects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kansciml.benchmarks import _layer_cases as cases
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._cuda.device import chosen_device, facts, first_line, in_turns, peak_bytes
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
    "over_peer": "both, x efficient-kan",
    "over_textbook": "both, x textbook",
    "over_floor": "both, x products alone",
    "saved_bytes_per_input": "saved [B/input]",
    "peak_bytes": "peak [MB]",
    "expected_ms": "expected both [ms]",
}


def _makers(
    shape: tuple[int, int, int], grid: int, compiled: bool
) -> dict[str, tuple[str | None, Callable[[], nn.Module]]]:
    """Candidates by name: the way that Triton's kernels are made to go (None: their own choice), and what makes it."""
    found: dict[str, tuple[str | None, Callable[[], nn.Module]]] = {
        name: (None, make)
        for name, make in cases.modules(shape, grid, compiled).items()
        if not name.startswith("SplineKAN") or name == PLAIN + cases.COMPILED
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


def measure_shape(
    shape: tuple[int, int, int], grid: int, kind: str, rounds: int, device: torch.device, compiled: bool = False
) -> list[dict[str, Any]]:
    """Rows of one shape and type; a layer that fails has a row with its ``error``."""
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    ready: dict[str, cases.Case] = {}
    ways: dict[str, str | None] = {}
    rows: list[dict[str, Any]] = []
    for name, (way, make) in _makers(shape, grid, compiled).items():
        try:
            with _going(way):
                case = cases.make_case(name, make, shape, grid, dtype, device)
                case.both()
            if device.type == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # of a third party, of too little memory: the others are measured all the same
            rows.append({"dtype": kind, "layer": name, "error": f"{name}: {first_line(error)}"})
        else:
            ready[name], ways[name] = case, way

    def call(name: str, run: Callable[[], object]) -> Callable[[], object]:
        def going() -> object:
            with _going(ways[name]):
                return run()

        return going

    repeats = CALLS if device.type == "cuda" else 1
    forward = in_turns({name: call(name, case.forward) for name, case in ready.items()}, rounds, device, repeats)
    both = in_turns({name: call(name, case.both) for name, case in ready.items()}, rounds, device, repeats)
    model = {} if device.type == "cpu" else _model(shape, grid, kind)
    for name, case in ready.items():
        with _going(ways[name]):
            saved = cases.saved_per_input(case, shape[0])[0]
        row = {
            "dtype": kind,
            "layer": name,
            **{"forward_ms": float(np.median(forward[name])), "both_ms": float(np.median(both[name]))},
            "saved_bytes_per_input": saved,
            "peak_bytes": peak_bytes(call(name, case.both), device),
            "expected_ms": model.get(
                {cases.BASELINE: "nn.Linear + SiLU", cases.TEXTBOOK: "efficient-kan"}.get(name, name)
            ),
        }
        for key, other in cases.OVER.items():
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


TARGET_SHAPES = ("S3", "S6")
OVER_PEER = {"bfloat16": 0.1, "float32": 0.2}
OVER_FLOOR = 1.5
SAVED = {"bfloat16": 2.0, "float32": 4.0}


def target_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the Triton kernels should reach, and reached, see `at_most`."""
    rows = {(one["shape"], row["dtype"]): row for one in results for row in one["rows"] if row["layer"] == TRITON}
    found = []
    for shape in TARGET_SHAPES:
        for dtype, least in OVER_PEER.items():
            row, what = rows.get((shape, dtype), {}), f"{TRITON}, {shape}, {dtype}"
            key, peer = ("over_peer", cases.EFFICIENT) if row.get("over_peer") else ("over_textbook", cases.TEXTBOOK)
            found.append(measuring.at_most(f"{what}: over {peer}", least, row.get(key)))
            found.append(measuring.at_most(f"{what}: over the products alone", OVER_FLOOR, row.get("over_floor")))
            saved = row.get("saved_bytes_per_input")
            found.append(measuring.at_most(f"{what}: bytes saved per input", SAVED[dtype], saved))
    return found


def run(
    shapes: Sequence[str] | None, grid: int, rounds: int, compiled: bool = False, rehearse: bool = False
) -> tuple[dict[str, Any], list[Table]]:
    """Measure on this machine's GPU; returns the JSON document and the tables.

    Raises:
        KansciError: there is no CUDA device, and it is no rehearsal.
    """
    names, device = chosen(shapes), chosen_device(rehearse)
    about = facts(device)
    new = about["capability"] is not None and tuple(about["capability"]) >= (8, 0)
    kinds = [kind for kind in TYPES if kind != "tf32" or new]
    document: dict[str, Any] = {
        "machine": {**measuring.facts(False, cases.PACKAGES), "device": about, "triton": library.reason()}
    }
    document |= {"grid": grid, "spline_order": cases.SPLINE_ORDER, "results": []}
    tables, before = [], torch.get_float32_matmul_precision()
    with Progress() as progress, progress.task("bench layers", len(names) * len(kinds)) as task:
        for name in names:
            rows: list[dict[str, Any]] = []
            for kind in kinds:
                task.update(advance=0, now=f"{name} {kind}")
                torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
                try:
                    rows += measure_shape(SHAPES[name], grid, kind, rounds, device, compiled)
                finally:
                    torch.set_float32_matmul_precision(before)
                task.update(advance=1)
            sizes = dict(zip(("inputs", "outputs", "batch"), SHAPES[name]))
            document["results"].append({"shape": name, **sizes, "rows": rows})
            title = "{}: {} -> {}, batch {:,}".format(name, *SHAPES[name]) + f", G = {grid}, {about['name']}"
            notes = ["Times by the device's clock, medians of interleaved rounds. Both: forward + backward."]
            tables.append(measuring.table_of(title, rows, {**{"dtype": "type"}, **COLUMNS}, notes))
    document["targets"] = target_rows(document["results"])
    return document, [*tables, measuring.targets_table(document["targets"], "A dash was not measured here.")]
