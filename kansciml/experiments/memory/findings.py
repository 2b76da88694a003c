"""Findings of Figure 4: memory of training steps with KANs and with MLPs, counted exactly.

Nothing here rests on training, so runs of any size decide, but for what the paper says of 16 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kansciml.experiments.memory.report import (
    BASELINE,
    MB,
    MUCH_HIGHER,
    SIGNIFICANT,
    TOO_SMALL,
    baseline,
    rating,
    read_curves,
    variant_styles,
)
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEMS = {"fig4a": "Figure 4a", "fig4b": "Figure 4b"}
PICTURES = ("memory",)
TEXTBOOK = "textbook"
"""The recursion of the paper's sources; other variants are this package's layers."""
GPU_GB = 16.0
"""Of the V100 that the paper's points are missing beyond."""
ON_LINE = 0.01
"""Largest distance from a straight line, over the peak, of points that count as on it."""
LEAST_POINTS = 3
"""Points that a straight line is no matter of course for."""
RECIPE_SIZE, RECIPE_BATCH = 85, 32
"""Points along a side and samples per step in the source that the paper trains its operators by; it gives none."""


def findings(record: Record) -> list[Finding]:
    """What a run says about the growth of memory, what fits into 16 GB and, of operators, whether training is feasible.

    Raises:
        KansciError: the record holds no finished run of figure 4.
    """
    curves = read_curves(record)
    variants = [name for name in dict.fromkeys(row["variant"] for row in curves) if name != BASELINE]
    found = [make(record, curves, variant) for variant in variants for make in (_higher, _limit)]
    found.append(_linear(record, curves))
    if record.experiment == "fig4b":
        found += [_infeasible(record, curves, variant) for variant in variants]
    return found


def _higher(record: Record, curves: list[dict[str, Any]], variant: str) -> Finding:
    pairs = _pairs(curves, variant)
    rated = [rating(row, base) for row, base in pairs]
    ratios = [f"{row['model']}: {_mb(row)} against {_mb(base)}, {_times(row, base)} x" for row, base in pairs]
    high, told = rated.count(SIGNIFICANT), len(rated) - rated.count(TOO_SMALL)
    if high < told:
        verdict = NOT_REPRODUCED
    else:
        verdict = REPRODUCED if told == len(rated) > 0 else UNDECIDED
    small = f"; of {len(rated) - told} the batches are too small to tell" if told < len(rated) else ""
    return Finding(
        item=ITEMS[record.experiment],
        claim='"KAN-based models have significantly higher memory usage with poor scaling [...] the memory usage for'
        f' the former grows at a much faster rate" (Figure 4): {_name(curves, variant)}',
        printed="no number: a picture; no shapes",
        measured=f"MB per sample, KAN against MLP: {'; '.join(ratios) or 'no MLP to compare with'}",
        verdict=verdict,
        evidence=f"{high} of {len(rated)} models take {MUCH_HIGHER:g} times as much per sample or more, which is taken"
        f" for significantly higher{small}. {_counted(record)}",
        figures=PICTURES,
    )


def _limit(record: Record, curves: list[dict[str, Any]], variant: str) -> Finding:
    limit, pairs = record.config["limit_gb"], _pairs(curves, variant)
    earlier, later = (sum(test(*pair) for pair in pairs) for test in (_earlier, lambda row, base: _earlier(base, row)))
    verdict = REPRODUCED if earlier > 0 == later else NOT_REPRODUCED
    size = ""
    if not pairs:
        verdict, size = UNDECIDED, "no MLP to compare with; "
    elif limit != GPU_GB:
        verdict, size = UNDECIDED, f"at this size: the limit is {limit:g} GB, not {GPU_GB:g}; "
    known = [f"{row['model']} {row['reference']['full_batch']}" for row, _ in pairs if "full_batch" in row["reference"]]
    return Finding(
        item=ITEMS[record.experiment],
        claim='"Missing points in the plot demonstrate that the models ran out of memory on a 16GB V100 GPU" (Figure'
        f" 4), KANs earlier than MLPs: {_name(curves, variant)}",
        printed="no number: a picture",
        measured=f"largest batch in {limit:g} GB, KAN against MLP: "
        + "; ".join(f"{row['model']}: {row['full_batch']} against {base['full_batch']}" for row, base in pairs),
        verdict=verdict,
        evidence=f"{size}{earlier} of {len(pairs)} KANs run out at a smaller batch, {later} at a larger one. With"
        f" weights, gradients, AdamW's moments and the input. {_counted(record)}"
        + (f" Measured elsewhere with efficient-kan: {', '.join(known)}." if known else ""),
        figures=PICTURES,
    )


def _linear(record: Record, curves: list[dict[str, Any]]) -> Finding:
    """Of the MLPs and the paper's recursion, or of whatever KANs there are without it."""
    paper = {BASELINE, TEXTBOOK} if any(row["variant"] == TEXTBOOK for row in curves) else None
    rows = [row for row in curves if paper is None or row["variant"] in paper]
    points = [_on_line(record, row) for row in rows]
    bent = sum(on < total for on, total in points)
    told = [row["variant"] for row, (on, _) in zip(rows, points) if on >= LEAST_POINTS]
    if bent:
        verdict = NOT_REPRODUCED
    else:
        verdict = REPRODUCED if set(told) == {row["variant"] for row in rows} else UNDECIDED
    small = f"{len(rows) - len(told) - bent} have fewer than {LEAST_POINTS} points on a line, which tells nothing"
    return Finding(
        item=ITEMS[record.experiment],
        claim='"both KAN-based and MLP-based models demonstrate a linear growth in memory usage" (Figure 4)',
        printed="linear; no number: a picture",
        measured=f"{sum(on for on, _ in points)} of the {sum(total for _, total in points)} largest batches of"
        f" {len(rows)} curves lie within {100 * ON_LINE:g} % of a straight line",
        verdict=verdict,
        evidence=f"{'at this size: ' if verdict == UNDECIDED else ''}{bent} of {len(rows)} curves are bent, {small}."
        " Points below an eighth of a curve's largest batch count where they are on its line: there gradients, which do"
        " not grow, outweigh activations",
        figures=PICTURES,
    )


def _on_line(record: Record, row: dict[str, Any]) -> tuple[int, int]:
    """Points of a curve on its line, and those that should be: from an eighth of the largest batch on, or on it."""
    batches, peaks = (record.arrays[f"{row['model']}.{row['variant']}.{key}"] for key in ("batch", "peak"))
    on = np.abs(peaks - (row["intercept_bytes"] + row["slope_bytes"] * batches)) <= ON_LINE * peaks
    return int(on.sum()), int((on | (8 * batches >= batches[-1])).sum())


def _infeasible(record: Record, curves: list[dict[str, Any]], variant: str) -> Finding:
    """Of the whole network, kept as it is: whether one sample fits, and whether the recipe's batch does."""
    limit = record.config["limit_gb"]
    whole = [(row, base) for row, base in _pairs(curves, variant) if row["model"].startswith("whole-")]
    sizes = [int(row["model"].rpartition("-")[2]) for row, _ in whole]
    large = [(size, row) for size, (row, _) in zip(sizes, whole) if size >= RECIPE_SIZE]
    if not large or limit != GPU_GB:
        sides = " and ".join(map(str, sizes)) or "no"
        verdict, size = UNDECIDED, f"At this size: {sides} points along a side, {limit:g} GB. "
    else:
        verdict = REPRODUCED if min(large)[1]["full_batch"] < 1 else NOT_REPRODUCED
        fits = min(large)[1]["full_batch"] >= RECIPE_BATCH
        size = f"The source's batch of {RECIPE_BATCH} {'fits' if fits else 'does not fit'} there. "
    return Finding(
        item="Section 4.3",
        claim='"extremely high memory requirements [Figure 4b] making training these models infeasible" (section 4.3):'
        f" {_name(curves, variant)}",
        printed=f"no number; {GPU_GB:g} GB in Figure 4",
        measured=f"largest batch in {limit:g} GB, whole network, KAN against MLP: "
        + (
            "; ".join(f"{row['model']}: {row['full_batch']} against {base['full_batch']}" for row, base in whole) or "-"
        ),
        verdict=verdict,
        evidence=f"infeasible is taken to mean that not one sample fits at the {RECIPE_SIZE} x {RECIPE_SIZE} points of"
        f" the source. {size}{_counted(record)}",
        figures=PICTURES,
    )


def _pairs(curves: Sequence[dict[str, Any]], variant: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Curves of a variant, each with its MLPs' where there are some."""
    rows = [(row, baseline(list(curves), row["model"])) for row in curves if row["variant"] == variant]
    return [(row, base) for row, base in rows if base is not None]


def _name(curves: list[dict[str, Any]], variant: str) -> str:
    name = variant_styles([row["variant"] for row in curves])[variant].name
    return name + (", of the paper's sources" if variant == TEXTBOOK else ", of this package")


def _mb(row: dict[str, Any]) -> str:
    return format_number(row["slope_bytes"] / MB)


def _earlier(row: dict[str, Any], base: dict[str, Any]) -> bool:
    return row["full_batch"] < base["full_batch"]


def _times(row: dict[str, Any], base: dict[str, Any]) -> str:
    return format_number(row["slope_bytes"] / base["slope_bytes"])


def _counted(record: Record) -> str:
    blocks = "" if record.config["device"] == "cpu" else ", in a GPU's blocks"
    return f"Counted exactly, storage by storage, on tensors without data{blocks}; no training."
