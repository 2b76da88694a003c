"""The record of Figure 3: trained image classifiers, and the measured Hessians of the same models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from kansciml.analysis.hessian import Estimate
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.runs.tables import format_number


class Fig3Record(VisionRecord):
    """Trainings, and spectra of what they ended at; the name of a measured model is the id of its training."""

    @cached_property
    def hessian(self) -> HessianRecord:
        """What was measured.

        Raises:
            DamagedRecord: the record has none of it.
        """
        return HessianRecord.read(self.record)

    def measured(self, group: VisionGroup, name: str, digits: int = 4) -> str | None:
        """A measure's mean +- standard error over the seeds, or over the probes of one; None where there is none.

        The error includes what the quadrature leaves open.
        """
        ids = {row.id for row in group.rows}
        models = [one.sharpness.measures for one in self.hessian.models if one.name in ids]
        found: list[Estimate] = [measures[name] for measures in models if name in measures]
        if len(found) == 1:  # whose standard error includes that
            return with_error(found[0].value, found[0].standard_error, digits)
        open_ = float(np.mean([(one.upper - one.lower) / 2 for one in found])) if found else 0.0
        return plus_minus([one.value for one in found], digits, open_)


def plus_minus(values: Sequence[float], digits: int = 4, further: float = 0.0) -> str | None:
    """Mean +- its standard error over `values`, to which an error that all of them share is added."""
    if not values:
        return None
    error = math.hypot(float(np.std(values, ddof=1)) / math.sqrt(len(values)), further) if len(values) > 1 else math.nan
    return with_error(float(np.mean(values)), error, digits)


def with_error(value: float, error: float, digits: int) -> str:
    """``90.81 +- 0.12``; an error of nothing but rounding is left out."""
    shown = error > 1e-6 * abs(value)
    return format_number(value, digits) + (f" +- {format_number(error, 2)}" if shown else "")
