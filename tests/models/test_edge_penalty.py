"""Sparsity of a field: a norm is the mean of its edge or bounds it, and the gradient is autograd's."""

import numpy as np
import pytest
import torch

from kansciml import UsageError
from kansciml.layers import regularisation
from kansciml.models.edge_penalty import edge_norms, edge_penalty
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

KAN = FieldSpec("kan", (3, 4, 2), grid=4, spline_order=2, grid_range=(-0.5, 2.0), inputs=1)
MLP = FieldSpec("mlp", (2, 5, 2))


def mean_of_edge(spec, params):
    x = np.linspace(*spec.grid_range, 20001)
    x = (x[1:] + x[:-1]) / 2
    with torch.no_grad():
        return float(VectorField(spec).load_flat(params)(None, torch.from_numpy(x)[:, None]).abs().mean())


@pytest.mark.parametrize("grid_range", [(-1.0, 1.0), (-0.5, 2.0), (0.5, 1.5)])
@pytest.mark.parametrize("order", [1, 3])
def test_a_norm_is_the_mean_of_one_branch_and_bounds_that_of_both(grid_range, order):
    spec = FieldSpec("kan", (1, 1), spline_order=order, grid_range=grid_range)
    rng = np.random.default_rng(0)
    base, splines, both = np.zeros((3, spec.n_parameters))
    base[0], base[-1] = -1.7, 1.0
    splines[1:-1], splines[-1] = rng.uniform(size=spec.basis_size), -0.6
    both[:] = rng.standard_normal(len(both))
    for params in (base, splines):
        assert edge_norms(spec, params)[0].item() == pytest.approx(mean_of_edge(spec, params), rel=1e-6)
    assert edge_norms(spec, both)[0].item() > mean_of_edge(spec, both)


def norms_in_torch(spec, params):
    """The norms by autograd, their means taken from edges of one parameter each."""
    one = FieldSpec("kan", (1, 1), grid=spec.grid, spline_order=spec.spline_order, grid_range=spec.grid_range)
    of_branch = [edge_norms(one, row + np.eye(len(row))[-1])[0].item() for row in np.eye(one.n_parameters)[:-1]]
    weights = torch.tensor(of_branch[1:], dtype=torch.float64)[:, None]
    parts = [params[b.offset : b.offset + b.size].view(b.shape) for b in spec.layout()]
    found = []
    for base, spline, scale in zip(parts[::3], parts[1::3], parts[2::3]):
        found.append(of_branch[0] * base.abs() + scale.abs() * (spline.abs() * weights).sum(1))
    return found


def test_the_gradient_of_both_penalties_is_autograds():
    params = KAN.initial_parameters(0) + 0.3 * np.random.default_rng(1).standard_normal(KAN.n_parameters)
    leaf = torch.tensor(params, requires_grad=True)
    norms = norms_in_torch(KAN, leaf)
    l1, entropy = (sum(map(of, norms)) for of in (regularisation.l1, regularisation.entropy))
    values, gradient = edge_penalty(KAN, params, 0.3, 0.7)
    np.testing.assert_allclose(values, [0.3 * l1.item(), 0.7 * entropy.item()], rtol=1e-12)
    np.testing.assert_allclose(gradient, torch.autograd.grad(0.3 * l1 + 0.7 * entropy, leaf)[0].numpy(), rtol=1e-9)


def test_an_mlp_pays_for_its_weights_alone():
    params = MLP.initial_parameters(0)
    values, gradient = edge_penalty(MLP, params, 2.0, 0.0)
    leaf = [torch.tensor(layer["weight"], requires_grad=True) for layer in MLP.unpack(params)]
    loss = 2.0 * sum(weight.abs().sum() for weight in leaf)
    assert values == (pytest.approx(loss.item(), rel=1e-12), 0.0)
    for layer, slope in zip(MLP.unpack(gradient), torch.autograd.grad(loss, leaf)):
        np.testing.assert_array_equal(layer["weight"], slope.numpy())
        assert not layer["bias"].any()
    with pytest.raises(UsageError, match="leave it at 0 for an MLP"):
        edge_penalty(MLP, params, 0.0, 1.0)


def test_a_field_that_is_zero_costs_nothing():
    values, gradient = edge_penalty(KAN, np.zeros(KAN.n_parameters), 1.0, 1.0)
    assert values == (0.0, 0.0) and not gradient.any()
