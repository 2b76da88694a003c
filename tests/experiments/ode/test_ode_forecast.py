"""The time that a training will take, from a few of its steps."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kansciml.experiments.ode.forecast.steps import step_seconds, training_seconds, wall_seconds
from kansciml.experiments.ode.forecast.told import forecast
from kansciml.runs.registry import get_experiment
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


def test_it_tells_the_time_and_leaves_no_trace(tmp_path):
    experiment = get_experiment("ode")
    plan = experiment.check(experiment.preset("smoke"))
    plan = replace(plan, jobs=[replace(plan.jobs[0], backend="torch")])
    before = torch.get_rng_state()
    first, models, seconds = forecast(plan, SimpleNamespace(checkpoints=tmp_path))
    assert first.startswith("plan: 1 training on lotka by torch") and models == "models: MLP 2-50-2"
    assert seconds.startswith("time: about ")
    assert torch.equal(before, torch.get_rng_state()) and not [*tmp_path.iterdir()]
