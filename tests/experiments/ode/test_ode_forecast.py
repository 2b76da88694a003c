"""The time that a training will take, from a few of its steps."""

import time

import numpy as np
import pytest

from kansciml.experiments.ode.forecast.steps import step_seconds, training_seconds, wall_seconds
from kansciml.training.flat import FlatTraining


def test_a_step_takes_at_least_what_its_loss_takes_and_slow_ones_are_tried_less():
    calls = []

    def slow(params, subset):
        calls.append(1)
        time.sleep(0.03)
        return float(np.sum(params**2)) + 1.0, 2 * params

    assert 0.03 <= step_seconds(slow, np.array([3.0, -1.0]), FlatTraining()) < 0.5
    assert 4 <= len(calls) <= 20


def test_the_time_of_trainings_by_hand():
    settings = FlatTraining(adam_steps=100, lbfgs_steps=1000)
    assert training_seconds([0.01, 0.02, 0.015], settings) == pytest.approx(100 * 0.01 + 1000 * 0.02)
    assert wall_seconds([4.0, 2.0, 2.0], 2) == 4.0 and wall_seconds([5.0, 1.0], 2) == 5.0
