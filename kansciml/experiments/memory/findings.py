"""Findings of Figure 4: memory of training steps with KANs and with MLPs, counted exactly.

Nothing here rests on training, so runs of any size decide, but for what the paper says of 16 GB.
"""

from __future__ import annotations

import numpy as np

from kansciml.experiments.memory.record import (
    BASELINE,
    MUCH_HIGHER,
    SIGNIFICANT,
    TEXTBOOK,
    TOO_SMALL,
    Curve,
    MemoryRecord,
)
from kansciml.experiments.memory.report import variant_styles
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEMS = {"fig4a": "Figure 4a", "fig4b": "Figure 4b"}
PICTURES = ("memory",)
GPU_GB = 16.0
"""Of the V100 that the paper's points are missing beyond."""
ON_LINE = 0.01
"""Largest distance from a straight line, over the peak, of points that count as on it."""
LEAST_POINTS = 3
"""Points that a straight line is no matter of course for."""
RECIPE_SIZE, RECIPE_BATCH = 85, 32
"""Points along a side and samples per step in the source that the paper trains its operators by; it gives none."""


def findings(record: Record) -> list[Finding]:
    """What a run says of the growth of memory, what fits into 16 GB and, of operators, whether training is feasible."""
    memory = MemoryRecord.read(record)
    variants = [variant for variant in memory.variants if variant != BASELINE]
    found = [make(memory, variant) for variant in variants for make in (_higher, _limit)]
    found.append(_linear(memory))
    if memory.experiment == "fig4b":
        found += [_infeasible(memory, variant) for variant in variants]
    return found


def _higher(memory: MemoryRecord, variant: str) -> Finding:
    pairs = memory.pairs(variant)
    rated = [curve.rating(base) for curve, base in pairs]
    ratios = [
        f"{curve.model}: {format_number(curve.mb_per_sample)} against {format_number(base.mb_per_sample)},"
        f" {format_number(curve.over(base))} x"
        for curve, base in pairs
    ]
    high, told = rated.count(SIGNIFICANT), len(rated) - rated.count(TOO_SMALL)
    if high < told:
        verdict = NOT_REPRODUCED
    else:
        verdict = REPRODUCED if told == len(rated) > 0 else UNDECIDED
    small = f"; of {len(rated) - told} the batches are too small to tell" if told < len(rated) else ""
    return Finding(
        item=ITEMS[memory.experiment],
        claim='"KAN-based models have significantly higher memory usage with poor scaling [...] the memory usage for'
        ' the former grows at a much faster rate" (Figure 4)',
        case=_name(memory, variant),
        printed="no number: a picture; no shapes",
        measured=f"MB per sample, KAN against MLP: {'; '.join(ratios) or 'no MLP to compare with'}",
        verdict=verdict,
        evidence=f"{high} of {len(rated)} models take {MUCH_HIGHER:g} times as much per sample or more, which is taken"
        f" for significantly higher{small}. {_counted(memory)}",
        figures=PICTURES,
    )


def _limit(memory: MemoryRecord, variant: str) -> Finding:
    limit, pairs = memory.limit_gb, memory.pairs(variant)
    earlier = sum(curve.full_batch < base.full_batch for curve, base in pairs)
    later = sum(curve.full_batch > base.full_batch for curve, base in pairs)
    verdict, size = REPRODUCED if earlier > 0 == later else NOT_REPRODUCED, ""
    if not pairs:
        verdict, size = UNDECIDED, "no MLP to compare with; "
    elif limit != GPU_GB:
        verdict, size = UNDECIDED, f"at this size: the limit is {limit:g} GB, not {GPU_GB:g}; "
    known = [f"{curve.model} {full}" for curve, _ in pairs if (full := curve.reference.full_batch) is not None]
    return Finding(
        item=ITEMS[memory.experiment],
        claim='"Missing points in the plot demonstrate that the models ran out of memory on a 16GB V100 GPU" (Figure'
        " 4), KANs earlier than MLPs",
        case=_name(memory, variant),
        printed="no number: a picture",
        measured=f"largest batch in {limit:g} GB, KAN against MLP: {_batches(pairs)}",
        verdict=verdict,
        evidence=f"{size}{earlier} of {len(pairs)} KANs run out at a smaller batch, {later} at a larger one. With"
        f" weights, gradients, AdamW's moments and the input. {_counted(memory)}"
        + (f" Measured elsewhere with efficient-kan: {', '.join(known)}." if known else ""),
        figures=PICTURES,
    )


def _linear(memory: MemoryRecord) -> Finding:
    """Of the MLPs and the paper's recursion, or of whatever KANs there are without it."""
    papers = {BASELINE, TEXTBOOK} if TEXTBOOK in memory.variants else set(memory.variants)
    curves = [curve for curve in memory.curves if curve.variant in papers]
    points = [_on_line(curve) for curve in curves]
    bent = sum(on < total for on, total in points)
    told = [curve.variant for curve, (on, _) in zip(curves, points) if on >= LEAST_POINTS]
    if bent:
        verdict = NOT_REPRODUCED
    else:
        verdict = REPRODUCED if set(told) == {curve.variant for curve in curves} else UNDECIDED
    small = f"{len(curves) - len(told) - bent} have fewer than {LEAST_POINTS} points on a line, which tells nothing"
    return Finding(
        item=ITEMS[memory.experiment],
        claim='"both KAN-based and MLP-based models demonstrate a linear growth in memory usage" (Figure 4)',
        printed="linear; no number: a picture",
        measured=f"{sum(on for on, _ in points)} of the {sum(total for _, total in points)} largest batches of"
        f" {len(curves)} curves lie within {100 * ON_LINE:g} % of a straight line",
        verdict=verdict,
        evidence=f"{'at this size: ' if verdict == UNDECIDED else ''}{bent} of {len(curves)} curves are bent, {small}."
        " Points below an eighth of a curve's largest batch count where they are on its line: there gradients, which do"
        " not grow, outweigh activations",
        figures=PICTURES,
    )


def _on_line(curve: Curve) -> tuple[int, int]:
    """Points of a curve on its line, and those that should be: from an eighth of the largest batch on, or on it."""
    batches, peaks = curve.batch, curve.peak
    on = np.abs(peaks - (curve.intercept_bytes + curve.slope_bytes * batches)) <= ON_LINE * peaks
    return int(on.sum()), int((on | (8 * batches >= batches[-1])).sum())


def _infeasible(memory: MemoryRecord, variant: str) -> Finding:
    """Of the whole network, kept as it is: whether one sample fits, and whether the recipe's batch does."""
    sizes = memory.whole_sizes
    whole = [(curve, base) for curve, base in memory.pairs(variant) if curve.model in sizes]
    large = [curve for curve, _ in whole if sizes[curve.model] >= RECIPE_SIZE]
    if not large or memory.limit_gb != GPU_GB:
        sides = " and ".join(str(sizes[curve.model]) for curve, _ in whole) or "no"
        verdict, size = UNDECIDED, f"At this size: {sides} points along a side, {memory.limit_gb:g} GB. "
    else:
        batch = min(large, key=lambda curve: sizes[curve.model]).full_batch
        verdict = REPRODUCED if batch < 1 else NOT_REPRODUCED
        fits = "fits" if batch >= RECIPE_BATCH else "does not fit"
        size = f"The source's batch of {RECIPE_BATCH} {fits} there. "
    return Finding(
        item="Section 4.3",
        claim='"extremely high memory requirements [Figure 4b] making training these models infeasible" (section 4.3)',
        case=_name(memory, variant),
        printed=f"no number; {GPU_GB:g} GB in Figure 4",
        measured=f"largest batch in {memory.limit_gb:g} GB, whole network, KAN against MLP: {_batches(whole) or '-'}",
        verdict=verdict,
        evidence=f"infeasible is taken to mean that not one sample fits at the {RECIPE_SIZE} x {RECIPE_SIZE} points of"
        f" the source. {size}{_counted(memory)}",
        figures=PICTURES,
    )


def _batches(pairs: list[tuple[Curve, Curve]]) -> str:
    return "; ".join(f"{curve.model}: {curve.full_batch} against {base.full_batch}" for curve, base in pairs)


def _name(memory: MemoryRecord, variant: str) -> str:
    name = variant_styles(memory.variants)[variant].name
    return name + (", of the paper's sources" if variant == TEXTBOOK else ", of this package")


def _counted(memory: MemoryRecord) -> str:
    blocks = "" if memory.device == "cpu" else ", in a GPU's blocks"
    return f"Counted exactly, storage by storage, on tensors without data{blocks}; no training."
