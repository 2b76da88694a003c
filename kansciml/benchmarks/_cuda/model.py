"""``kansciml bench layers --device cuda --model-only``: what every GPU should take, as tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kansciml._errors import UsageError, check_name
from kansciml.benchmarks import _layer_cases as cases
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._cuda.roofline import DEVICES, LAUNCH_S, TYPES, expected
from kansciml.runs.tables import Table

SHAPES = {**cases.SHAPES, "S6": (192, 768, 25_000)}
"""Name -> (inputs, outputs, batch); S6 is a DeiT-Tiny's first layer at a batch of 128 images."""
COLUMNS = {
    "device": "GPU",
    "dtype": "type",
    "layer": "layer",
    "launches": "launches",
    "bytes": "moved [MB]",
    "gflop": "GFLOP",
    "forward_ms": "forward [ms]",
    "both_ms": "both [ms]",
    "over_peer": "both, x efficient-kan",
    "over_floor": "both, x products alone",
}


def chosen(shapes: Sequence[str] | None, known: Collection[str] = SHAPES) -> tuple[str, ...]:
    """Names of shapes, all that are known by default.

    Raises:
        UsageError: no shapes, or unknown ones.
    """
    if shapes is not None and not shapes:
        raise UsageError(f"got no shapes: expected some of {', '.join(known)}")
    names = tuple(dict.fromkeys(known if shapes is None else shapes))
    for name in names:
        check_name("shape", name, known)
    return names


def run(shapes: Sequence[str] | None, grid: int) -> tuple[dict[str, Any], list[Table]]:
    """The model's JSON document and its tables, one per shape."""
    document: dict[str, Any] = {"model": True, "grid": grid, "spline_order": cases.SPLINE_ORDER, "results": []}
    tables = []
    for name in chosen(shapes):
        kinds = [(device, kind) for device in DEVICES for kind in TYPES if kind in DEVICES[device].products]
        rows = [row for gpu, kind in kinds for row in expected(SHAPES[name], grid, cases.SPLINE_ORDER, gpu, kind)]
        document["results"].append(
            {"shape": name, **dict(zip(("inputs", "outputs", "batch"), SHAPES[name])), "rows": rows}
        )
        title = "{}: {} -> {}, batch {:,}".format(name, *SHAPES[name]) + f", G = {grid}: expected, not measured"
        notes = [
            "A kernel takes the longest of its bytes, its products and its other operations, by the data sheets' peaks"
            f" and usual shares of them, and {1e6 * LAUNCH_S:g} us for its launch. Both: forward + backward."
        ]
        tables.append(measuring.table_of(title, rows, COLUMNS, notes))
    return document, tables
