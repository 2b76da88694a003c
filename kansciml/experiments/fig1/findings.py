"""Findings of Figure 1: the paper's equations for a layer's extra memory, beside counts and measurements."""

from __future__ import annotations

import numpy as np

from kansciml.analysis.cost import Sizes, equation_1, equation_2, linear_layer, textbook_layer
from kansciml.experiments.fig1.record import ELEMENT_BYTES, Maps
from kansciml.experiments.fig1.report import verdict
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

PICTURES = ("extra_memory",)
CLOSE = 0.1
"""Largest relative difference at which a printed number or equation counts as met."""
PAPER_SPLINE = (5, 3)
"""Grid intervals and order that section 3.1 gives its factor for."""


def findings(record: Record) -> list[Finding]:
    """What a run says about Equations (1) and (2) and the parameters of a layer; nothing of it rests on training."""
    maps = Maps.read(record)
    return [_misprint(maps), _algebra(maps), _memory(maps), _parameters(maps)]


def _misprint(maps: Maps) -> Finding:
    off = {name: (own["equation_2"] - own["corrected"]) // ELEMENT_BYTES for name, own in maps.bytes.items()}
    example = maps.config.maps["size"][0][-1]
    printed, right = (equation_1(example, corrected=corrected).parameters for corrected in (False, True))
    if len(maps.config.widths) < 2:
        outcome, measured = UNDECIDED, "only layers with I = O in this run, where both are the same"
    else:
        outcome = NOT_REPRODUCED if any(values.any() for values in off.values()) else REPRODUCED
        measured = (
            f"I O (2 + G + S) - O (I + 1): the printed total differs from it by {_range(off['size'])} elements,"
            f" up to {format_number(100 * maps.misprint, 2)} %; at I = {example.inputs}, O = {example.outputs} the term"
            f" is {right:,}, not {printed:,}"
        )
    return Finding(
        item="Equation (1)",
        claim='"Parameter Count" of Equation (1): what a KAN layer has more than a fully connected one (section 3.2)',
        printed="I O (2 + G + S) - I (O + 1)",
        measured=measured,
        verdict=outcome,
        evidence="counted: a fully connected layer has O (I + 1) parameters, as section 3.1 itself says; Equation (1)"
        " is too large by O - I, nothing where I = O",
        figures=PICTURES,
    )


def _algebra(maps: Maps) -> Finding:
    first = np.array([[equation_1(sizes).total for sizes in row] for row in maps.config.maps["size"]])
    unequal = np.count_nonzero(maps.bytes["size"]["equation_2"] // ELEMENT_BYTES != first)
    example = Sizes(64, 64, 128)
    return Finding(
        item="Equation (2)",
        claim="Equation (2) is the sum of the terms of Equation (1) (section 3.2)",
        printed="I [2 (G + S) B + (G + S + 1) O - 1] - O B",
        measured=f"the two differ in {unequal} of {first.size} sizes, the misprint being in both",
        verdict=NOT_REPRODUCED if unequal else REPRODUCED,
        evidence="both evaluated exactly; at I = O = 64, G = 5, S = 3, B = 128 they are"
        f" {equation_2(example):,} elements, {ELEMENT_BYTES * equation_2(example):,} bytes in float32",
    )


def _memory(maps: Maps) -> Finding:
    own = maps.spread("textbook")
    low, middle, high = (format_number(value) for value in (own.min, own.median, own.max))
    kept = format_number(maps.kept["textbook"])
    printed = 2 * (maps.config.grid + maps.config.spline_order)
    return Finding(
        item="Equation (2)",
        claim='"the total extra memory allocation required by a single KAN layer, in comparison to an FC layer"'
        ' (section 3.2), "based on the efficient-KAN implementation"',
        printed="I [2 (G + S) B + (G + S + 1) O - 1] - O B elements",
        measured=f"{low} to {high} times that (median {middle}, {maps.cells} sizes) for the recursion of"
        " the paper's sources",
        verdict=REPRODUCED if own.min >= 1 - CLOSE and own.max <= 1 + CLOSE else NOT_REPRODUCED,
        evidence=f"counted storage by storage, exact: parameters, buffers and the peak of a forward and backward pass,"
        f" less those of nn.Linear + SiLU. Per input and sample the recursion keeps {kept}"
        f" numbers for the backward pass, where Equation (2) has {printed} at its peak: autograd keeps every level."
        f" {verdict('ours', maps.spread('ours'))}",
        figures=PICTURES,
    )


def _parameters(maps: Maps) -> Finding:
    square = [row[place] for place, row in enumerate(maps.config.maps["size"])]
    ratios = [textbook_layer(sizes).parameters / linear_layer(sizes).parameters for sizes in square]
    widths, spline = maps.config.widths, (maps.config.grid, maps.config.spline_order)
    outcome = REPRODUCED if abs(ratios[-1] / 10 - 1) <= CLOSE else NOT_REPRODUCED
    return Finding(
        item="Section 3.1",
        claim='a KAN "with G = 5 and S = 3 has approximately 10 times more trainable parameters than an equivalent FC'
        ' layer" (section 3.1)',
        printed="approximately 10",
        measured=f"{format_number(ratios[-1])} times at I = O = {widths[-1]}, {format_number(ratios[0])} at"
        f" {widths[0]}",
        verdict=outcome if spline == PAPER_SPLINE else UNDECIDED,
        evidence=f"counted at G = {spline[0]}, S = {spline[1]}: I O (2 + G + S) over O (I + 1)"
        + ("" if spline == PAPER_SPLINE else ", not the paper's grid and order"),
    )


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
