"""The torch backend: one suite over its gradient methods, replay exact to rounding, clear errors."""

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import SolveError, UsageError
from kansciml.backends.base import OdeProblem, OdeSolver, Subset
from kansciml.backends.torch import GRADIENTS, ModuleField, TorchBackend, TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

SPECS = [FieldSpec("mlp", (2, 8, 2)), FieldSpec("kan", (2, 3, 2), scale=(2.0, 2.0))]


def make(spec, tolerance=1e-8, t0=0.0, first=0.0):
    t = np.linspace(first, 2.0, 9)
    data = np.stack([np.cos(t), np.sin(t)], axis=1)
    return OdeProblem.single(
        spec, np.array([1.0, 0.0]), t, data, t0=t0, loss_scale=np.array([0.5, 2.0]), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("spec", SPECS, ids=FieldSpec.label)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_equals_central_differences(spec, gradient):
    problem = make(spec, 1e-11)
    solver = TorchOdeSolver(problem, gradient)
    assert isinstance(solver, OdeSolver)
    params = spec.initial_parameters(0)
    _, gradient = solver.value_and_grad(params)
    for direction in np.random.default_rng(0).standard_normal((3, len(params))):
        h = 1e-4
        slope = (
            solver.value_and_grad(params + h * direction)[0] - solver.value_and_grad(params - h * direction)[0]
        ) / (2 * h)
        assert slope == pytest.approx(gradient @ direction, rel=2e-6)


@pytest.mark.parametrize("spec", SPECS, ids=FieldSpec.label)
@pytest.mark.parametrize("first, share", [(0.0, 1.0), (0.25, 1.0), (0.0, 0.45)])
def test_replay_is_backpropagation_through_the_same_steps(spec, first, share):
    problem = make(spec, first=first)
    params = spec.initial_parameters(3)
    (loss, exact), (other_loss, other) = (
        TorchOdeSolver(problem, g).value_and_grad(params, Subset(share=share)) for g in ("replay", "backprop")
    )
    assert loss == pytest.approx(other_loss, rel=1e-13)
    np.testing.assert_allclose(exact, other, rtol=1e-6, atol=1e-7 * np.abs(other).max())


@pytest.mark.parametrize("spec", SPECS, ids=FieldSpec.label)
def test_evaluations_of_the_field_are_those_that_torchdiffeq_asks_for(spec):
    """By the engine of the built-in fields, by that of modules, and by torchdiffeq, which takes the same steps."""
    problem, params = make(spec), spec.initial_parameters(3)
    solvers = [TorchOdeSolver(problem), TorchOdeSolver(problem, "backprop")]
    module = VectorField(spec)
    module.load_flat(params)
    solvers.append(TorchOdeSolver(make(ModuleField(module, 2))))
    for solver in solvers:
        field = solver.problem.field
        for _ in range(2):
            solver.value_and_grad(params if field is spec else field.initial_parameters())
    first, *others = (solver.evaluations for solver in solvers)
    assert others == [first, first]
    assert (first // 2 - 2) % 6 == 0  # two to begin with, six in each step


def test_loss_is_the_documented_one_and_a_share_takes_the_first_points():
    problem = make(SPECS[0])
    solver = TorchOdeSolver(problem)
    params = SPECS[0].initial_parameters(0)
    u = solver.trajectory(params)
    for rows, subset in ((9, None), (3, Subset(share=0.3))):
        expected = np.mean(((u - problem.data) / problem.loss_scale)[:rows] ** 2)
        assert solver.value_and_grad(params, subset)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_trajectory_takes_other_times_and_tolerances(gradient):
    solver = TorchOdeSolver(make(SPECS[0], 1e-4), gradient)
    params = SPECS[0].initial_parameters(0)
    t = np.array([0.0, 1.9])
    fine = solver.trajectory(params, t, 1e-11, 1e-11)
    assert fine.shape == (2, 2)
    np.testing.assert_array_equal(fine[0], [1.0, 0.0])
    np.testing.assert_allclose(fine, TorchOdeSolver(make(SPECS[0])).trajectory(params, t, 1e-11, 1e-11), atol=1e-8)


class Forced(nn.Module):
    """A field that depends on time."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, t, u):
        return torch.tanh(self.linear(u)) + torch.sin(3 * t)


class Unbatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2, dtype=torch.float64))

    def forward(self, t, u):
        return self.weight @ u


def test_any_module_is_replayed_with_its_own_time():
    problem = make(ModuleField(Forced(), 2))
    params = problem.field.initial_parameters()
    (loss, exact), (other_loss, other) = (
        TorchOdeSolver(problem, g).value_and_grad(params) for g in ("replay", "backprop")
    )
    assert loss == pytest.approx(other_loss, rel=1e-12)
    # Measured against the largest component: backprop also passes through the choice of the step's length.
    np.testing.assert_allclose(exact, other, rtol=1e-6, atol=1e-7 * np.abs(other).max())


def test_a_module_that_takes_no_batch_is_refused_by_replay_and_served_by_backprop():
    problem = make(ModuleField(Unbatched(), 2))
    with pytest.raises(UsageError, match='cannot be replayed.*gradient="backprop"'):
        TorchOdeSolver(problem)
    assert np.isfinite(TorchOdeSolver(problem, "backprop").value_and_grad(problem.field.initial_parameters())[0])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_blow_up_is_a_solve_error(gradient):
    spec = FieldSpec("mlp", (1, 1, 1), activation="relu")
    problem = OdeProblem.single(spec, np.array([1.0]), np.array([0.0, 1.0]), np.zeros((2, 1)), max_steps=50)
    with pytest.raises(SolveError):
        TorchOdeSolver(problem, gradient).value_and_grad(np.array([1e8, 0.0, 1e8, 0.0]))


def test_bad_requests_are_one_line():
    with pytest.raises(UsageError, match="unknown gradient 'magic': expected one of replay, backprop, adjoint"):
        TorchBackend("magic")
    with pytest.raises(UsageError, match=r"got parameters of shape \(3,\)"):
        TorchOdeSolver(make(SPECS[0])).value_and_grad(np.zeros(3))


@pytest.mark.parametrize("spec", [*SPECS, FieldSpec("kan", (2, 3, 4, 2), grid=2)], ids=FieldSpec.label)
def test_flat_vector_round_trip_and_documented_order(spec):
    params = spec.initial_parameters(0)
    field = VectorField(spec).load_flat(params)
    np.testing.assert_array_equal(field.to_flat(), params)
    # inputs first: a Linear stores its outputs first, a KAN layer has the documented order itself
    first = field.net.layers[0].weight.T if spec.model == "mlp" else field.net[0].base_weight
    np.testing.assert_array_equal(first.detach().numpy().ravel(), params[: first.numel()])
    assert sum(p.numel() for p in field.parameters()) == spec.n_parameters
