"""Record of a tuning: that of the neural ODEs trained at the end (`kansciml.experiments.ode.record`), and the trials.

``result["trials"]``: `Trial` rows, those of a system and model in their order. Variants of the runs are ``mlp`` and
``kan`` at their defaults, ``mlp-tuned`` and ``kan-tuned``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.experiments.tune.choice import Choice
from kansciml.runs.records import Record, reading
from kansciml.runs.typed import read

TUNED = "-tuned"
"""What the variants of tuned models end in."""


@dataclass(frozen=True)
class Trial:
    """One set of settings and how well models trained with it do on validation data.

    Args:
        number: from 0, the default settings. n_parameters: of the field; 0 if these settings give none.
        errors: relative mean squared error on the validation trajectories, one per seed; None: it diverged.
    """

    system: str
    model: str
    number: int
    choice: Choice
    label: str = ""
    n_parameters: int = 0
    errors: tuple[float | None, ...] = ()

    @property
    def score(self) -> float:
        """Geometric mean of the errors, which decides; infinite if a seed diverged or there is no such field."""
        if not self.errors or any(error is None for error in self.errors):
            return math.inf
        return math.exp(
            sum(math.log(max(error, 1e-300)) for error in self.errors if error is not None) / len(self.errors)
        )


@dataclass(frozen=True)
class Tuned:
    """The trials of one model on one system, and what was chosen: the default unless another one did better."""

    system: OdeSystem
    model: str
    trials: tuple[Trial, ...] = field(repr=False)

    @property
    def best(self) -> Trial:
        return best(self.trials)

    def group(self, tuned: bool) -> OdeGroup | None:
        """The trainings at the end with the chosen settings, or with the default ones, which may be those chosen."""
        variant = self.model + TUNED * (tuned and self.best.number > 0)
        return next((group for group in self.system.groups if group.variant == variant), None)


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the lowest score, the first of equal ones."""
    return min(trials, key=lambda trial: trial.score)


def read_tuned(record: Record) -> list[Tuned]:
    """What was tuned, by system and model.

    Raises:
        DamagedRecord: the record lacks what others have.
    """
    ode = OdeRecord.read(record)
    with reading(record):
        trials = [read(Trial, row) for row in record.result["trials"]]
    found = []
    for system in ode.systems:
        for model in dict.fromkeys(trial.model for trial in trials if trial.system == system.name):
            own = tuple(trial for trial in trials if (trial.system, trial.model) == (system.name, model))
            found.append(Tuned(system, model, own))
    return found
