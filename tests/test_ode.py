"""The library as a researcher uses it: `kansciml.ode`, the examples, published accuracies."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError, ode

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = ode.FlatTraining(adam_steps=60, lbfgs_steps=30)


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_train_returns_everything_a_script_needs():
    run = ode.train("spiral", model="kan", match="params", training=QUICK)
    assert run.field.label() == "KAN 2-6-2 (G=5, S=3)" and run.params.shape == (240,)
    assert run.metrics["train_mse"] < 0.5 and run.states.shape == (117, 2)
    np.testing.assert_array_equal(run.trajectory([0.0])[0], [2.0, 0.0])
    assert run([2.0, 0.0]).shape == (2,)
    assert run.backend == "torch" and run.method == "replay"


def test_the_trained_field_solves_to_the_reported_loss():
    run = ode.train("lotka", model="mlp", hidden=(10,), training=QUICK)
    data = run.problem.data
    error = np.mean((run.trajectory(run.problem.saveat) - data) ** 2)
    assert run.metrics["train_mse"] == pytest.approx(error, rel=1e-9)
    assert run.fit.loss == pytest.approx(error, rel=1e-2)


@pytest.mark.slow
def test_lotka_volterra_beats_the_published_losses_quickly():
    """KAN-ODEs (Koenig et al. 2024) report 8.3e-7 (KAN 2-10-2, 240 parameters) and 4.1e-5 (MLP 2-50-2)."""
    training = ode.FlatTraining(adam_steps=400, final_learning_rate=1e-3, lbfgs_steps=600)
    mlp = ode.train("lotka", model="mlp", training=training)
    kan = ode.train("lotka", model="kan", match="params", training=training)
    assert mlp.field.n_parameters == 252 and mlp.metrics["train_mse"] < 4e-5
    assert kan.field.n_parameters == 240 and kan.metrics["train_mse"] < 1e-5


def test_own_data_and_own_system(tmp_path):
    examples = load("train_on_own_data")
    path = examples.write_example(tmp_path / "o.csv")
    run = ode.train(path, model="mlp", hidden=(8,), training=QUICK)
    assert run.system.labels == ("position", "velocity") and np.isfinite(run.metrics["train_mse"])
    system = ode.get_system(EXAMPLES / "own_system.py")
    assert system.name == "van_der_pol" and system.scale


@pytest.mark.slow
def test_examples_run_and_learn(capsys):
    assert load("own_layer").main(60) < 1.0
    assert load("train_on_own_data").main(adam_steps=60, lbfgs_steps=40) < 0.05
    assert load("own_module").main(adam_steps=40, lbfgs_steps=60) < 1.0
    assert "train MSE" in capsys.readouterr().out


def test_equal_parameters_means_at_most_as_many():
    for name in ode.available_systems():
        system = ode.get_system(name)
        mlp = ode.make_field(system, "mlp")
        kan = ode.make_field(system, "kan", match="params")
        wide = ode.make_field(system, "kan", match="width")
        assert 0.8 * mlp.n_parameters < kan.n_parameters <= mlp.n_parameters
        assert wide.widths == mlp.widths


def test_input_scalings_are_what_they_say():
    system = ode.get_system("spiral")
    affine, none, tanh = (ode.make_field(system, "kan", input_scaling=s) for s in ("affine", "none", "tanh"))
    assert affine.scale == system.scale and none.scale == () and tanh.squash and not none.squash
    with pytest.raises(UsageError, match="unknown input_scaling"):
        ode.make_field(system, "kan", input_scaling="log")


def test_a_module_needs_torch():
    class Stub:
        name = "julia"

    with pytest.raises(UsageError, match="needs backend 'torch'"):
        ode.train("lotka", load("own_module").GreyBox(), backend=Stub())
