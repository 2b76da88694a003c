"""Figure 1: extra memory of a KAN layer over a fully connected one, as the paper estimates it and as it is.

Command: ``kansciml run fig1 --preset small``.
Paper: heat maps of Equations (1) and (2), I [2 (G+S) B + (G+S+1) O - 1] - O B elements, against input and output size
and against batch size (section 3). Its caption gives no ranges: these are ours.
Beside them the same maps are measured: parameters, buffers and the peak of one forward and backward pass of a layer,
less those of ``nn.Linear`` + SiLU, for the recursion the equations are about (`TextbookKAN`) and for `SplineKAN`.
The peaks are counted storage by storage on fake tensors, so no map needs the memory that it shows.
Expected: the textbook layer takes 3 to 7 times Equation (2), most at large batches (measured independently
for its source: 6.0 to 9.6 times). Cost: seconds for ``smoke``, under a minute for ``small`` and ``paper``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from kansciml._errors import UsageError
from kansciml.analysis.cost import Sizes, equation_1, equation_2
from kansciml.analysis.memory import measure_fake, training_step
from kansciml.experiments.fig1.findings import findings
from kansciml.experiments.fig1.record import ELEMENT_BYTES, EQUATIONS, MEASURED, Fig1Config, Maps
from kansciml.experiments.fig1.report import render, summary
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.runs.experiment import Experiment, Result, RunContext

LAYERS: dict[str, Callable[[Sizes], nn.Module]] = {
    "linear": lambda sizes: nn.Sequential(nn.Linear(sizes.inputs, sizes.outputs), nn.SiLU()),
    "textbook": lambda sizes: TextbookKAN(sizes.inputs, sizes.outputs, sizes.grid, sizes.spline_order),
    "ours": lambda sizes: SplineKAN(sizes.inputs, sizes.outputs, sizes.grid, sizes.spline_order, backend="torch"),
}


def check(config: Fig1Config) -> None:
    """Refuses sizes at which Equation (2) is no number to compare with.

    Raises:
        UsageError: it is 0 or negative in a cell.
    """
    for sizes in (sizes for rows in config.maps.values() for row in rows for sizes in row):
        if equation_2(sizes) <= 0:
            raise UsageError(
                f"got I = {sizes.inputs}, O = {sizes.outputs}, B = {sizes.batch}: Equation (2) is not positive "
                "there; choose widths closer to one another, or a smaller batch"
            )


def measured_bytes(name: str, sizes: Sizes) -> tuple[int, int]:
    """Bytes of one of `LAYERS` in float32: parameters, buffers and peak of a training step; those kept for backward.

    The input needs a gradient, as behind another layer.
    """
    layers: list[nn.Module] = []

    def build() -> Callable[[], None]:
        layers.append(LAYERS[name](sizes))
        return training_step(layers[0], torch.empty(sizes.batch, sizes.inputs, requires_grad=True))

    use = measure_fake(build, buffers=lambda: layers[0].buffers())
    resident = sum(tensor.nbytes for tensor in (*layers[0].parameters(), *layers[0].buffers()))
    return resident + use.peak_bytes, use.saved_bytes


def extra_bytes(kind: str, sizes: Sizes) -> int:
    """What a KAN layer takes more than a fully connected one, by an equation of `EQUATIONS` or measured."""
    if kind in EQUATIONS:
        return ELEMENT_BYTES * (equation_2(sizes) if kind == "equation_2" else equation_1(sizes, corrected=True).total)
    return measured_bytes(kind, sizes)[0] - measured_bytes("linear", sizes)[0]


def run(config: Fig1Config, context: RunContext) -> Result:
    maps = config.maps
    cells = sum(len(row) for rows in maps.values() for row in rows)
    found: dict[str, dict[str, np.ndarray]] = {}
    with context.progress.task("fig1: layers measured", cells) as task:
        for name, rows in maps.items():
            found[name] = {kind: np.zeros((len(rows), len(rows[0])), np.int64) for kind in (*EQUATIONS, *MEASURED)}
            for i, j in np.ndindex(len(rows), len(rows[0])):
                for kind, values in found[name].items():
                    values[i, j] = extra_bytes(kind, rows[i][j])
                task.update(1)
    widest = maps["size"][-1][-1]
    per_input = ELEMENT_BYTES * widest.inputs * widest.batch
    return Maps(config, found, {name: measured_bytes(name, widest)[1] / per_input for name in LAYERS}).result()


EXPERIMENT = Experiment(
    name="fig1",
    title="Extra memory of a KAN layer: the paper's equations, and measured",
    item="Figure 1",
    config=Fig1Config,
    presets={
        "smoke": Fig1Config(widths=(8, 32), batches=(8, 64)),
        "small": Fig1Config(widths=(16, 32, 64, 128, 256), batches=(16, 64, 256, 1024)),
        "paper": Fig1Config(),
    },
    costs={"small": "a minute"},
    run=run,
    render=render,
    summary=summary,
    check=check,
    findings=findings,
    order=1,
    captions={
        "extra_memory": "Extra memory of a KAN layer over a fully connected one: Equation (2), and measured for the"
        " textbook recursion and for SplineKAN. Above: input and output size; below: width and batch size."
    },
)
