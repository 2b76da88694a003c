"""Known terms and a network for the rest: parameters are recovered, and what is wrong is one line."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError, ode


def known(t, u, network, p):
    """Growth and death are known but for their rates; how much prey a predator eats, x, is learned from x."""
    x, y = u[..., 0], u[..., 1]
    eaten = network(x)[..., 0] * y
    return np.stack([p["birth"] * x - eaten, eaten - p["death"] * y], axis=-1)


PHYSICS = ode.Physics(known, parameters={"birth": 1.0, "death": 2.0}, bounds={"death": (0.0, math.inf)})
LOTKA = replace(ode.get_system("lotka"), name="half_known", physics=PHYSICS)


def test_rates_of_lotka_volterra_are_recovered_beside_what_a_kan_learns(tmp_path):
    training = ode.FlatTraining(adam_steps=60, learning_rate=0.03, lbfgs_steps=60)
    run = ode.train(LOTKA, "kan", hidden=(2,), grid=3, shooting=6, training=training)
    assert run.estimates["birth"] == pytest.approx(1.5, rel=5e-3)
    assert run.estimates["death"] == pytest.approx(3.0, rel=5e-3)
    assert run.metrics["train_relative_mse"] < 1e-4
    loaded = ode.load(run.save(tmp_path / "model"))
    assert loaded.estimates == run.estimates and loaded.field == run.field
    np.testing.assert_array_equal(loaded.trajectory([0.0, 5.0]), run.trajectory([0.0, 5.0]))


@pytest.mark.parametrize("match", ["width", "params"])
def test_the_network_is_scaled_by_what_it_is_fed_and_by_what_it_does(match):
    field = ode.hybrid_field(LOTKA, "kan", match=match, hidden=(10,))
    x, y = ode.reference_solution(LOTKA, np.linspace(0.0, 3.4, 35)).T
    center, scale, rate = field.network.normalisation()
    np.testing.assert_allclose([center[0] - 0.9 * scale[0], center[0] + 0.9 * scale[0]], [x.min(), x.max()], rtol=1e-9)
    assert rate[0] == pytest.approx(3.5 / np.sqrt(np.mean(y**2)), rel=1e-9)  # 3.5: of dy/dt
    assert field.network.widths == (1, {"width": 10, "params": 1}[match], 1)  # 31 parameters, a KAN's 20 a unit
    assert field.initial_parameters(0)[-2:].tolist() == [0.0, 0.0]


def test_units_of_data_do_not_matter_where_the_terms_are_in_them():
    """The same system in other units, with known terms in these: the same losses."""
    states = ode.reference_solution(LOTKA, np.linspace(0.0, 3.4, 35))
    training = ode.FlatTraining(adam_steps=10, lbfgs_steps=0)
    losses = []
    for unit, time in ((1.0, 1.0), (1e6, 3600.0)):
        rates = {"birth": 1.0 / time, "death": 2.0 / time}
        system = ode.system_from_trajectory(ode.Trajectory(np.linspace(0.0, 3.4, 35) * time, states * unit), "lotka2")
        system = replace(system, physics=replace(PHYSICS, parameters=rates))
        losses.append(ode.train(system, "mlp", hidden=(4,), training=training).fit.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_systems_and_fields_that_do_not_suit_each_other_are_one_line():
    with pytest.raises(UsageError, match="half_known has known terms, physics: a field that learns all of"):
        ode.make_field(LOTKA, "kan")
    with pytest.raises(UsageError, match="lotka has no known terms"):
        ode.hybrid_field(ode.get_system("lotka"), "kan")
    with pytest.raises(UsageError, match="system half_known: the known terms, .* IndexError"):
        replace(LOTKA, physics=ode.Physics(lambda t, u, network, p: network(u[..., 5])))
    undefined = replace(LOTKA, physics=ode.Physics(lambda t, u, network, p: np.log(u - 2.0) * network(u)))
    with pytest.raises(UsageError, match=r"known terms are not finite at t = 0, u = \[1.0, 1.0\]: check them"):
        ode.train(undefined)


def test_the_example_runs_and_draws(tmp_path):
    path = Path(__file__).parents[3] / "examples" / "known_physics.py"
    spec = importlib.util.spec_from_file_location("known_physics", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    estimates = example.main(adam_steps=3, lbfgs_steps=2, picture=tmp_path / "picture.png")
    assert set(estimates) == {"birth", "capacity", "death"} and (tmp_path / "picture.png").stat().st_size > 1000
