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
from dataclasses import dataclass

import numpy as np

from kansciml._errors import UsageError
from kansciml.analysis.cost import Sizes, equation_1, equation_2
from kansciml.experiments.fig1.findings import findings
from kansciml.experiments.fig1.report import render, summary
from kansciml.runs.experiment import Experiment, Result, RunContext

ELEMENT_BYTES = 4
MEASURED = ("textbook", "ours")


@dataclass(frozen=True)
class Fig1Config:
    """Settings of Figure 1; the defaults are the preset ``paper``."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """Input and output sizes of the maps, ascending."""
    batches: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    """Batch sizes of the second map, ascending; its layers are square."""
    batch: int = 128
    """Batch size of the first map."""
    grid: int = 5
    """Grid intervals G of each spline."""
    spline_order: int = 3
    """Order S of each spline."""

    def __post_init__(self) -> None:
        for name, values in (("widths", self.widths), ("batches", self.batches)):
            if not values or list(values) != sorted(set(values)) or min(values) < 1:
                raise UsageError(f"got {name} {values}: expected ascending numbers of at least 1")
        if min(self.batch, self.grid, self.spline_order) < 1:
            raise UsageError(
                f"got batch {self.batch}, grid {self.grid}, spline_order {self.spline_order}: expected at least 1 each"
            )


def maps(config: Fig1Config) -> dict[str, list[list[Sizes]]]:
    """Sizes of every cell: ``size`` by input (rows) and output, ``batch`` by width (rows) and batch size."""
    spline = (config.grid, config.spline_order)
    return {
        "size": [[Sizes(i, o, config.batch, *spline) for o in config.widths] for i in config.widths],
        "batch": [[Sizes(width, width, b, *spline) for b in config.batches] for width in config.widths],
    }


def check(config: Fig1Config) -> None:
    """Refuse sizes at which Equation (2) is no number to compare with.

    Raises:
        UsageError: it is 0 or negative in a cell.
    """
    for rows in maps(config).values():
        for sizes in (sizes for row in rows for sizes in row):
            if equation_2(sizes) <= 0:
                raise UsageError(
                    f"got I = {sizes.inputs}, O = {sizes.outputs}, B = {sizes.batch}: Equation (2) is not positive "
                    "there; choose widths closer to one another, or a smaller batch"
                )


def measured_bytes(kind: str, sizes: Sizes) -> tuple[int, int]:
    """What one layer takes in float32: parameters, buffers and peak of a training step; and what it keeps for backward.

    Both in bytes; parameters and buffers are not in the second.

    Args:
        kind: ``linear``, ``textbook`` or ``ours``.
        sizes: of the layer and its input, which needs a gradient as behind another layer.
    """
    import torch
    from torch import nn

    from kansciml.analysis.memory import measure_fake, training_step
    from kansciml.layers.spline_kan import SplineKAN
    from kansciml.layers.textbook_kan import TextbookKAN

    i, o, options = sizes.inputs, sizes.outputs, {"grid": sizes.grid, "spline_order": sizes.spline_order}
    make: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Sequential(nn.Linear(i, o), nn.SiLU()),
        "textbook": lambda: TextbookKAN(i, o, **options),
        "ours": lambda: SplineKAN(i, o, **options, backend="torch"),
    }
    layers: list[nn.Module] = []

    def build() -> Callable[[], None]:
        layers.append(make[kind]())
        return training_step(layers[0], torch.empty(sizes.batch, i, requires_grad=True))

    use = measure_fake(build, buffers=lambda: layers[0].buffers())
    resident = sum(tensor.nbytes for tensor in (*layers[0].parameters(), *layers[0].buffers()))
    return resident + use.peak_bytes, use.saved_bytes


def run(config: Fig1Config, context: RunContext) -> Result:
    arrays, ratios = {}, {}
    plan = maps(config)
    cells = sum(len(row) for rows in plan.values() for row in rows)
    with context.progress.task("fig1: layers measured", cells) as task:
        for name, rows in plan.items():
            shape = (len(rows), len(rows[0]))
            found = {kind: np.zeros(shape, np.int64) for kind in ("equation_2", "corrected", *MEASURED)}
            for place in np.ndindex(shape):
                sizes = rows[place[0]][place[1]]
                found["equation_2"][place] = ELEMENT_BYTES * equation_2(sizes)
                found["corrected"][place] = ELEMENT_BYTES * equation_1(sizes, corrected=True).total
                linear = measured_bytes("linear", sizes)[0]
                for kind in MEASURED:
                    found[kind][place] = measured_bytes(kind, sizes)[0] - linear
                task.update(1)
            arrays |= {f"{name}.{kind}": values for kind, values in found.items()}
            for kind in MEASURED:
                ratios.setdefault(kind, []).append((found[kind] / found["equation_2"]).ravel())
    statistics = {
        kind: {"min": float(all_.min()), "median": float(np.median(all_)), "max": float(all_.max())}
        for kind, all_ in ((kind, np.concatenate(parts)) for kind, parts in ratios.items())
    }
    widest = plan["size"][-1][-1]
    kept = {kind: measured_bytes(kind, widest)[1] for kind in ("linear", *MEASURED)}
    per_input = {kind: size / ELEMENT_BYTES / (widest.inputs * widest.batch) for kind, size in kept.items()}
    return Result({"cells": cells, "ratio_to_equation_2": statistics, "kept_per_input": per_input}, arrays)


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
    run=run,
    render=render,
    summary=summary,
    check=check,
    findings=findings,
)
