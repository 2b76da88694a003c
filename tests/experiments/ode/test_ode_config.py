"""Settings of a training from the command line: what is refused at once, and that old hashes stay."""

from dataclasses import replace

import pytest

from kansciml import UsageError
from kansciml.experiments.ode.config import RunConfig
from kansciml.experiments.ode.experiment import OdeConfig, plan
from kansciml.runs.config_json import config_from_json
from kansciml.runs.settings import config_hash, settings_json
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.problem import FieldConfig, make_field
from kansciml.tasks.ode.registry import get_system
from kansciml.training.flat import FlatTraining


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"backend": "torch", "solver": "Tsit5"}, "torch.* 'Tsit5': expected one of 3, 5, 8, stiff"),
        ({"backend": "julia", "solver": "dopri5"}, "Julia.* 'dopri5': expected one of"),
        ({"backend": "both", "solver": "Tsit5"}, "torch.* 'Tsit5'"),
        ({"backend": "auto", "solver": "euler"}, "solver 'euler': expected one of 3, .*Tsit5"),
        ({"backend": "torch", "solver": "stiff", "gradient": "adjoint"}, "solver .*'stiff': expected one of"),
    ],
)
def test_a_solver_that_the_backend_lacks_is_refused_before_anything_starts(settings, told):
    with pytest.raises(UsageError, match=told) as error:
        RunConfig(**settings)
    assert "\n" not in str(error.value)


def test_solvers_that_the_backend_has_pass():
    for backend, solver in (("auto", "Tsit5"), ("auto", "dop853"), ("both", "5"), ("torch", "8"), ("julia", "Tsit5")):
        assert RunConfig(backend=backend, solver=solver).solver == solver


def test_windows_with_a_growing_horizon_are_refused():
    with pytest.raises(UsageError, match="windows are short already"):
        RunConfig(fit=FitConfig(shooting=5), training=FlatTraining(curriculum=(0.5,)))


def test_what_does_not_suit_a_system_or_a_field_is_refused_before_training():
    for fit, told in ((FitConfig(component_weights=(1.0,)), "expected 2, one for"), (FitConfig(entropy=1.0), "an MLP")):
        config = OdeConfig(run=RunConfig(backend="torch", fit=fit))
        with pytest.raises(UsageError, match=told):
            plan(config)
    assert plan(replace(config, model="kan")).jobs


def test_settings_of_the_fit_count_in_the_hash_where_they_are_set():
    plain = RunConfig()
    assert config_hash("ode", plain) == config_hash("ode", RunConfig(fit=FitConfig(False, 0, (1.0,))))
    for fit in (FitConfig(learn_u0=True), FitConfig(shooting=4), FitConfig(batch_trajectories=2), FitConfig(l1=1e-3)):
        config = replace(plain, fit=fit)
        assert config_hash("ode", config) != config_hash("ode", plain)
        assert config_from_json(RunConfig, settings_json(config)) == config


def test_a_system_says_what_suits_it_and_the_user_has_the_last_word():
    system, own = get_system("robertson"), RunConfig(training=FlatTraining(adam_steps=7))
    assert RunConfig().suited_to(system).training.learning_rate == system.training_settings["learning_rate"]
    assert own.suited_to(system) is own and RunConfig().suited_to(get_system("lotka")) == RunConfig()
    assert make_field(system, "kan").squash and make_field(system, "kan", config=FieldConfig(grid=7)).squash
    assert not make_field(system, "kan", input_scaling="affine").squash
