"""``kansciml cost --in 64 --out 64 --batch 128``: what one KAN layer costs, by the paper's equations and in truth.

``kansciml cost --model deit-tiny``: what a whole vision model costs (`kansciml.commands._model_cost`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "parameters, operations and memory of a KAN layer, by the paper and in truth; --model: of a vision model"
EXAMPLES = (
    "kansciml cost --in 64 --out 64 --batch 128  # one layer, by the paper's equations and in truth",
    "kansciml cost --model deit-tiny --variant kan-spline  # a whole vision model",
)
FIGURES = (
    ("parameters", "parameters"),
    ("FLOPs, forward", "forward_flops"),
    ("FLOPs, backward", "backward_flops"),
    ("kept for backward [elements]", "saved"),
    ("peak, forward [elements]", "forward_peak"),
    ("peak, forward + backward [elements]", "step_peak"),
    ("parameters + peak [elements]", "footprint"),
)
NOTES = (
    "FC: fully connected layer with bias, then SiLU. Eq. (1), (2): Pal & Das 2024, section 3.2; they give only extras.",
    "Eq. (1) prints I (O + 1) for the parameters of an FC layer; it has O (I + 1). Without effect where I = O.",
    "textbook: Cox-de Boor recursion on whole tensors, as the paper's sources compute it; autograd keeps each level.",
    "ours: SplineKAN (backend torch, CPU) keeps its input and rebuilds the splines in blocks; peaks: at most.",
    "RSWAF: 8 frozen grid points, LayerNorm (from 3 inputs on), no base branch, no bias; grid and order play no part.",
    "In plain autograd operations: RSWAFKAN does the same and keeps its input alone, as SplineKAN does.",
    "An element is one number: 4 bytes in float32. Peaks leave out the input, optimiser state and other layers.",
    "extra elements: (parameters + buffers + peak) beyond those of the FC layer.",
)


def _arguments() -> type:
    """The flags. Made when called: ``in`` is a keyword of Python, so tyro, slow to import, has to rename the field."""
    import tyro

    flags = (
        ("in", "inputs", 64, "Input features I."),
        ("out", "outputs", 64, "Output features O."),
        ("batch", "batch", 128, "Samples B."),
        ("grid", "grid", 5, "Grid intervals G."),
        ("order", "spline_order", 3, "Spline order S, at least 1."),
    )
    fields = [
        (name, Annotated[int, tyro.conf.arg(name=flag, help=text)], dataclasses.field(default=value))
        for flag, name, value, text in flags
    ]
    made = dataclasses.make_dataclass("Arguments", fields, bases=(JsonFlag,), frozen=True)
    made.__doc__ = "Cost of one layer. Of a whole vision model: kansciml cost --model deit-tiny (--help for its flags)."
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    if any(argument.partition("=")[0] == "--model" for argument in arguments):
        from kansciml.commands import _model_cost

        return _model_cost.main(arguments, out)
    from kansciml.analysis import cost
    from kansciml.runs.tables import Table

    options: Any = parse(_arguments(), arguments, "cost")
    sizes = cost.Sizes(options.inputs, options.outputs, options.batch, options.grid, options.spline_order)
    linear = cost.linear_layer(sizes)
    layers = {
        "textbook": cost.textbook_layer(sizes),
        "ours": cost.spline_layer(sizes),
        "RSWAF": cost.rswaf_layer(sizes, sizes.inputs >= cost.RSWAF_NORMALISED),
    }
    equations = {"printed": cost.equation_1(sizes), "corrected": cost.equation_1(sizes, corrected=True)}
    rows = [
        [label, getattr(linear, name), None, None, *(getattr(layer, name) for layer in layers.values())]
        for label, name in FIGURES
    ]
    printed, corrected = equations.values()
    extras = {name: layer.footprint - linear.footprint for name, layer in layers.items()}
    rows.append(
        ["extra parameters", 0, printed.parameters, corrected.parameters]
        + [layer.parameters - linear.parameters for layer in layers.values()]
    )
    rows.append(["extra elements", 0, printed.total, corrected.total, *extras.values()])
    rows.append(
        ["extra over Eq. (1) corrected", None, printed.total / corrected.total, 1.0]
        + [extra / corrected.total for extra in extras.values()]
        if corrected.total > 0
        else ["extra over Eq. (1) corrected", *[None] * 6]
    )
    columns = ["quantity", "FC", "Eq. (1) printed", "Eq. (1) corrected", *layers]
    document = {
        "sizes": asdict(sizes),
        "layers": {
            name: {**asdict(layer), "footprint": layer.footprint} for name, layer in {"FC": linear, **layers}.items()
        },
        "equation_1": {name: {**asdict(terms), "total": terms.total} for name, terms in equations.items()},
        "equation_2": cost.equation_2(sizes),
        "extra_elements": extras,
        "notes": list(NOTES),
    }
    i, o, b = sizes.inputs, sizes.outputs, sizes.batch
    title = f"One layer: I = {i}, O = {o}, B = {b}, G = {sizes.grid}, S = {sizes.spline_order}"
    out.result(document, [Table(title, columns, rows, NOTES)])
    return 0
