"""Curves of memory against batch size as a record of Figure 4 holds them.

``result["titles"]``: title of every model's panel; ``result["curves"]``: a `Curve` each, without its points, which are
the arrays ``<model>.<variant>.batch``, ``.peak`` and ``.total``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kansciml.runs.experiment import Result
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.typed import read, write

MB, GB = 10**6, 10**9
EXPERIMENTS = ("fig4a", "fig4b")
BASELINE, TEXTBOOK = "mlp", "textbook"
"""The second is the recursion of the paper's sources; other variants are those of `kansciml.models`."""
POINTS = ("batch", "peak", "total")
ACTIVATIONS = 0.95
"""Least share of what is kept per sample, the input among it, that the slope must have where activations dominate."""
HIGHER, MUCH_HIGHER = 1.05, 2.0
"""Ratios to the MLPs' memory per sample from which it counts as higher, and significantly higher."""
SIGNIFICANT, SLIGHT, NOT_HIGHER, TOO_SMALL = (
    "significantly higher",
    "higher, but not by much",
    "not higher",
    "too small",
)
"""What `Curve.rating` says."""


@dataclass(frozen=True)
class Reference:
    """What is known of a curve from elsewhere: MB per sample, and the batch at which 16 GB are full."""

    mb_per_sample: float | None = None
    full_batch: int | None = None


def _points() -> Any:
    return field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)


@dataclass(frozen=True)
class Curve:
    """Memory of a training step of one model in one variant against batch size.

    Args:
        parameters: number of learnable ones. resident_bytes: of parameters and buffers. optimiser_bytes: of AdamW's
            moments. input_bytes: per sample. kept_bytes: for the backward pass, per sample.
        slope_bytes, intercept_bytes: line through the peaks from an eighth of the largest batch size on.
        off_line_bytes: farthest of those peaks from it.
        full_batch: largest batch size within the limit.
        batch, peak, total: batch sizes, bytes of the step alone, and with all that is resident, (n,) each.
    """

    model: str
    variant: str
    parameters: int
    resident_bytes: int
    optimiser_bytes: int
    input_bytes: int
    kept_bytes: float
    slope_bytes: float
    intercept_bytes: float
    off_line_bytes: float
    full_batch: int
    reference: Reference
    batch: np.ndarray = _points()
    peak: np.ndarray = _points()
    total: np.ndarray = _points()

    @property
    def mb_per_sample(self) -> float:
        return self.slope_bytes / MB

    @property
    def too_small(self) -> bool:
        """Whether the slope is not yet that of the activations, all of which are there when backward begins."""
        return self.slope_bytes + self.input_bytes < ACTIVATIONS * self.kept_bytes

    @property
    def gigabytes(self) -> dict[int, float]:
        """Batch size -> GB in all."""
        return {int(batch): float(total) / GB for batch, total in zip(self.batch, self.total)}

    def over(self, base: Curve) -> float:
        """Memory per sample over that of `base`."""
        return self.slope_bytes / base.slope_bytes

    def rating(self, base: Curve) -> str:
        """How the memory per sample stands to the MLPs': `SIGNIFICANT`, `SLIGHT`, `NOT_HIGHER` or `TOO_SMALL`."""
        if self.too_small or base.too_small:
            return TOO_SMALL
        return SIGNIFICANT if self.over(base) >= MUCH_HIGHER else SLIGHT if self.over(base) > HIGHER else NOT_HIGHER

    def above_up_to(self, base: Curve) -> int | None:
        """Largest batch size, of those measured for both, at which this takes more memory in all than `base`."""
        own, other = self.gigabytes, base.gigabytes
        return max((batch for batch in own if batch in other and own[batch] > other[batch]), default=None)


@dataclass(frozen=True)
class MemoryRecord:
    """The curves of a finished run.

    Args:
        titles: model -> title of its panel.
        whole_sizes: model -> points along a side, of whole operators that keep all activations.
    """

    experiment: str
    limit_gb: float
    precision: str
    device: str
    titles: dict[str, str]
    curves: tuple[Curve, ...]
    whole_sizes: dict[str, int]

    @classmethod
    def read(cls, record: Record) -> MemoryRecord:
        """Raises KansciError where the record holds no finished run of figure 4."""
        config, curves = record.config, [read(Curve, row) for row in record.result.get("curves", ())]
        names = [f"{curve.model}.{curve.variant}.{key}" for curve in curves for key in POINTS]
        if record.experiment not in EXPERIMENTS or not curves or not set(names) <= set(record.arrays):
            raise DamagedRecord(f"{record.folder} holds no finished run of figure 4: kansciml run fig4a makes one")
        points = [[record.arrays[f"{curve.model}.{curve.variant}.{key}"] for key in POINTS] for curve in curves]
        return cls(
            experiment=record.experiment,
            limit_gb=config["limit_gb"],
            precision=config["precision"],
            device=config["device"],
            titles=record.result["titles"],
            curves=tuple(replace(one, batch=b, peak=p, total=t) for one, (b, p, t) in zip(curves, points)),
            whole_sizes={operator_name("whole", size): size for size in config.get("resolutions", ())},
        )

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(curve.variant for curve in self.curves))

    def of(self, model: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.model == model]

    def baseline(self, model: str) -> Curve | None:
        """The curve of a model's MLPs; None where they were not measured."""
        return next((curve for curve in self.of(model) if curve.variant == BASELINE), None)

    def pairs(self, variant: str) -> list[tuple[Curve, Curve]]:
        """Curves of a variant, each with its MLPs', where there are some."""
        found = [(curve, self.baseline(curve.model)) for curve in self.curves if curve.variant == variant]
        return [(curve, base) for curve, base in found if base is not None]


def operator_name(part: str, resolution: int) -> str:
    """Name of what is measured of an operator at a resolution."""
    return f"{part}-{resolution}"


def result_of(titles: dict[str, str], curves: Sequence[Curve]) -> Result:
    """What `MemoryRecord.read` reads."""
    arrays = {f"{c.model}.{c.variant}.{key}": getattr(c, key) for c in curves for key in POINTS}
    return Result({"titles": titles, "curves": [row_of(curve) for curve in curves]}, arrays)


def row_of(curve: Curve) -> dict[str, Any]:
    """A curve in JSON types, without its points."""
    return {name: value for name, value in write(curve).items() if name not in POINTS}
