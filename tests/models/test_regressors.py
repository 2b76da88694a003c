"""Networks on functions: splines as activations against the KAN layer and finite differences, first weights, labels."""

import pytest
import torch
from torch.func import functional_call

from kansciml import UsageError
from kansciml.layers.spline_kan import SplineKAN
from kansciml.models.regressors.regressor import MODELS, Regressor
from kansciml.models.regressors.spline_units import SplineUnits


def test_spline_units_are_activations_before_a_linear_layer():
    units = SplineUnits(3, 2, grid=4)
    units.reset_parameters(torch.Generator().manual_seed(0))
    z = torch.linspace(-1.5, 1.5, 60, dtype=torch.float64).reshape(20, 3)
    layer = SplineKAN(3, 1, 4, dtype=torch.float64)
    phi = torch.nn.functional.silu(z) + (layer.basis(z) * units.splines.squeeze(-1)).sum(-1)
    torch.testing.assert_close(units(z), phi @ units.weight + units.bias, rtol=1e-12, atol=1e-12)


def test_gradients_of_spline_units_are_those_of_finite_differences():
    network = Regressor("spline-mlp", (2, 3, 2, 1), grid=3).build(1)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    names, values = zip(*((name, value.detach().requires_grad_()) for name, value in network.named_parameters()))
    assert torch.autograd.gradcheck(
        lambda *own: functional_call(network, dict(zip(names, own)), (x,)), values, eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("model", MODELS)
def test_networks_follow_from_their_seed_in_float64_and_every_parameter_has_a_gradient(model):
    state = torch.random.get_rng_state()
    first, again, other = (Regressor(model, (2, 4, 1)).build(seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    x = torch.rand(30, 2, dtype=torch.float64) * 2 - 1
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))
    assert first(x).shape == (30, 1) and first(x).dtype == torch.float64
    first(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in first.parameters())


def test_labels_name_widths_and_grid():
    assert Regressor("mlp", (2, 5, 1)).label == "MLP 2-5-1"
    assert Regressor("spline-mlp", (2, 5, 1), grid=7).label == "spline MLP 2-5-1, G = 7"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "cnn"}, "unknown model 'cnn'"),
        ({"activation": "sin"}, "unknown activation 'sin'"),
        ({"widths": (2,)}, "expected two or more"),
        ({"grid": 0}, "grid 0"),
    ],
)
def test_what_is_no_network_is_refused(change, words):
    with pytest.raises(UsageError, match=words):
        Regressor(**{"model": "kan", "widths": (2, 1), **change})
