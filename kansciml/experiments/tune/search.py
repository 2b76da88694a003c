"""Searches the settings of one model on one system by validation error, with Optuna's tree of Parzen estimators.

Trials come in rounds of `ROUND`, whatever the number of processes, so that the same seeds give the same trials on any
machine. Nothing of the search itself is stored: a resumed one repeats its rounds, whose trainings are read back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kansciml.experiments.tune.choice import Choice
from kansciml.experiments.tune.record import Trial
from kansciml.experiments.tune.space import optuna, space

ROUND = 4
"""Trials that are chosen together, before any of them is known."""
STARTUP = 8
"""Trials drawn at random before the estimators are fitted, the default settings among them."""
WORST = 6.0
"""log10 of the error that a trial that diverged, or has no field, counts with."""


class Search:
    """The trials of a model on a system, the default settings first.

    Args:
        system: its name. model: mlp or kan. seed: of the search.
    """

    def __init__(self, system: str, model: str, seed: int) -> None:
        library = optuna()
        self.system, self.model, self.values = system, model, space(model)
        sampler = library.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
        self.study = library.create_study(sampler=sampler)
        default = vars(Choice())
        self.study.enqueue_trial({name: default[name] for name in self.values})
        self.trials: list[Trial] = []

    def ask(self, count: int) -> list[Trial]:
        """The next trials, without errors."""
        self._asked = [self.study.ask(self.values) for _ in range(count)]
        return [Trial(self.system, self.model, one.number, Choice(**one.params)) for one in self._asked]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Those trials with their errors."""
        for one, trial in zip(self._asked, trials, strict=True):
            self.study.tell(one, min(math.log10(max(trial.score, 1e-300)), WORST))
        self.trials += trials
