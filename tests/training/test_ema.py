"""The moving average: its recursion, what it covers, and that a model gets its own weights back."""

import numpy as np
import pytest
import torch
from torch import nn

from kansciml.training.ema import Ema, entries


def test_the_recursion_in_numbers():
    model = nn.Linear(1, 1, bias=False).double()
    average = Ema(model, 0.5)
    expected = float(model.weight.detach())
    for step, value in enumerate(np.linspace(-1, 3, 20), start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.weights["weight"]) == pytest.approx(expected, rel=1e-14)
    assert (1 + 8) / (10 + 8) == 0.5  # from step 9 / (1 - decay) - 10 on the decay is the plain one


def test_constant_weights_are_their_own_average():
    model = nn.Linear(4, 3).double()
    average = Ema(model, 0.999)
    for step in range(1, 50):
        average.update(step)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(average.weights[name], value, rtol=1e-15, atol=0)


def test_counters_are_copied_and_running_statistics_averaged():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=1.0))
    average = Ema(model, 0.9)
    model(torch.full((2, 3), 11.0))
    average.update(1)
    assert int(average.weights["0.num_batches_tracked"]) == 1
    torch.testing.assert_close(average.weights["0.running_mean"], torch.full((3,), 11.0 * 9 / 11))


def test_complex_weights_are_averaged():
    model = nn.ParameterList([torch.zeros(3, dtype=torch.complex128)])
    average = Ema(model, 0.9)
    with torch.no_grad():
        model[0].fill_(2.0 + 4.0j)
    average.update(1)
    torch.testing.assert_close(average.weights["0"], torch.full((3,), (2 + 4j) * 9 / 11, dtype=torch.complex128))


def test_the_model_gets_its_own_weights_back_also_after_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = Ema(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1).add_(1)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="within"):
        with average.applied():
            for name, value in model.state_dict().items():
                assert torch.equal(value, average.weights[name])
            raise RuntimeError("within")
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name]), name


def test_a_tied_weight_counts_once():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    assert len(entries(model)) == 2
    model[1].weight = model[0].weight
    assert list(entries(model)) == ["0.weight"]


def test_a_buffer_that_is_replaced_is_still_followed():
    model = nn.Module()
    model.register_buffer("level", torch.zeros(2))
    average = Ema(model, 0.9)
    model.level = torch.ones(2)
    average.update(1)
    torch.testing.assert_close(average.weights["level"], torch.full((2,), 9 / 11))
