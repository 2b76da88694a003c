"""`kansciml bench ode` compares like with like: the same function, the same gradient, every method."""

import torch

from kansciml.backends.torch import GRADIENTS
from kansciml.benchmarks import ode
from kansciml.models.fields import VectorField
from kansciml.ode import get_system, make_field


def test_the_bare_module_is_the_same_function_as_the_field():
    spec = make_field(get_system("lotka"), "mlp")
    field = VectorField(spec).load_flat(spec.initial_parameters(0))
    u = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    expected = field(torch.tensor(0.0), u).detach()
    torch.testing.assert_close(ode.BareMLP(field)(torch.tensor(0.0), u).detach(), expected, rtol=1e-12, atol=1e-12)


def test_every_gradient_method_is_measured_and_gives_the_gradient():
    options = ode.Options(systems=("lotka",), model="mlp", backend="torch", rounds=3)
    document, tables = ode.run(options, lambda line: None)
    rows = {row["method"].removesuffix(" (default)"): row for row in document["results"][0]["rows"]}
    assert set(rows) == {ode.BASELINE, "torch replay, any nn.Module", *(f"torch {name}" for name in GRADIENTS)}
    assert rows[ode.BASELINE]["ratio"] == 1.0
    assert rows["torch backprop"]["gradient_difference"] < 1e-5
    assert rows["torch adjoint"]["gradient_difference"] < 1e-3
    assert len(tables) == 1 and len(tables[0].rows) == len(rows)
