"""`kansciml bench ode` compares like with like: the same function, the same gradient, every method."""

import numpy as np
import pytest
import torch

from kansciml.backends.base import Subset
from kansciml.backends.torch import GRADIENTS, TorchOdeSolver
from kansciml.benchmarks import _diffrax, ode
from kansciml.models.fields import VectorField
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.sampling import sampled
from kansciml.training.flat import FlatTraining


def test_the_bare_module_is_the_same_function_as_the_field():
    spec = make_field(get_system("lotka"), "mlp")
    field = VectorField(spec).load_flat(spec.initial_parameters(0))
    u = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    expected = field(torch.tensor(0.0), u).detach()
    torch.testing.assert_close(ode.BareMLP(field)(torch.tensor(0.0), u).detach(), expected, rtol=1e-12, atol=1e-12)


def test_every_gradient_method_is_measured_and_gives_the_gradient(monkeypatch):
    monkeypatch.setattr(_diffrax, "available", lambda: False)  # it compiles for half a minute
    monkeypatch.setattr(ode, "WARM_UP", FlatTraining(adam_steps=20, lbfgs_steps=10))
    options = ode.Options(systems=("lotka",), model="mlp", backend="torch", rounds=3, trajectories=(1, 3), threads=2)
    document, tables = ode.run(options, lambda line: None)
    found = document["results"][0]
    rows = {row["method"].removesuffix(" (default)"): row for row in found["rows"]}
    assert set(rows) == {ode.BASELINE, "torch replay, any nn.Module", *(f"torch {name}" for name in GRADIENTS)}
    assert rows[ode.BASELINE]["ratio"] == 1.0
    assert rows["torch backprop"]["gradient_difference"] < 1e-5
    assert rows["torch adjoint"]["gradient_difference"] < 1e-3
    assert [(row["threads"], row["trajectories"]) for row in found["many"]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(row["ratio"] == row["wall_ratio"] == 1.0 for row in found["many"][::2])
    assert [len(table.rows) for table in tables] == [len(rows), len(rows), 4, 2]
    assert [row[1] for row in tables[0].rows] == [row["median_ms"] for row in found["rows"]]
    assert "torchdiffeq" in document["machine"]["versions"] and "torchdiffeq" in tables[0].notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "kan"])
def test_diffrax_gives_the_same_loss_and_gradient(model):
    pytest.importorskip("diffrax", reason="diffrax is not installed")
    system = sampled(get_system("lotka"), 3)
    problem = make_problem(system, make_field(system, model, match="params"), 1e-10, 1e-10)
    params = problem.initial_parameters(0)
    for subset in (None, Subset(series=(0,))):
        expected = TorchOdeSolver(problem).value_and_grad(params, subset)
        loss, gradient = _diffrax.DiffraxSolver(problem).value_and_grad(params, subset)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-8)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-6 * np.abs(expected[1]).max())
