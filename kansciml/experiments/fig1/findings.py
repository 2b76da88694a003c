"""Findings of Figure 1: the paper's equations for a layer's extra memory, beside counts and measurements."""

from __future__ import annotations

import numpy as np

from kansciml.analysis.cost import Sizes, equation_1, equation_2, linear_layer, textbook_layer
from kansciml.experiments.fig1.report import MAPS, read_arrays, verdict
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

PICTURES = ("extra_memory",)
ELEMENT_BYTES = 4
"""Of float32, in which the maps are counted."""
CLOSE = 0.1
"""Largest relative difference at which a printed number or equation counts as met."""
PAPER_SPLINE = (5, 3)
"""Grid intervals and order that section 3.1 gives its factor for."""


def findings(record: Record) -> list[Finding]:
    """What a run says about Equations (1) and (2) and the parameters of a layer; nothing of it rests on training.

    Raises:
        KansciError: the record holds no finished run of fig1.
    """
    arrays = read_arrays(record)
    return [_misprint(record, arrays), _algebra(record, arrays), _memory(record), _parameters(record)]


def _sizes(record: Record) -> list[list[Sizes]]:
    """Sizes of the first map: inputs by outputs."""
    config = record.config
    shared = config["batch"], config["grid"], config["spline_order"]
    return [[Sizes(i, o, *shared) for o in config["widths"]] for i in config["widths"]]


def _misprint(record: Record, arrays: dict[str, np.ndarray]) -> Finding:
    off = {name: (arrays[f"{name}.equation_2"] - arrays[f"{name}.corrected"]) // ELEMENT_BYTES for name in MAPS}
    largest = max(float(np.abs(arrays[f"{name}.equation_2"] / arrays[f"{name}.corrected"] - 1).max()) for name in MAPS)
    widths = record.config["widths"]
    example = _sizes(record)[0][-1]
    printed, right = (equation_1(example, corrected=corrected).parameters for corrected in (False, True))
    if len(widths) < 2:
        verdict_, measured = UNDECIDED, "only layers with I = O in this run, where both are the same"
    else:
        verdict_ = NOT_REPRODUCED if any(values.any() for values in off.values()) else REPRODUCED
        measured = (
            f"I O (2 + G + S) - O (I + 1): the printed total differs from it by {_range(off['size'])} elements,"
            f" up to {format_number(100 * largest, 2)} %; at I = {example.inputs}, O = {example.outputs} the term is"
            f" {right:,}, not {printed:,}"
        )
    return Finding(
        item="Equation (1)",
        claim='"Parameter Count" of Equation (1): what a KAN layer has more than a fully connected one (section 3.2)',
        printed="I O (2 + G + S) - I (O + 1)",
        measured=measured,
        verdict=verdict_,
        evidence="counted: a fully connected layer has O (I + 1) parameters, as section 3.1 itself says; Equation (1)"
        " is too large by O - I, nothing where I = O",
        figures=PICTURES,
    )


def _algebra(record: Record, arrays: dict[str, np.ndarray]) -> Finding:
    pairs = [
        (arrays["size.equation_2"][place] // ELEMENT_BYTES, equation_1(_sizes(record)[place[0]][place[1]]).total)
        for place in np.ndindex(arrays["size.equation_2"].shape)
    ]
    unequal = sum(second != first for second, first in pairs)
    example = Sizes(64, 64, 128)
    return Finding(
        item="Equation (2)",
        claim="Equation (2) is the sum of the terms of Equation (1) (section 3.2)",
        printed="I [2 (G + S) B + (G + S + 1) O - 1] - O B",
        measured=f"the two differ in {unequal} of {len(pairs)} sizes, the misprint being in both",
        verdict=NOT_REPRODUCED if unequal else REPRODUCED,
        evidence="both evaluated exactly; at I = O = 64, G = 5, S = 3, B = 128 they are"
        f" {equation_2(example):,} elements, {ELEMENT_BYTES * equation_2(example):,} bytes in float32",
    )


def _memory(record: Record) -> Finding:
    ratios, kept = record.result["ratio_to_equation_2"], record.result["kept_per_input"]
    own = ratios["textbook"]
    met = own["min"] >= 1 - CLOSE and own["max"] <= 1 + CLOSE
    low, middle, high = (format_number(own[key]) for key in ("min", "median", "max"))
    printed = 2 * (record.config["grid"] + record.config["spline_order"])
    return Finding(
        item="Equation (2)",
        claim='"the total extra memory allocation required by a single KAN layer, in comparison to an FC layer"'
        ' (section 3.2), "based on the efficient-KAN implementation"',
        printed="I [2 (G + S) B + (G + S + 1) O - 1] - O B elements",
        measured=f"{low} to {high} times that (median {middle}, {record.result['cells']} sizes) for the recursion of"
        " the paper's sources",
        verdict=REPRODUCED if met else NOT_REPRODUCED,
        evidence=f"counted storage by storage, exact: parameters, buffers and the peak of a forward and backward pass,"
        f" less those of nn.Linear + SiLU. Per input and sample the recursion keeps {format_number(kept['textbook'])}"
        f" numbers for the backward pass, where Equation (2) has {printed} at its peak: autograd keeps every level."
        f" {verdict('ours', ratios['ours'])}",
        figures=PICTURES,
    )


def _parameters(record: Record) -> Finding:
    widths = record.config["widths"]
    square = [row[place] for place, row in enumerate(_sizes(record))]
    ratios = [textbook_layer(sizes).parameters / linear_layer(sizes).parameters for sizes in square]
    spline = record.config["grid"], record.config["spline_order"]
    if spline != PAPER_SPLINE:
        verdict_ = UNDECIDED
    else:
        verdict_ = REPRODUCED if abs(ratios[-1] / 10 - 1) <= CLOSE else NOT_REPRODUCED
    return Finding(
        item="Section 3.1",
        claim='a KAN "with G = 5 and S = 3 has approximately 10 times more trainable parameters than an equivalent FC'
        ' layer" (section 3.1)',
        printed="approximately 10",
        measured=f"{format_number(ratios[-1])} times at I = O = {widths[-1]}, {format_number(ratios[0])} at"
        f" {widths[0]}",
        verdict=verdict_,
        evidence=f"counted at G = {spline[0]}, S = {spline[1]}: I O (2 + G + S) over O (I + 1)"
        + ("" if spline == PAPER_SPLINE else ", not the paper's grid and order"),
    )


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
