"""The twice differentiable loss of several series: the solver's loss and gradient, and the Hessian of its recursion."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kansciml import UsageError
from kansciml.backends import trajectory_loss
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.torch import ModuleField, TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs


def series(k, inputs=None):
    rng = np.random.default_rng(k)
    t = np.sort(rng.uniform(0.0, 2.0, 4 + k))
    data = rng.normal(size=(len(t), 2))
    data[1, 0] = data[2] = np.nan
    return Series(rng.normal(size=2), t, data, 0.0, weights=rng.uniform(size=data.shape), inputs=inputs)


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).detach().numpy()


def derivatives(problem, params):
    """Loss, gradient, and the Hessian's product with a vector."""
    module, loss, batch = trajectory_loss.trajectory_loss(problem, params)
    parameters = list(module.parameters())
    value = loss(module, batch)
    gradient = torch.autograd.grad(value, parameters, create_graph=True)
    vectors = [torch.cos(torch.arange(g.numel(), dtype=torch.float64)).view_as(g) for g in gradient]
    product = torch.autograd.grad(sum((g * v).sum() for g, v in zip(gradient, vectors)), parameters)
    for p, g in zip(parameters, gradient):
        p.grad = g.detach()
    return value.item(), module.to_flat(gradient=True), flat(product)


@pytest.mark.parametrize("kind", ["linear", "held"])
def test_value_and_gradient_are_the_solvers_and_the_hessian_that_of_the_recursion(kind, monkeypatch):
    spec = FieldSpec("kan", (4, 2, 2), inputs=1, time=True, scale=(2.0,) * 4)
    knots = np.array([0.0, 0.4, 1.0, 2.0])
    parts = [series(k, Inputs(knots, np.random.default_rng(k).normal(size=(4, 1)), kind)) for k in range(2)]
    problem = OdeProblem(spec, tuple(parts), np.array([0.5, 2.0]), 1e-5, 1e-5)
    params = 4 * spec.initial_parameters(0)
    value, gradient, product = derivatives(problem, params)
    expected = TorchOdeSolver(problem).value_and_grad(params)
    assert value == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-11 * np.abs(gradient).max())
    monkeypatch.setattr(trajectory_loss, "NEWTON", 6)  # more iterations than the recursion needs to be fitted anywhere
    np.testing.assert_allclose(product, derivatives(problem, params)[2], rtol=1e-9, atol=1e-10 * np.abs(product).max())


def test_the_loss_of_several_series_is_the_weighted_mean_of_theirs():
    spec = FieldSpec("mlp", (2, 4, 2))
    parts = [series(k) for k in range(3)]
    problem = OdeProblem(spec, tuple(parts), rtol=1e-6, atol=1e-6)
    params = 3 * spec.initial_parameters(1)
    share = np.array([np.sum(one.weights * ~np.isnan(one.data)) for one in parts])
    alone = [derivatives(replace(problem, series=(one,)), params) for one in parts]
    for found, *expected in zip(derivatives(problem, params), *alone):
        mean = sum(w * x for w, x in zip(share / share.sum(), expected))
        np.testing.assert_allclose(found, mean, rtol=1e-8, atol=1e-9 * np.abs(mean).max())


def test_what_it_does_not_do_is_one_line():
    spec = FieldSpec("mlp", (2, 4, 2))
    problem, params = OdeProblem(spec, (series(0),)), spec.initial_parameters(0)
    with pytest.raises(UsageError, match=r"got solver 8: expected 5 \(dopri5\)"):
        trajectory_loss.trajectory_loss(replace(problem, solver="8"), params)
    with pytest.raises(UsageError, match="got learned initial states: expected given ones"):
        trajectory_loss.trajectory_loss(replace(problem, series=(replace(series(0), learned=True),)), params)
    with pytest.raises(UsageError, match="expected a built-in MLP or KAN"):
        trajectory_loss.trajectory_loss(replace(problem, field=ModuleField(torch.nn.Identity(), 2)), params)
