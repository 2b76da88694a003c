"""How trained models are loaded to be measured."""

from __future__ import annotations

import pytest
import torch

from kansciml.experiments.hessian.measure import HessianSettings, load
from kansciml.runs.trained import LoadedModel, TrainedModel


@pytest.mark.parametrize("width, threads", [(8, 1), (300, None)])
def test_hessians_of_small_models_are_measured_with_one_thread(width, threads):
    module = torch.nn.Linear(width, width)
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    made = LoadedModel(module, lambda net, batch: net(batch).square().mean(), x)
    loaded, operator = load(TrainedModel("one", "One", "mlp", 0, lambda: made), HessianSettings())
    assert loaded.threads == threads and operator.size == width * (width + 1)
