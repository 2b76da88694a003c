"""Training on several trajectories: learned starts, windows, minibatches, validation, penalties, own losses."""

from dataclasses import replace

import numpy as np
import pytest

from kansciml import KansciError, UsageError, ode
from kansciml.models.edge_penalty import edge_norms
from kansciml.tasks.ode.data import system_from_trajectories

LOTKA = ode.get_system("lotka")
STARTS = np.array([[1.0, 1.0], [2.0, 1.5], [3.0, 2.0], [1.5, 2.5]])
QUICK = ode.FlatTraining(adam_steps=40, lbfgs_steps=20)
ROUGH = {"rtol": 1e-4, "atol": 1e-4}
FIELD = {"model": "mlp", "hidden": (8,), **ROUGH}


def lotka(t, start):
    return ode.reference_solution(LOTKA, t, np.array(start))


def make_trajectories():
    """Four of unequal length and times, the second with gaps."""
    found = []
    for k, start in enumerate(STARTS):
        t = np.linspace(0.0, 2.0 + 0.4 * k, 12 + 2 * k)
        states = lotka(t, start)
        if k == 1:
            states[3:6, 0], states[8] = np.nan, np.nan
        found.append(ode.Trajectory(10.0 * k + t, states, name=f"run {k}"))
    return found


TRAJECTORIES = make_trajectories()
DATA = system_from_trajectories(TRAJECTORIES, "four")


def test_every_trajectory_is_fitted_and_can_be_solved_from_any_state():
    run = ode.train(DATA, training=replace(QUICK, adam_steps=60, lbfgs_steps=40), **FIELD)
    assert run.metrics["train_relative_mse"] < 0.05
    for k, own in enumerate(TRAJECTORIES):
        states = run.trajectory(series=k)
        assert states.shape == own.states.shape
        np.testing.assert_array_equal(states[0], STARTS[k])
        assert np.nanmax(np.abs(states - own.states)) < 1.5
    np.testing.assert_array_equal(run.initial_states, STARTS)
    np.testing.assert_allclose(run.trajectory(11.0, u0=STARTS[1], t0=10.0), run.trajectory(11.0, series=1))


def test_learned_starts_are_nearer_to_the_truth_than_their_noisy_measurements():
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 3.0, 31)
    noisy = [ode.Trajectory(t, u + 0.4 * rng.standard_normal(u.shape)) for u in (lotka(t, start) for start in STARTS)]
    steps = ode.FlatTraining(adam_steps=100, lbfgs_steps=150)
    run = ode.train(system_from_trajectories(noisy, "noisy"), training=steps, learn_u0=True, **FIELD)
    first = np.stack([one.states[0] for one in noisy])
    assert np.linalg.norm(run.initial_states - STARTS) < 0.6 * np.linalg.norm(first - STARTS)
    np.testing.assert_allclose(run.trajectory(0.0, series=1)[0], run.initial_states[1])


def test_multiple_shooting_learns_the_oscillation_on_which_one_long_trajectory_gets_stuck():
    t = np.linspace(0.0, 20.0, 101)
    data = ode.Trajectory(t, lotka(t, STARTS[0]))
    steps = ode.FlatTraining(adam_steps=100, lbfgs_steps=70, final_learning_rate=1e-3)
    settings = {"training": steps, "model": "mlp", "hidden": (16,), **ROUGH}
    single, several = ode.train(data, **settings), ode.train(data, shooting=6, **settings)
    assert single.metrics["train_relative_mse"] > 0.1
    assert several.metrics["train_relative_mse"] < 0.02  # as one trajectory from the first row on
    assert len(several.problem.series) == 1 and several.params.shape == (several.field.n_parameters,)
    assert set(several.loss_terms) == {"data", "continuity"}


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [23, 47])
def test_a_killed_run_of_minibatches_of_windows_with_validation_ends_in_the_same_bits(tmp_path, at):
    data = system_from_trajectories(TRAJECTORIES, "four", validation=1)
    settings = {
        "training": ode.FlatTraining(adam_steps=40, lbfgs_steps=12, lbfgs_chunk=5),
        "learn_u0": True, "shooting": 5, "continuity": (1.0, 5.0), "batch_trajectories": 2, "l1": 1e-5, **FIELD,
    }  # fmt: skip

    def kill(done, *rest):
        if done == at:
            raise Killed

    whole = ode.train(data, **settings)
    with pytest.raises(Killed):
        ode.train(data, checkpoint=tmp_path / "c", progress=kill, **settings)
    resumed = ode.train(data, checkpoint=tmp_path / "c", **settings)
    np.testing.assert_array_equal(resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.fit.history["loss"], whole.fit.history["loss"])
    assert resumed.fit.validation_loss == whole.fit.validation_loss
    with pytest.raises(KansciError, match=r"not the same settings of the fit\)"):
        ode.train(data, checkpoint=tmp_path / "c", **settings | {"batch_trajectories": 3})


def test_the_parameters_that_do_best_on_validation_data_are_the_result():
    """Noise in a short span is overfitted; the trajectory for validation tells when."""
    data = system_from_trajectories(TRAJECTORIES, "four", validation=1)
    run = ode.train(data, training=QUICK, **FIELD)
    (k,) = data.validation
    own = TRAJECTORIES[k]
    residual = (run.trajectory(own.t, u0=own.states[0], t0=own.t[0]) - own.states) / data.loss_scale
    assert run.fit.validation_loss == pytest.approx(np.nanmean(residual**2), rel=1e-3)
    assert run.metrics["validation_mse"] is not None
    assert run.fit.loss >= run.fit.history["loss"].min()
    assert len(run.problem.series) == 3


def test_penalties_make_edges_vanish_and_are_told():
    lines = []
    kan = {"model": "kan", "hidden": (4,), "training": QUICK, **ROUGH}
    free, sparse = ode.train("lotka", **kan), ode.train("lotka", l1=0.5, entropy=0.01, log=lines.append, **kan)
    assert lines[-1].startswith("loss ") and lines[-1].endswith(" entropy") and " l1 + " in lines[-1]
    assert sum(sparse.loss_terms.values()) == pytest.approx(sparse.fit.loss)
    size = [sum(norms.sum() for norms in edge_norms(run.field, run.params)) for run in (free, sparse)]
    assert size[1] < 0.8 * size[0]
    assert free.loss_terms == {"data": free.fit.loss}


def test_a_loss_of_ones_own_is_what_is_fitted():
    def logarithmic(states, measured):
        return sum(
            ((u.clamp(min=1e-3).log() - one.states.log())[one.seen] ** 2).mean() for u, one in zip(states, measured)
        )

    run = ode.train(DATA, training=QUICK, loss=logarithmic, **FIELD)
    errors = [(np.log(run.trajectory(series=k)) - np.log(own.states)) ** 2 for k, own in enumerate(TRAJECTORIES)]
    assert run.fit.loss == pytest.approx(sum(np.nanmean(error) for error in errors), rel=1e-2)
    assert run.fit.loss < 0.5 * run.fit.history["loss"][0]


def test_a_component_of_weight_zero_is_not_fitted():
    run = ode.train("lotka", training=QUICK, component_weights=(1.0, 0.0), **FIELD)
    error = np.mean((run.trajectory() - run.problem.data) ** 2, axis=0)
    assert error[0] < 0.1 * error[1] and run.fit.loss == pytest.approx(error[0], rel=1e-2)


def test_windows_and_a_growing_horizon_exclude_each_other():
    with pytest.raises(UsageError, match="windows are short already, so choose one of the two"):
        ode.train("lotka", shooting=5, training=replace(QUICK, curriculum=(0.5,)))
