"""From a run's folder to modules, losses and data: the record's loss, and its exact first and second derivatives."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.settings import changed
from torchdiffeq import odeint

from kansciml import KansciError, UsageError
from kansciml.backends import trajectory_loss
from kansciml.experiments.fig1 import experiment as fig1
from kansciml.experiments.fig2 import experiment as fig2
from kansciml.experiments.ode import experiment as ode
from kansciml.ode import get_system, make_field
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import settings_json
from kansciml.runs.trained import FirstSamples, chosen_models, config_of
from kansciml.tasks.ode.problem import make_problem
from kansciml.training.flat import FlatTraining

TINY = FlatTraining(4, lbfgs_steps=3)
CONFIG = changed(ode.OdeConfig(), system="spiral", backend="torch", seeds=1, hidden=(4,), training=TINY)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run_experiment(ode.EXPERIMENT, CONFIG, results=tmp_path_factory.mktemp("runs"), log=lambda line: None)


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def test_a_record_gives_its_models_with_the_loss_it_holds(record):
    models = trained_models(record)
    assert [one.name for one in models] == [row["id"] for row in record.result["runs"]]
    assert [(one.group, one.against) for one in models] == [("mlp", None), ("kan-width", "mlp"), ("kan-params", "mlp")]
    for one, row in zip(models, record.result["runs"]):
        loaded = one.load()
        loss = loaded.loss(loaded.module, loaded.batches).item()
        assert loss == pytest.approx(row["final_loss"], rel=1e-9) and one.loss == row["final_loss"]
        assert sum(p.numel() for p in loaded.module.parameters()) == row["n_parameters"]


@pytest.mark.parametrize("system, model", [("lotka", "mlp"), ("lotka", "kan"), ("rigid", "kan")])
def test_value_gradient_and_hessian_are_those_of_torchdiffeq_through_every_step(system, model):
    """torchdiffeq is given the first step, through whose choice it would differentiate too."""
    system = get_system(system)
    problem = make_problem(system, make_field(system, model, hidden=(3,)), 1e-6, 1e-6)
    rng = np.random.default_rng(0)
    params = problem.field.initial_parameters(0)
    module, ours, batch = trajectory_loss.trajectory_loss(problem, params + 0.02 * rng.normal(size=len(params)))
    parameters = list(module.parameters())
    options = {"norm": lambda error: error.abs().max(), "first_step": ours.sizes[0, 0].clone()}
    times = torch.from_numpy(problem.saveat)
    states = odeint(module, torch.from_numpy(problem.u0), times, rtol=1e-6, atol=1e-6, method="dopri5", options=options)
    scale = torch.from_numpy(problem.loss_scale)
    truth = (((states - torch.from_numpy(problem.data)) / scale) ** 2).mean()
    found = ours(module, batch)
    assert found.item() == pytest.approx(truth.item(), rel=1e-11)
    gradients = [flat(torch.autograd.grad(loss, parameters, create_graph=True)) for loss in (found, truth)]
    vector = torch.from_numpy(rng.normal(size=len(params)))
    products = [flat(torch.autograd.grad(gradient @ vector, parameters)) for gradient in gradients]
    for one, other in (gradients, products):
        assert torch.linalg.vector_norm(one - other) < 1e-8 * torch.linalg.vector_norm(other)


def test_one_newton_iteration_would_not_be_enough(record, monkeypatch):
    """What the second one is for: without it the gradient is right and the Hessian is not."""
    loaded = trained_models(record)[0].load()
    parameters = list(loaded.module.parameters())

    def derivatives(loss):
        gradient = flat(torch.autograd.grad(loss(loaded.module, loaded.batches), parameters, create_graph=True))
        return gradient.detach(), flat(torch.autograd.grad(gradient.sum(), parameters))

    first, second = derivatives(loaded.loss)
    monkeypatch.setattr(trajectory_loss, "NEWTON", 1)
    less, wrong = derivatives(loaded.loss)
    assert torch.allclose(first, less, rtol=1e-9, atol=1e-14)
    assert torch.linalg.vector_norm(second - wrong) > 1e-4 * torch.linalg.vector_norm(second)


def test_names_groups_and_tasks_choose_models(record):
    models = trained_models(record)
    assert chosen_models(models, ()) == models and chosen_models(models, ["spiral"]) == models
    assert [one.group for one in chosen_models(models, ["kan-width", "spiral.mlp.torch.0"])] == ["mlp", "kan-width"]
    with pytest.raises(UsageError, match=r"unknown model 'cnn': expected one of mlp, kan-width.*spiral\.mlp\.torch\.0"):
        chosen_models(models, ["cnn"])


def test_runs_that_cannot_be_studied_say_why(record, tmp_path):
    with pytest.raises(KansciError, match=r"is not finished \(interrupted\): resume it first"):
        trained_models(replace(record, status="interrupted"))
    with pytest.raises(KansciError, match="a run of fig1, which trains no models"):
        trained_models(replace(record, experiment=fig1.EXPERIMENT.name))
    rows = [{**row, "status": "diverged"} for row in record.result["runs"]]
    with pytest.raises(KansciError, match="no model of the run .* ended its training"):
        trained_models(replace(record, result={**record.result, "runs": rows}))
    other = {**record.arrays, "spiral.data": record.arrays["spiral.data"] * 1.01}
    with pytest.raises(KansciError, match="the data of spiral are not those"):
        trained_models(replace(record, arrays=other))


def test_inputs_and_weights_that_changed_since_are_other_data(tmp_path):
    table = pd.DataFrame({"t": np.arange(5.0), "x": np.exp(-np.arange(5.0)), "weight": np.arange(1.0, 6.0)})
    table.to_csv(tmp_path / "decay.csv", index=False)
    flags = {"data": tmp_path / "decay.csv", "weight_columns": ("weight",), "states": ("x",), "system": "lotka"}
    config = changed(CONFIG, model="mlp", hidden=(3,), **flags)
    kept = run_experiment(ode.EXPERIMENT, config, results=tmp_path / "results", log=lambda line: None)
    trained_models(kept)[0].load()
    table.assign(weight=2.0).to_csv(tmp_path / "decay.csv", index=False)
    with pytest.raises(KansciError, match="the data of decay are not those"):
        trained_models(kept)[0].load()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"solver": "8"}, "got solver 8: expected 5"),
        ({"learn_u0": True}, "got learned initial states: expected given ones"),
        ({"l1": 1e-3}, "trained with windows or penalties: expected the loss to be the misfit alone"),
    ],
)
def test_losses_without_second_derivatives_say_so(record, settings, message):
    other = replace(record, config=settings_json(changed(CONFIG, **settings)))
    with pytest.raises(UsageError, match=message):
        trained_models(other)[0].load()


def test_weights_of_components_are_those_of_the_training(record):
    weights = (2.0, 0.5)
    other = replace(record, config=settings_json(changed(CONFIG, component_weights=weights)))
    loaded, plain = (trained_models(one)[0].load() for one in (other, record))
    parts = [plain.loss(plain.module, (*plain.batches[:3], torch.tensor(w) + 0 * plain.batches[2])) for w in np.eye(2)]
    expected = sum(w * part.item() for w, part in zip(weights, parts)) / sum(weights)
    assert loaded.loss(loaded.module, loaded.batches).item() == pytest.approx(expected, rel=1e-12)


def test_configurations_come_back_from_their_records(record, tmp_path):
    assert config_of(ode.OdeConfig, record.config) == CONFIG
    for config in (fig2.EXPERIMENT.presets["smoke"], changed(CONFIG, data=tmp_path / "data.csv")):
        assert config_of(type(config), settings_json(config)) == config
    with pytest.raises(KansciError, match="unknown to this version .unknown setting 'colour'"):
        config_of(ode.OdeConfig, {**record.config, "colour": "red"})


def test_the_first_samples_of_batches():
    x, y = torch.arange(10), torch.arange(20).reshape(10, 2)
    (batch,) = FirstSamples((x, y), 4)
    assert batch[0].tolist() == [0, 1, 2, 3] and batch[1].shape == (4, 2)
    several = FirstSamples([x[:3], x[3:6], x[6:]], 5)
    assert [part.tolist() for part in several] == [part.tolist() for part in several] == [[0, 1, 2], [3, 4]]
    with pytest.raises(UsageError, match="got samples 0"):
        FirstSamples(x, 0)
