"""A layer of Lux that a Julia file defines, as the field of a neural ODE; what needs Julia is marked `julia`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kansciml import KansciError, UsageError, ode
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.select import open_for
from kansciml.backends.torch import TorchBackend, TorchOdeSolver
from kansciml.experiments.ode.experiment import OdeConfig
from kansciml.models.field_spec import FieldSpec
from kansciml.models.lux_field import LuxField
from kansciml.models.units import Units
from kansciml.runs.config_json import config_from_json
from kansciml.runs.settings import config_hash, settings_json
from kansciml.tasks.ode.evaluation import Metrics
from kansciml.tasks.ode.problem import lux_field
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.trained.saved import load_model, save_model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_field.jl"
UNITS = Units(np.array([0.1, 0.2]), np.array([2.0, 0.5]), 0.5, 3.0)
T = np.linspace(0.5, 2.0, 6)
CUBES = "using Lux\nChain(x -> x .^ 3, Dense({} => 8, tanh), Dense(8 => 2))"


def a_layer(source: str, **settings) -> LuxField:
    return LuxField("field.jl", source, 2, **settings)


def problem_of(field, units=UNITS, tolerance=1e-10, **settings) -> OdeProblem:
    rng = np.random.default_rng(0)
    inputs = ode.Inputs([0.5, 1.0, 2.0], rng.normal(size=(3, 1)), "held") if field.inputs else None
    series = [Series([0.4, -0.3], T[1:], rng.normal(size=(5, 2)), 0.5, inputs=inputs)]
    return OdeProblem(field, series, None, tolerance, tolerance, units=units, **settings)


# ---- without Julia ------------------------------------------------------------------------------------------------


def test_torch_refuses_a_layer_of_lux_in_one_line():
    field = lux_field(get_system("lotka"), EXAMPLE)
    told = "got a layer of Lux, own_field.jl"
    for call in (lambda: open_for(field, "torch"), lambda: open_for(field, TorchBackend())):
        with pytest.raises(UsageError, match=told):
            call()
    with pytest.raises(UsageError, match=told):
        TorchOdeSolver(problem_of(field))
    with pytest.raises(UsageError, match=told):
        ode.train("lotka", str(EXAMPLE))
    with pytest.raises(UsageError, match="was not read yet"):
        field.initial_parameters(0)


def test_the_content_of_the_file_counts_in_the_hash_of_the_run(tmp_path):
    path = tmp_path / "mine.jl"

    def hash_of(text, **settings):
        path.write_text(text)
        values = settings_json(OdeConfig()) | {"field": str(path), "backend": "julia", **settings}
        config = config_from_json(OdeConfig, values)
        return config_hash("ode", config), list(config.fields(get_system("lotka")))

    first, variants = hash_of("1")
    assert variants == ["mlp", "kan-width", "kan-params", "mine"]
    assert hash_of("1")[0] == first != hash_of("2")[0]
    assert hash_of("1", model="none")[1] == ["mine"]


def test_a_file_named_as_a_built_in_field_is_refused(tmp_path):
    (tmp_path / "kan-width.jl").write_text("1")
    config = config_from_json(OdeConfig, {"field": str(tmp_path / "kan-width.jl"), "backend": "julia"})
    with pytest.raises(UsageError, match="expected another name"):
        config.fields(get_system("lotka"))


def test_a_saved_layer_says_what_it_wants_and_sees_damage(tmp_path):
    field = a_layer("the code", n_parameters=3, center=(0.0, 1.0))
    about = {"backend": "julia", "method": "Replay"}
    model = ode.OdeModel(problem_of(field), np.ones(3), Metrics(), ("x", "y"), (), about, None)
    folder = save_model(model, tmp_path / "saved")
    assert (folder / "field.jl").read_text() == "the code"
    assert json.loads((folder / "model.json").read_text())["field"] == field.described() | {"center": [0, 1]} | {
        name: [] for name in ("scale", "rate")
    }
    with pytest.raises(UsageError, match=r"a layer of Lux, field.jl: take backend julia .* which runs .*field\.jl$"):
        load_model(folder)
    (folder / "field.jl").write_text("other code")
    with pytest.raises(KansciError, match=r"field\.jl is damaged"):
        load_model(folder, backend="julia")


# ---- with Julia ---------------------------------------------------------------------------------------------------


@pytest.mark.julia
@pytest.mark.parametrize("solver", ["5", pytest.param("stiff", marks=pytest.mark.slow)])
def test_a_file_of_a_built_in_field_has_the_numbers_of_that_field(julia, solver):
    spec = FieldSpec("mlp", (2, 5, 2), center=(0.2, 0.1), scale=(2.0, 1.5), rate=(1.0, 0.5))
    text = "using KanSciML\ns -> mlp_field([2, 5, 2]; center = s.center, scale = s.scale, rate = s.rate)"
    field = julia.read(a_layer(text, center=spec.center, scale=spec.scale, rate=spec.rate))
    assert field.n_parameters == spec.n_parameters
    params = spec.initial_parameters(1) + 0.1
    built_in, own = (julia.solver(problem_of(one, solver=solver)) for one in (spec, field))
    u, t = np.random.default_rng(2).normal(size=(7, 2)), 0.7
    np.testing.assert_allclose(own.rhs(u, t, params), built_in.rhs(u, t, params), rtol=1e-9)
    np.testing.assert_allclose(own.trajectory(params), built_in.trajectory(params), rtol=1e-7)
    (loss, gradient), (other, slope) = (one.value_and_grad(params) for one in (built_in, own))
    assert other == pytest.approx(loss, rel=1e-8)
    np.testing.assert_allclose(slope, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.julia
@pytest.mark.parametrize(
    "text",
    [
        CUBES.format(4),
        CUBES.format(4).replace("8 =>", "20 =>").replace("=> 8", "=> 20"),  # by Zygote
        "using Lux\nChain(Dense(4 => 20, tanh), Dense(20 => 2), y -> (z = copy(y); z[1, :] .*= 2; z))",  # not by Zygote
    ],
    ids=["few", "many", "mutating"],
)
def test_the_gradient_is_that_of_the_loss_with_inputs_and_time(julia, text):
    field = julia.read(a_layer(text, inputs=1, time=True))
    solver = julia.solver(problem_of(field))
    params, other = field.initial_parameters(3), field.initial_parameters(4)
    assert np.array_equal(params, field.initial_parameters(3)) and not np.array_equal(params, other)
    assert np.array_equal(params, params.astype(np.float32))  # as Lux draws them
    gradient = solver.value_and_grad(params)[1]
    direction = np.random.default_rng(1).normal(size=len(params))
    plus, minus = (solver.value_and_grad(params + h * direction)[0] for h in (1e-5, -1e-5))
    assert gradient @ direction == pytest.approx((plus - minus) / 2e-5, rel=1e-5)


@pytest.mark.julia
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("using Lux\nChain(Dense(2 => 3)", r"field\.jl:\d:\d+: syntax error: "),
        ("using Lux\nDens(2 => 2)", "^field.jl:2: UndefVarError: .*Dens"),
        ("using Lux\nx = 1", "^field.jl ends with a value of type Int64: expected a layer of Lux, or a function"),
        ("using Lux\nDense(2 => 3)", r"^field.jl: got an output of size \(3, 2\) for 2 states: expected a model that"),
        ("using Lux\nx -> Dense(length(x.scales) => 2)", "^field.jl: type NamedTuple has no field scales"),
        ("using Lux\nWrappedFunction(x -> -x)", "^field.jl defines a layer without parameters"),
    ],
)
def test_a_file_that_defines_no_field_is_one_clear_line(julia, text, told):
    with pytest.raises(UsageError, match=told) as caught:
        julia.read(a_layer(text))
    assert "\n" not in str(caught.value)


@pytest.mark.julia
def test_a_layer_is_tried_where_the_data_are(julia):
    text = "using Lux\nChain(x -> sqrt.(x .- 2), Dense(2 => 2))"
    assert julia.read(a_layer(text, center=(2.5, 3.0))).n_parameters == 6
    with pytest.raises(UsageError, match=r"^field.jl: expected a model .* it failed: DomainError"):
        julia.read(a_layer(text, center=(1.0, 3.0)))


@pytest.mark.julia
def test_a_layer_is_trained_resumed_saved_and_loaded(julia, tmp_path):
    settings = {
        "training": ode.FlatTraining(adam_steps=20, lbfgs_steps=10), "backend": julia, "seed": 2,
        "checkpoint": tmp_path / "state.npz",
    }  # fmt: skip
    run = ode.train("lotka", EXAMPLE, **settings)
    assert run.fit.loss < run.fit.history["loss"][0] and run.field.n_parameters == 218
    assert np.array_equal(ode.train("lotka", str(EXAMPLE), **settings).params, run.params)
    with pytest.raises(KansciError, match="field"):
        ode.train("lotka", replace(run.field, source=run.field.source + "\n"), **settings)
    model = ode.load(run.save(tmp_path / "saved"), backend=julia)
    assert np.array_equal(model.trajectory(T, u0=[1.0, 2.0]), run.trajectory(T, u0=[1.0, 2.0]))
    assert model.field.label() == "own_field"
