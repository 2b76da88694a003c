"""The record of Figure 3: trained image classifiers, and the measured Hessians of the same models."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.reporting.groups import mean_error
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
