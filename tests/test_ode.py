"""The library as a researcher uses it: `kansciml.ode`, the examples, published accuracies."""

import gzip
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import KansciError, UsageError, ode

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = ode.FlatTraining(adam_steps=60, lbfgs_steps=30)
ADAM = ode.FlatTraining(adam_steps=60, lbfgs_steps=0)  # L-BFGS would magnify the rounding of the data


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_train_returns_everything_a_script_needs():
    run = ode.train("spiral", model="kan", match="params", training=QUICK)
    assert run.field.label() == "KAN 2-6-2 (G=5, S=3)" and run.params.shape == (240,)
    assert run.metrics["train_mse"] < 0.5 and run.states.shape == (117, 2)
    np.testing.assert_array_equal(run.trajectory([1.0, 0.0])[1], [2.0, 0.0])
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
    training = ode.FlatTraining(adam_steps=300, final_learning_rate=1e-3, lbfgs_steps=400)
    mlp = ode.train("lotka", model="mlp", training=training)
    kan = ode.train("lotka", model="kan", match="params", training=training)
    assert mlp.field.n_parameters == 252 and mlp.metrics["train_mse"] < 4e-5
    assert kan.field.n_parameters == 240 and kan.metrics["train_mse"] < 1e-5


def test_own_data_and_own_system(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("t,position,velocity\n" + "".join(f"{t},{np.cos(2 * t)},{-2 * np.sin(2 * t)}\n" for t in T))
    run = ode.train(path, model="mlp", hidden=(8,), training=QUICK)
    assert run.system.labels == ("position", "velocity") and np.isfinite(run.metrics["train_mse"])
    system = ode.get_system(EXAMPLES / "own_system.py")
    assert system.name == "van_der_pol" and system.scale


T = np.linspace(0.0, 3.4, 35)
LOTKA = ode.reference_solution(ode.get_system("lotka"), T)


@pytest.mark.parametrize("model", ["mlp", "kan"])
def test_units_of_state_and_time_do_not_matter(model):
    """One unit for all or one for each component, 1e-12 to 1e12 times larger: the same steps of the optimiser."""
    training = ode.FlatTraining(adam_steps=40, lbfgs_steps=20, curriculum=(0.5,))
    runs = [
        ode.train(
            ode.Trajectory(T * time, LOTKA * np.array(state)), model, match="params", hidden=(10,), training=training
        )
        for state, time in ((1.0, 1.0), (1e-12, 86400.0), (1e12, 1e-12), ([0.3048, 1e6], 1e12))
    ]
    assert runs[0].metrics["train_relative_mse"] < 0.5
    for run in runs[1:]:
        np.testing.assert_allclose(run.fit.history["loss"], runs[0].fit.history["loss"], rtol=1e-6)
        assert run.metrics["train_relative_mse"] == pytest.approx(runs[0].metrics["train_relative_mse"], rel=1e-6)
        unit = run.problem.data[0] / LOTKA[0]
        np.testing.assert_allclose(run.states / unit, runs[0].states, rtol=1e-6)


@pytest.mark.parametrize(
    "t", [1.7e9 + 1e-3 * np.arange(35), 1.7e12 + np.arange(35.0), 1e-15 * np.arange(35), np.arange(-40.0, -5.0)]
)
def test_times_far_from_zero_and_close_together_train_like_any_others(t):
    """Unix time at 1 kHz is rounded to 2e-7 s, 2e-4 of a step."""
    runs = [ode.train(ode.Trajectory(times, LOTKA), "mlp", training=ADAM) for times in (np.arange(35.0), t)]
    expected, found = (run.metrics["train_relative_mse"] for run in runs)
    assert found == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(runs[1].trajectory(t[::-1]), runs[1].states[::-1], rtol=1e-9)


def test_an_offset_costs_no_accuracy():
    """Tolerances and scales count from the middle of the data: kelvin are learned as degrees Celsius are."""
    runs = [ode.train(ode.Trajectory(T, offset + 100 * LOTKA), "mlp", training=ADAM) for offset in (0.0, 2.0**18)]
    expected, found = (run.metrics["train_relative_mse"] for run in runs)
    assert found == pytest.approx(expected, rel=1e-8)


def test_a_component_that_hardly_varies_is_named():
    lines = []
    data = np.column_stack([LOTKA[:, 0], 1e11 + LOTKA[:, 1], np.full(35, 5.0)])
    ode.train(ode.Trajectory(T, data, ("x", "y", "z")), "mlp", training=QUICK, log=lines.append)
    assert lines[0].startswith("y: varying by less than 1e-9 of its size counts as constant")
    lines.clear()
    ode.train("rigid", "mlp", training=QUICK, log=lines.append)
    assert not lines


def test_a_system_of_your_own_is_scaled_as_its_file_would_be():
    """The equations of a van der Pol oscillator in nanometres and megaseconds."""
    unit, time = np.array([1e-9, 1e-15]), 1e6

    def rhs(t, u):
        x, v = u[..., 0] / unit[0], u[..., 1] / unit[1]
        return np.stack([v, (1 - x**2) * v - x], axis=-1) * unit / time

    saveat = np.linspace(0.0, 7e6, 71)
    own = ode.System("own", u0=np.array([2.0, 0.0]) * unit, train_end=7e6, train_saveat=saveat, rhs=rhs)
    given = ode.get_system(EXAMPLES / "own_system.py")
    ours, theirs = (ode.train(system, "mlp", training=QUICK) for system in (own, given))
    assert ours.metrics["train_relative_mse"] == pytest.approx(theirs.metrics["train_relative_mse"], rel=1e-3)
    assert ours.fit.loss == pytest.approx(theirs.fit.loss, rel=1e-3) and theirs.fit.loss < 0.9


class Driven(torch.nn.Module):
    """du/dt = weight * t: known at every time."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, t, u):
        return self.weight * t + 0.0 * u


def test_slopes_of_a_run_are_those_at_the_time_given():
    run = ode.train(ode.Trajectory(5.0 + T, LOTKA), Driven(), training=QUICK)
    u = np.ones((3, 2))
    np.testing.assert_allclose(run(u, 2.0), 2.0 * np.tile(run.params, (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(run(u), 5.0 * np.tile(run.params, (3, 1)), rtol=1e-12)  # the time of the first row
    np.testing.assert_allclose(run(u, [1.0, 2.0, 4.0]), np.outer([1.0, 2.0, 4.0], run.params), rtol=1e-12)
    np.testing.assert_allclose(run(u[0], 3.0), 3.0 * run.params, rtol=1e-12)
    for bad in ((u, [1.0, 2.0]), (np.ones(3), 1.0), (1.0, 1.0)):
        with pytest.raises(UsageError, match="expected"):
            run(*bad)


@pytest.mark.slow
def test_a_module_as_the_field_learns(capsys):
    assert load("own_module").main(adam_steps=20, lbfgs_steps=30) < 0.1
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
    assert ode.make_field(system, "kan", input_scaling="affine+tanh") == replace(affine, squash=True)
    with pytest.raises(UsageError, match="unknown input_scaling"):
        ode.make_field(system, "kan", input_scaling="log")


def test_a_module_needs_torch():
    class Stub:
        name = "julia"

    with pytest.raises(UsageError, match="needs backend 'torch'"):
        ode.train("lotka", load("own_module").GreyBox(), backend=Stub())


def field_of(sign=1.0, weight=0.1, act=torch.tanh, table=(1.0,)):
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2, bias=False)
            nn.init.constant_(self.net.weight, weight)

        def forward(self, t, u):
            return sign * act(self.net(u)) * table[0]

    return Field()


FEW = ode.FlatTraining(adam_steps=4, lbfgs_steps=2)
LINE = ode.Trajectory([0.0, 1.0, 2.0], [[1.0, 2.0], [2.0, 4.0], [3.0, 1.0]])
SWAPPED = ode.Trajectory([0.0, 1.0, 2.0], [[1.0, 2.0], [3.0, 1.0], [2.0, 4.0]])  # of the same sum of squares


@pytest.mark.parametrize(
    "options, differs",
    [
        ({"model": lambda: field_of(sign=-1.0)}, "code or attributes of the module"),
        ({"model": lambda: field_of(act=torch.sin)}, "code or attributes of the module"),
        ({"model": lambda: field_of(table=(2.0,))}, "code or attributes of the module"),
        ({"model": lambda: field_of(weight=0.2)}, "initial values"),
        ({"system": SWAPPED}, "data"),
        ({"training": ode.FlatTraining(adam_steps=5, lbfgs_steps=2)}, "training settings"),
        ({"rtol": 1e-6}, "solver"),
        ({"max_steps": 999}, "solver"),
    ],
)
def test_a_checkpoint_is_taken_up_by_the_same_job_alone(tmp_path, options, differs):
    def train(system=LINE, model=field_of, training=FEW, **solver):
        return ode.train(system, model(), training=training, checkpoint=str(tmp_path / "run.npz"), **solver)

    first = train()
    again = train()  # another module, made in the same way
    np.testing.assert_array_equal(first.params, again.params)
    assert first.fit.wall_s == again.fit.wall_s
    with pytest.raises(KansciError, match=rf"belongs to other settings.*\(not the same .*{differs}"):
        train(**options)


def test_an_interrupted_module_resumes_where_it_was(tmp_path):
    def stop(done, total, loss, phase):
        if done == 3:
            raise KeyboardInterrupt

    module, checkpoint = field_of(), tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        ode.train(LINE, module, training=FEW, checkpoint=checkpoint, progress=stop)
    calls = []
    run = ode.train(LINE, module, training=FEW, checkpoint=checkpoint, progress=lambda *a: calls.append(a[0]))
    assert calls[0] == 3 and calls[-1] == 6
    np.testing.assert_array_equal(run.params, ode.train(LINE, field_of(), training=FEW).params)


def test_rows_that_do_not_change_have_an_error_but_no_relative_one():
    t = np.arange(8.0)
    rest = ode.Trajectory(t, np.where(t < 4, 0.1, 0.3)[:, None] * [1.0, 0.0])
    run = ode.train(ode.system_from_trajectory(rest, "rest", 0.5), "mlp", hidden=(3,), training=FEW)
    assert run.fit.status == "finished" and run.metrics["train_mse"] < 1e-6
    assert run.metrics["test_mse"] == pytest.approx(np.mean((run.states[4:] - rest.states[4:]) ** 2))
    missing = run.metrics.missing
    assert run.metrics["train_relative_mse"] is run.metrics["test_relative_mse"] is None
    assert set(missing) == {"train_relative_mse", "test_relative_mse"} and "constant in time" in missing.popitem()[1]


def test_max_steps_holds_in_training_and_when_errors_are_computed():
    options = {"hidden": (3,), "training": FEW, "rtol": 1e-3, "atol": 1e-3}
    for gradient, steps in (("replay", 2), ("backprop", 1)):
        backend = ode.open_backend("torch", gradient=gradient)
        few = ode.train("lotka", "mlp", max_steps=steps, backend=backend, hidden=(3,), training=FEW)
        assert few.fit.status == "diverged" and f"more than {steps} steps" in few.fit.message
    lines = []
    run = ode.train("lotka", "mlp", max_steps=10, log=lines.append, **options)
    assert run.fit.status == "finished" and run.metrics["train_mse"] is run.metrics["test_mse"] is None
    assert "more than 10 steps" in run.metrics.missing["train_mse"] and "raise max_steps" in lines[-1]
    assert ode.train("lotka", "mlp", max_steps=2000, **options).metrics["test_mse"] > 0
    with pytest.raises(UsageError, match="got max_steps 0"):
        ode.train("lotka", "mlp", max_steps=0)


def test_compressed_tables_and_tables_of_other_names_are_data(tmp_path):
    for name, text in (("a.csv.gz", gzip.compress(b"t,x\n0,1\n1,2\n")), ("b.tsv", b"x\tt\n1\t0\n2\t1\n")):
        (tmp_path / name).write_bytes(text)
        system = ode.train(str(tmp_path / name), "mlp", hidden=(2,), training=FEW).system
        assert system.name == name[0] and system.trajectories[0].states.tolist() == [[1.0], [2.0]]
