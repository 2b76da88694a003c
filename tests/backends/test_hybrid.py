"""Fields of known terms and a network: values, derivatives, units, solvers."""

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import SolveError, UsageError
from kansciml.backends._hybrid import HybridKernel
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.torch import ModuleField, TorchBackend
from kansciml.models.fields import VectorField
from kansciml.models.hybrid_spec import HybridSpec, NetworkSpec, Physics
from kansciml.models.inputs import Inputs
from kansciml.models.units import Units

UNITS = Units(np.array([0.1, 0.2]), np.array([2.0, 0.5]), 1.0, 3.0)
T = np.linspace(0.0, 1.0, 9)


def everything(t, u, w, network, p):
    """Each operation, the network twice, once on its own output, and inputs."""
    x, y = u[..., 0], u[..., 1]
    first = network(np.stack([x, y, t], axis=-1))
    second = network(np.stack([y, first[..., 0], x * p["b"]], axis=-1))
    one = p["a"] * x**2 - first[..., 0] * np.sin(t * x) + second[..., 1] + w[..., 0] * x
    two = np.exp(-y * y) / (1 + np.abs(x)) + first[..., 1] * 2**y + np.tanh(x) - np.arctan(y)
    three = np.log(3 + y) * np.sqrt(x * x + 1) + p["c"] * np.cos(x) + np.tan(y / 3) - p["b"] ** x
    return np.stack([one, two + three], axis=-1)


def field_of(physics, model="kan", inputs=0, hidden=3):
    equations = physics.equations(2, inputs)
    network = NetworkSpec(model, (len(equations.calls[0]), hidden, physics.outputs))
    return HybridSpec(network, equations, physics.sought(), inputs)


EVERYTHING = Physics(
    everything, outputs=2, parameters={"a": 1.3, "b": 2.0, "c": 0.5}, bounds={"b": (0, np.inf), "c": (0, 1)}
)


@pytest.mark.parametrize("model", ["mlp", "kan"])
@pytest.mark.parametrize("in_units", [False, True])
def test_derivatives_are_those_of_finite_differences(model, in_units):
    spec, rng = field_of(EVERYTHING, model, inputs=1), np.random.default_rng(0)
    field = spec.in_units(UNITS) if in_units else spec
    params = spec.initial_parameters(0) + 0.3 * rng.normal(size=spec.n_parameters)
    u, t, w = rng.uniform(-0.5, 0.5, (6, 2)), rng.uniform(0.0, 1.0, 6), rng.normal(size=(6, 1))
    cotangent, h = rng.normal(size=(6, 2)), 1e-6
    kernel = HybridKernel(field, params)
    jacobian, pull = kernel.linearise(t, u, w)
    for j, step in enumerate(h * np.eye(2)):
        slope = (kernel.batch(u + step, t, w) - kernel.batch(u - step, t, w)) / (2 * h)
        np.testing.assert_allclose(jacobian[:, :, j], slope, rtol=1e-6, atol=1e-7)

    def value(at):
        return np.sum(cotangent * HybridKernel(field, at).batch(u, t, w))

    by_params = [(value(params + step) - value(params - step)) / (2 * h) for step in h * np.eye(len(params))]
    np.testing.assert_allclose(pull(cotangent), by_params, rtol=1e-6, atol=1e-7)


def interaction(t, u, network, p):
    x, y = u[..., 0], u[..., 1]
    n = network(u)
    return np.stack([p["birth"] * x - n[..., 0], n[..., 1] - p["death"] * y * np.cos(t)], axis=-1)


HYBRID = field_of(Physics(interaction, outputs=2, parameters={"birth": 1.5, "death": 3.0}))


class Written(nn.Module):
    """The same field written in torch, its parameters in the order of the flat vector."""

    def __init__(self):
        super().__init__()
        self.network = VectorField(HYBRID.network)
        self.known = nn.ParameterList([nn.Parameter(torch.zeros(2))])

    def forward(self, t, u):
        n = self.network(t, u)
        birth, death = 1.5 + 1.5 * self.known[0][0], 3.0 + 3.0 * self.known[0][1]
        x, y = u[..., 0], u[..., 1]
        return torch.stack([birth * x - n[..., 0], n[..., 1] - death * y * torch.cos(t.squeeze(-1))], dim=-1)


def problem(field, **settings):
    series = Series([1.0, 1.0], T[1:], np.column_stack([1 + T, np.exp(-T)])[1:])
    return OdeProblem(field, (series,), **settings)


@pytest.mark.parametrize("solver", ["5", "stiff"])
def test_loss_and_gradient_are_those_of_the_same_field_in_torch(solver):
    params = np.random.default_rng(1).normal(size=HYBRID.n_parameters) * 0.2
    written = TorchBackend().solver(problem(ModuleField(Written(), 2), solver=solver))
    loss, gradient = TorchBackend().solver(problem(HYBRID, solver=solver)).value_and_grad(params)
    other_loss, other = written.value_and_grad(params)
    assert loss == pytest.approx(other_loss, rel=1e-9)
    np.testing.assert_allclose(gradient, other, rtol=1e-6, atol=1e-9)


def test_units_change_neither_slopes_nor_trajectories():
    params = np.random.default_rng(1).normal(size=HYBRID.n_parameters) * 0.2
    plain, scaled = (TorchBackend().solver(problem(HYBRID, units=units)) for units in (None, UNITS))
    u = np.random.default_rng(2).normal(size=(5, 2))
    np.testing.assert_allclose(scaled.rhs(u, 0.4, params), plain.rhs(u, 0.4, params), rtol=1e-10, atol=1e-10)
    found = (one.trajectory(params, T, 1e-10, 1e-10) for one in (plain, scaled))
    np.testing.assert_allclose(*found, rtol=1e-7)


def test_a_power_that_is_estimated_has_a_derivative_where_its_base_is_zero():
    physics = Physics(lambda t, u, network, p: np.abs(u) ** p["n"] * network(u), 2, parameters={"n": 2.0})
    field = field_of(physics)
    pull = HybridKernel(field, np.ones(field.n_parameters)).linearise(np.zeros(1), np.array([[0.0, 1.0]]))[1]
    assert np.isfinite(pull(np.ones((1, 2)))).all()


def test_inputs_drive_it():
    """du/dt = w(t) and a network of no output: the integral of the input."""
    physics = Physics(lambda t, u, w, network, p: np.stack([w[..., 0], u[..., 1] * network(u)[..., 0]], axis=-1))
    field = field_of(physics, inputs=1)
    forced = Inputs([0.0, 0.5, 1.0], [[0.0], [1.0], [-1.0]])
    series = Series([0.0, 0.0], T[1:], np.ones((8, 2)), inputs=forced)
    found = TorchBackend().solver(OdeProblem(field, (series,))).trajectory(np.zeros(field.n_parameters), [0.5, 1.0])
    np.testing.assert_allclose(found[:, 0], [0.25, 0.25], atol=1e-7)


def test_a_term_that_is_not_defined_is_a_solve_error_and_other_gradients_are_refused():
    bad = field_of(Physics(lambda t, u, network, p: np.sqrt(u - 2.0) * network(u)))
    with pytest.raises(SolveError):
        TorchBackend().solver(problem(bad)).value_and_grad(np.zeros(bad.n_parameters))
    with pytest.raises(UsageError, match="got gradient backprop for known terms and a network: expected replay"):
        TorchBackend("backprop").solver(problem(HYBRID))
