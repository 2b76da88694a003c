"""Right-hand sides that are recorded: what is evaluated is what was written, and what cannot be recorded is a line."""

import math

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.models.equations import ARRAY, SCALAR, UNARY, Equations
from kansciml.models.hybrid_spec import Bounds, HybridSpec, NetworkSpec, Physics


def written(t, u, network, p):
    x, y = u[..., 0], u[..., 1]
    turned = np.array([[0.0, 1.0], [-1.0, 0.0]]) @ u
    n = network(np.stack([x, t], axis=-1))
    return np.stack([p["a"] * x - n[..., 0] * y**2, turned[1] / (1 + y * y) + np.float64(2.0) * n[..., 1]], axis=-1)


def evaluated(equations, leaves, outputs):
    """Values of the slopes; the network adds 1, 2, ... to the sum of its inputs."""
    values = []
    for name, *rest in equations.nodes:
        if name in leaves:
            values.append(leaves[name] if not rest else leaves[name][rest[0]])
        elif name == "constant":
            values.append(rest[0])
        elif name == "network":
            values.append([sum(values[one] for one in rest) + 1 + j for j in range(outputs)])
        elif name == "output":
            values.append(values[rest[0]][rest[1]])
        else:
            values.append(ARRAY[name](*(values[one] for one in rest)))
    return [values[one] for one in equations.slopes]


def test_what_is_recorded_is_what_the_function_computes():
    equations = Physics(written, outputs=2, parameters={"a": 1.5}).equations(2, 0)
    t, u = 0.3, np.array([0.7, -0.4])
    direct = written(t, u, lambda x: np.sum(x) + np.array([1.0, 2.0]), {"a": 1.5})
    found = evaluated(equations, {"state": u, "time": t, "parameter": [0.0]}, 2)
    np.testing.assert_allclose(found, direct, rtol=1e-15)


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_numbers_and_of_arrays_agree(name):
    assert SCALAR[name](0.3) == pytest.approx(ARRAY[name](np.array([0.3]))[0], rel=1e-15)


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, math.inf), (0.0, math.inf), (-math.inf, 5.0), (1.0, 3.0), (-2.0, 9.0)]
)
def test_parameters_start_at_the_guess_and_never_leave_their_bounds(low, high):
    sought = Bounds("a", 2.0, low, high)
    assert sought.value(0.0) == pytest.approx(2.0, rel=1e-15)
    values = [sought.value(x) for x in np.linspace(-30.0, 30.0, 61)]
    assert all(low <= value <= high for value in values) and values[29] < 2.0 < values[31]
    assert (np.diff(values) >= 0).all()


def rhs_of(change):
    return lambda t, u, network, p: np.stack([change(u[..., 0], network(u)[..., 0], p), u[..., 1]], axis=-1)


REFUSED = {
    "it depends on the value of a state": rhs_of(lambda x, n, p: n * p["a"] if x > 0 else n),
    "as in if, and, min or max": rhs_of(lambda x, n, p: n * p["a"] if x == 0 else n),
    "it needs the number behind a symbol": rhs_of(lambda x, n, p: math.exp(x) + n * p["a"]),
    "it asks for parameter 'b': expected one of a": rhs_of(lambda x, n, p: p["b"] * n),
    "it does not depend on a: use the parameter": rhs_of(lambda x, n, p: n),
    "it does not depend on output 0 of the network": rhs_of(lambda x, n, p: p["a"] * x),
    "it computes with nan": rhs_of(lambda x, n, p: p["a"] * n + math.nan),
    "it gives shape (2, 1) at one state: expected (2,)": lambda t, u, network, p: (p["a"] * u * network(u))[:, None],
    "calls the network with 1 and 2 inputs": rhs_of(lambda x, n, p: p["a"] * n),
    "IndexError": lambda t, u, network, p: u[..., 7],
    "exp2": rhs_of(lambda x, n, p: np.exp2(x) * p["a"] + n),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_recorded_is_one_line(message):
    rhs = REFUSED[message]
    if "calls the network" in message:
        inner = rhs

        def rhs(t, u, network, p):
            return inner(t, u, network, p) * network(u[..., 0])[..., 0]

    with pytest.raises(UsageError) as caught:
        Physics(rhs, parameters={"a": 1.0}).equations(2, 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("the known terms, rhs(t, u, network, p)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 0}, "got outputs 0"),
        ({"bounds": {"b": (0, 1)}}, "got bounds of 'b': expected a parameter, a"),
        ({"bounds": {"a": (2, 3)}}, "got 1.0 as the first guess of a: expected a number between 2 and 3"),
        ({"parameters": {"a": "many"}}, "got 'many' as a"),
        ({"bounds": {"a": 3}}, "and two as its bounds"),
    ],
)
def test_malformed_physics_is_one_line(options, message):
    with pytest.raises(UsageError, match=message):
        Physics(written, **{"parameters": {"a": 1.0}, **options})


BAD_CALL = (("state", 0), ("network", 0), ("exp", 1))


def test_data_that_are_no_equations_are_refused():
    for nodes in (
        (("state", 0), ("+", 0, 5)),
        (("oracle", 1),),
        (("state", 0), ("exp", 0, 0)),
        (("+", 0, 0),),
        BAD_CALL,
    ):
        with pytest.raises(UsageError, match="of the equations is"):
            Equations(nodes, (0,))
    one = Equations((("state", 0), ("network", 0), ("output", 1, 0)), (2,))
    for change in ({"network": NetworkSpec("mlp", (2, 1))}, {"parameters": (Bounds("a", 1.0),)}):
        with pytest.raises(UsageError):
            HybridSpec(**{"network": NetworkSpec("mlp", (1, 1)), "equations": one, **change})
