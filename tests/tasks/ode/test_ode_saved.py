"""Trained models in folders: what is loaded is what was saved, and whatever is wrong is one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import KansciError, UsageError, ode
from kansciml.backends.base import Series
from kansciml.models.units import Units
from kansciml.tasks.ode.evaluation import Metrics

SHORT = ode.FlatTraining(adam_steps=3, lbfgs_steps=0)
T = np.linspace(0.0, 2.0, 7)
VAN_DER_POL = Path(__file__).parents[3] / "examples" / "own_system.py"


def two_series(forced=True):
    """A model of two series in units of their own, one learned initial state, and (`forced`) inputs and time."""
    width = 4 if forced else 2
    about_input = {"center": (1.0,) * width, "scale": (2.0,) * width, "rate": (0.3, 0.1)}
    spec = ode.FieldSpec("kan", (width, 3, 2), inputs=int(forced), time=forced, **about_input)
    kinds = ("held", "linear") if forced else ()
    inputs = [ode.Inputs([0.0, 0.7, 2.0], [[0.1], [-0.4], [0.9]], kind) for kind in kinds] or [None, None]
    data = np.column_stack([np.sin(T), np.cos(T)])
    first = Series(data[0], T, data, inputs=inputs[0], learned=True, name="first")
    second = Series([0.3, 0.2], T[1:], data[1:], inputs=inputs[1], name="second")
    units = Units(np.array([0.1, 0.2]), np.array([1.3, 0.7]), 0.0, 1.7)
    problem = ode.OdeProblem(spec, (first, second), [0.5, 0.5], units=units)
    params = problem.initial_parameters(3) + 0.01
    solver = ode.open_backend("torch").solver(problem)
    about = {"backend": "torch", "method": "replay"}
    return ode.OdeModel(problem, params, Metrics(), ("x", "y"), ("force",) * forced, about, solver)


def test_trajectories_are_kept_to_the_last_bit(tmp_path):
    model = two_series(forced=False)
    loaded = ode.load(model.save(tmp_path / "model"))
    for series in (0, 1):
        np.testing.assert_array_equal(loaded.trajectory(T, series=series), model.trajectory(T, series=series))
    assert not np.array_equal(loaded.trajectory([0.0])[0], model.problem.u0)  # it was learned
    start = {"u0": [0.2, 0.1], "t0": 1.0}
    np.testing.assert_array_equal(loaded.trajectory([1.0, 4.0], **start), model.trajectory([1.0, 4.0], **start))


@pytest.mark.parametrize(("solver", "kind"), [("BS3", "3"), ("Tsit5", "5"), ("Vern8", "8"), ("FBDF", "stiff")])
def test_a_solver_of_the_other_backend_is_replaced_by_one_of_its_kind(tmp_path, solver, kind):
    folder = two_series(forced=False).save(tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    described["solver"]["name"] = solver  # as Julia trained it
    (folder / "model.json").write_text(json.dumps(described))
    loaded = ode.load(folder)
    assert loaded.problem.solver == kind and np.isfinite(loaded.trajectory([1.0, 2.0])).all()


def test_fields_with_inputs_and_time_are_kept_to_the_last_bit(tmp_path):
    model = two_series()
    loaded = ode.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.params, model.params)
    u, w = np.random.default_rng(0).normal(size=(2, 5, 2))
    np.testing.assert_array_equal(loaded(u, 0.5, w[:, :1]), model(u, 0.5, w[:, :1]))
    assert (loaded.field, loaded.labels, loaded.input_labels) == (model.field, model.labels, model.input_labels)
    for one, other in zip(loaded.problem.series, model.problem.series):
        assert one.name == other.name and one.inputs.kind == other.inputs.kind
        np.testing.assert_array_equal(one.inputs(T), other.inputs(T))


def test_another_process_needs_neither_data_nor_code(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(VAN_DER_POL.read_text())
    run = ode.train(source, model="mlp", hidden=(4,), training=SHORT)
    folder = run.save(tmp_path / "model")
    source.unlink()
    assert (folder / "system.py").read_text() == VAN_DER_POL.read_text()
    code = f"from kansciml import ode; print(ode.load({str(folder)!r}).trajectory([0.0, 1.5, 9.0]).tolist())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    np.testing.assert_array_equal(json.loads(told), run.trajectory([0.0, 1.5, 9.0]))
    assert ode.load(folder).metrics == run.metrics


class Own(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))
        self.register_buffer("factor", torch.tensor(0.1))

    def forward(self, t, u):
        return self.factor * self.net(u)


def test_a_module_is_loaded_into_one_of_its_class(tmp_path):
    run = ode.train("lotka", Own(), training=SHORT)
    folder = run.save(tmp_path / "model")
    other = Own()
    other.factor.fill_(7.0)
    np.testing.assert_array_equal(ode.load(folder, module=other).trajectory(T), run.trajectory(T))
    with pytest.raises(UsageError, match=r"a torch module, Own: load it with module=Own\(\.\.\.\)"):
        ode.load(folder)
    with pytest.raises(UsageError, match=r"the parameters net.0.weight \(4, 2\), .*: expected those saved"):
        ode.load(folder, module=Own(width=4))
    with pytest.raises(UsageError, match="got a module for a model that is a built-in field"):
        ode.load(two_series().save(tmp_path / "other"), module=Own())


def test_saving_over_a_model_replaces_it_and_over_anything_else_is_refused(tmp_path):
    model = two_series()
    model.save(tmp_path / "model")
    assert ode.load(model.save(tmp_path / "model")).labels == ("x", "y")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds model and no model.json: choose a new folder"):
        model.save(tmp_path)
    with pytest.raises(UsageError, match="is a file: expected a folder"):
        model.save(tmp_path / "notes.txt")


def changed(**values):
    def change(folder):
        path = folder / "model.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


DAMAGES = {
    "no model: expected a folder with model.json": lambda folder: (folder / "model.json").unlink(),
    "schema 9, this version reads 1": changed(schema=9),
    "model.safetensors: No such file": lambda folder: (folder / "model.safetensors").unlink(),
    "it is not the file that model.json was written with": lambda folder: (folder / "model.safetensors").write_bytes(
        b"0" * 99
    ),
    "model.json is damaged": lambda folder: (folder / "model.json").write_text('{"schema": 1,'),
    "1 labels and 1 input labels": changed(labels=["x"]),
    "unknown kind of field": changed(field={"kind": "oracle"}),
    "no 't0'": changed(units={"origin": [0.0, 0.0], "state": [1.0, 1.0]}),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_whatever_is_wrong_with_a_folder_is_one_line(tmp_path, message):
    folder = two_series().save(tmp_path / "model")
    DAMAGES[message](folder)
    with pytest.raises(KansciError) as caught:
        ode.load(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)
