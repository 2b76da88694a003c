"""Settings and maps of Figure 1, as a record holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kansciml._errors import UsageError
from kansciml.analysis.cost import Sizes
from kansciml.runs.experiment import Result
from kansciml.runs.records import Record, reading
from kansciml.runs.typed import read, write

ELEMENT_BYTES = 4
"""Of float32, in which the maps are counted."""
MEASURED = {"textbook": "textbook recursion", "ours": "SplineKAN"}
"""The KAN layers that are measured."""
MAPS = ("size", "batch")
"""By input and output size, and by width and batch size."""
EQUATIONS = ("equation_2", "corrected")
"""Equation (2) as printed, and the corrected Equation (1)."""


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

    @property
    def maps(self) -> dict[str, list[list[Sizes]]]:
        """Sizes of every cell: ``size`` by input (rows) and output, ``batch`` by width (rows) and batch size."""
        spline = (self.grid, self.spline_order)
        return {
            "size": [[Sizes(i, o, self.batch, *spline) for o in self.widths] for i in self.widths],
            "batch": [[Sizes(width, width, b, *spline) for b in self.batches] for width in self.widths],
        }


@dataclass(frozen=True)
class Spread:
    """Measured extra memory over Equation (2): lowest, median and highest."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, ratios: np.ndarray) -> Spread:
        return cls(float(ratios.min()), float(np.median(ratios)), float(ratios.max()))


@dataclass(frozen=True)
class Maps:
    """Extra memory of a KAN layer over a fully connected one.

    Args:
        bytes: map (``size``, ``batch``) -> one of `EQUATIONS` or `MEASURED` -> bytes of every cell.
        kept: layer, of `MEASURED` or ``linear`` -> numbers it keeps for the backward pass per input and sample, at the
            largest width and the batch size of the first map.
    """

    config: Fig1Config
    bytes: Mapping[str, Mapping[str, np.ndarray]]
    kept: Mapping[str, float]

    @classmethod
    def read(cls, record: Record) -> Maps:
        """Raises KansciError where the record holds no finished run of fig1."""
        kinds = (*EQUATIONS, *MEASURED)
        with reading(record):
            found = {name: {kind: record.arrays[f"{name}.{kind}"] for kind in kinds} for name in MAPS}
            return cls(read(Fig1Config, record.config), found, record.result["kept_per_input"])

    def result(self) -> Result:
        """What `read` reads."""
        arrays = {f"{name}.{kind}": values for name, own in self.bytes.items() for kind, values in own.items()}
        spreads = {kind: write(self.spread(kind)) for kind in MEASURED}
        return Result({"cells": self.cells, "ratio_to_equation_2": spreads, "kept_per_input": self.kept}, arrays)

    @property
    def cells(self) -> int:
        return sum(own["equation_2"].size for own in self.bytes.values())

    def ratios(self, name: str, kind: str, reference: str = "equation_2") -> np.ndarray:
        """Bytes of every cell of a map over those of `reference`."""
        return self.bytes[name][kind] / self.bytes[name][reference]

    def spread(self, kind: str) -> Spread:
        """Over both maps."""
        return Spread.of(np.concatenate([self.ratios(name, kind).ravel() for name in MAPS]))

    @property
    def misprint(self) -> float:
        """Largest relative difference that the misprint in Equation (1) makes to its total."""
        return max(float(np.abs(self.ratios(name, "equation_2", "corrected") - 1).max()) for name in MAPS)
