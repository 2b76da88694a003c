"""Sizes of networks on functions: counted against the networks themselves, and the widest within a budget."""

import pytest

from kansciml import UsageError
from kansciml.analysis.regressor_sizes import regressor_size, widest
from kansciml.models.regressors.regressor import MODELS, Regressor


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("widths", [(2, 5, 1), (3, 4, 4, 1)])
def test_parameters_are_those_of_the_network(model, widths):
    network = Regressor(model, widths, grid=6, spline_order=2).build(0)
    assert regressor_size(model, widths, "params", 6, 2) == sum(p.numel() for p in network.parameters())


def test_flops_of_spline_activations_are_those_of_the_linear_layers_and_of_each_spline():
    # 2 (2 * 3 + 3) + 3 + 1 of the linear layers' multiply-adds and biases; each of 3 units: SiLU 5, splines, products
    basis = 8 * (3 + 2 * 6)
    assert regressor_size("spline-mlp", (2, 3, 1), "flops") == 2 * 9 + 4 + 3 * (5 + basis + 2 * 9)
    assert regressor_size("mlp", (2, 3, 1), "flops") == 2 * 9 + 4 + 3 * 5


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("by", ["params", "flops"])
def test_the_widest_network_fits_and_a_wider_one_does_not(model, by):
    for limit in (700, 1234, 20_000):
        widths = widest(2, 2, lambda widths: regressor_size(model, widths, by), limit)
        wider = (2, widths[1] + 1, widths[1] + 1, 1)
        assert regressor_size(model, widths, by) <= limit < regressor_size(model, wider, by)


def test_a_budget_too_small_for_any_network_is_refused():
    with pytest.raises(UsageError, match="no network of 6 inputs has at most 50 parameters: the smallest .* has 70"):
        widest(6, 1, lambda widths: regressor_size("kan", widths, "params"), 50)
