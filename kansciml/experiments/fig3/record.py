"""The record of Figure 3: trainings, and the spectra of what they ended at."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from kansciml.analysis.hessian import Sharpness
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.reporting.groups import mean_error
from kansciml.runs.tables import format_number

LAST, FALL = 0.2, 0.01
"""A training has flattened if its least loss fell by less than 1 % over the last fifth of its epochs."""


class Fig3Record(VisionRecord):
    """Trainings, and spectra of what they ended at; the name of a measured model is the id of its training."""

    @cached_property
    def hessian(self) -> HessianRecord:
        """What was measured. Raises DamagedRecord: the record has none of it."""
        return HessianRecord.read(self.record)

    def measured(self, group: VisionGroup, name: str, digits: int = 4) -> str | None:
        """A measure's mean +- standard error over the seeds, or over the probes of one; None where there is none.

        The error includes what the quadrature leaves open; one of nothing but rounding is left out.
        """
        ids = {row.id for row in group.rows}
        models = [one.sharpness.measures for one in self.hessian.models if one.name in ids]
        found = [measures[name] for measures in models if name in measures]
        if not found:
            return None
        value, error = mean_error([one.value for one in found])
        error = math.hypot(error, float(np.mean([one.upper - one.lower for one in found])) / 2)
        if len(found) == 1:  # whose standard error includes that
            error = found[0].standard_error
        return format_number(value, digits) + (f" +- {format_number(error, 2)}" if error > 1e-6 * abs(value) else "")

    @cached_property
    def exact(self) -> bool:
        """Whether all eigenvalues of all models are known."""
        return all(one.sharpness.exact and "positive_exact" in one.sharpness.measures for one in self.hessian.models)

    def sharpness(self, group: VisionGroup) -> dict[int, Sharpness]:
        """By seed, what was measured of a group."""
        ids = {row.id for row in group.rows}
        return {one.seed: one.sharpness for one in self.hessian.models if one.name in ids}

    def flattened(self, group: VisionGroup) -> float:
        """Share of a group's trainings that have flattened: others do not tell where they would end."""
        found = []
        for row in group.rows:
            loss = np.asarray(self.record.arrays[f"{row.id}.loss"], dtype=np.float64)
            before = loss[: max(1, len(loss) - max(1, round(LAST * len(loss))))]
            found.append(not row.diverged and bool(loss.min() > (1 - FALL) * before.min()))
        return float(np.mean(found))

    def title(self, task: str, sized: bool = True) -> str:
        """As elsewhere, with the size of the batches where there are several."""
        several = len({group.first.batch_size for group in self.groups}) > 1
        return super().title(task, sized) + (f", batches of {self.of(task)[0].first.batch_size}" if several else "")
