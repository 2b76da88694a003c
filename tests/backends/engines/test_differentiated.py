"""torchdiffeq's solvers give the replay's losses and gradients on everything that a series may hold."""

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import UsageError
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.select import check_methods
from kansciml.backends.torch import ModuleField, TorchOdeSolver, solver_name
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs

SPEC = FieldSpec("mlp", (4, 4, 2), inputs=1, time=True)


class Driven(nn.Module):
    """A module of inputs and time."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, t, u, w):
        return self.net(torch.cat([u, w], -1)) * torch.cos(t)


def problem(field, solver, tolerance):
    rng, parts = np.random.default_rng(0), []
    for t0, kind, learned in ((0.0, "held", True), (0.5, "linear", False)):
        t, knots = t0 + np.array([0.1 * learned, 0.3, 0.5]), t0 + np.array([0.0, 0.3, 0.6])
        data = rng.normal(size=(3, 2))
        data[1, 0] = np.nan
        inputs = Inputs(knots, rng.normal(size=(3, 1)), kind)
        weights = rng.uniform(size=(3, 2))
        parts.append(Series(rng.normal(size=2), t, data, t0, inputs=inputs, learned=learned, weights=weights))
    return OdeProblem(field, tuple(parts), rtol=tolerance, atol=tolerance, solver=solver)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("solver", ["3", "5", "8"])
def test_gradients_are_those_of_the_replay(solver, gradient):
    own = problem(SPEC, solver, 1e-5 if solver == "3" else 1e-8)
    params = 3 * own.initial_parameters(0)
    assert len(params) == SPEC.n_parameters + 2
    near = 5e-3 if solver == "3" else 1e-6
    found, expected = (TorchOdeSolver(own, method).value_and_grad(params) for method in (gradient, "replay"))
    assert found[0] == pytest.approx(expected[0], rel=near)
    np.testing.assert_allclose(found[1], expected[1], atol=near * np.abs(expected[1]).max())


@pytest.mark.parametrize("solver", ["3", "8", "stiff"])
def test_modules_of_inputs_and_time_are_replayed(solver):
    own = problem(ModuleField(Driven(), 2, inputs=1), solver, 1e-6)
    params = own.initial_parameters(0)
    found = TorchOdeSolver(own).value_and_grad(params)
    truth = TorchOdeSolver(problem(own.field, "5", 1e-9), "backprop").value_and_grad(params)
    assert found[0] == pytest.approx(truth[0], rel=1e-5)
    np.testing.assert_allclose(found[1], truth[1], atol=1e-4 * np.abs(truth[1]).max())


def test_a_solver_that_is_not_there_is_one_line():
    assert [solver_name(name) for name in ("3", "5", "8", "stiff", "Radau")] == [
        "bosh3", "dopri5", "dop853", "Radau", "Radau",
    ]  # fmt: skip
    with pytest.raises(
        UsageError, match="unknown solver in torch: 'Tsit5': expected one of 3, 5, 8, stiff, BDF, bosh3"
    ):
        solver_name("Tsit5")
    with pytest.raises(UsageError, match="unknown solver in torchdiffeq: 'stiff': expected one of 3, 5, 8, bosh3"):
        TorchOdeSolver(problem(SPEC, "stiff", 1e-6), "adjoint")


@pytest.mark.parametrize(
    "gradient, solver, backend",
    [(None, "5", "both"), (None, "Tsit5", "auto"), (None, "Tsit5", "julia"), ("adjoint", "dopri8", "torch")],
)
def test_methods_that_the_backend_has_pass(gradient, solver, backend):
    check_methods(gradient, None, solver, backend)


@pytest.mark.parametrize(
    "gradient, solver, backend, message",
    [
        (None, "Tsit5", "torch", "unknown solver in torch: 'Tsit5'"),
        (None, "dop853", "julia", "unknown solver in Julia: 'dop853'"),
        (None, "dop853", "both", "unknown solver in Julia: 'dop853'"),
        (None, "euler", "auto", "unknown solver 'euler': expected one of 3, 5, 8, stiff, BDF, .* Tsit5"),
        ("backprop", "dop853", "torch", "unknown solver in torchdiffeq: 'dop853'"),
        ("magic", "5", "auto", "unknown gradient 'magic': expected one of replay, backprop, adjoint"),
    ],
)
def test_methods_are_refused_before_anything_starts(gradient, solver, backend, message):
    with pytest.raises(UsageError, match=message):
        check_methods(gradient, None, solver, backend)
