"""Several trajectories with gaps, weights and inputs: as data, as a system, as a problem, and how they are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kansciml import UsageError
from kansciml.backends.torch import TorchOdeSolver
from kansciml.ode import (
    evaluate,
    get_system,
    make_field,
    make_problem,
    resolve_system,
    sampled,
    system_from_trajectories,
)
from kansciml.tasks.ode.data import Trajectory, full_data, training_data, training_trajectories
from kansciml.tasks.ode.evaluation import METRICS, model_states
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.scaling import input_normalisation
from kansciml.tasks.ode.system import System

NAN = np.nan
T = np.arange(4.0)


def line(start: float = 0.0, slope: float = 1.0, rows: int = 5, name: str = "", **more: object) -> Trajectory:
    """x grows along a line, y stays."""
    t = np.linspace(0.0, 2.0, rows)
    return Trajectory(t, np.column_stack([start + slope * t, 0 * t + start]), ("x", "y"), name=name, **more)


# ---- one trajectory


def test_gaps_weights_and_inputs_are_cut_together() -> None:
    one = Trajectory(T, [[1.0], [NAN], [3.0], [4.0]], weights=[[1.0], [NAN], [0.5], [2.0]], inputs=T[:, None])
    part = one.until(2.0)
    np.testing.assert_array_equal(part.states, [[1.0], [NAN], [3.0]])
    assert part.weights.tolist() == [[1.0], [0.0], [0.5]] and part.measured.ravel().tolist() == [True, False, True]
    assert part.inputs.tolist() == [[0.0], [1.0], [2.0]] and one.input_labels == ("w1",)
    assert part.forcing(1.5) == 1.5 and line().forcing is None


def test_gaps_of_inputs_are_filled_as_their_kind_has_it() -> None:
    inputs = np.array([[0.0], [NAN], [4.0], [NAN]])
    held = Trajectory(T, T[:, None], inputs=inputs, input_kind="held")
    assert held.inputs.ravel().tolist() == [0.0, 0.0, 4.0, 4.0]
    assert Trajectory(T[:3], T[:3, None], inputs=inputs[:3]).inputs.ravel().tolist() == [0.0, 2.0, 4.0]


BAD = {
    "infinite": ({"states": [[1.0], [np.inf], [1.0], [1.0]]}, "a state is infinite"),
    "nothing": ({"states": np.full((4, 1), NAN)}, "trajectory a: no measurement at all"),
    "weights' shape": ({"weights": [1.0]}, r"weights of shape \(1,\): expected \(4, 1\)"),
    "negative weight": ({"weights": -np.ones((4, 1))}, "got -1 as the weight of u1 at time 0: expected a number of"),
    "missing weight": ({"weights": [[1.0], [NAN], [1.0], [1.0]]}, "got no number as the weight of u1 at time 1"),
    "no weight": ({"weights": np.zeros((4, 1))}, "every measurement has weight 0"),
    "inputs' shape": ({"inputs": np.ones((3, 1))}, r"inputs of shape \(3, 1\): expected \(4, m\)"),
    "inputs end early": (
        {"inputs": [[1.0], [2.0], [3.0], [NAN]], "input_labels": ("f",)},
        "input f is known from 0 to 2, the times run from 0 to 3",
    ),
    "held inputs begin late": ({"inputs": [[NAN], [2.0], [3.0], [1.0]], "input_kind": "held"}, "known from 1 to 3"),
    "input labels": ({"inputs": np.ones((4, 1)), "input_labels": ("a", "b")}, "got 2 input labels: expected 1"),
    "kind": ({"inputs": np.ones((4, 1)), "input_kind": "cubic"}, "linear, held"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_trajectory_is_refused_by_its_name(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(UsageError, match=message) as caught:
        Trajectory(**{"t": T, "states": T[:, None], "name": "a", **changes})
    assert "\n" not in str(caught.value)


# ---- a system of data


def test_trajectories_are_scaled_together_and_gaps_left_out() -> None:
    """Lines from 0 to 2 and from 10 to 14, one of them measured at its ends alone: range, slopes and spread of both."""
    steep = line(10.0, 2.0)
    states = steep.states.copy()
    states[1:-1] = NAN
    system = system_from_trajectories([line(), Trajectory(steep.t, states, ("x", "y"))], "lines")
    z = (np.array([[0.0, 0.0], [14.0, 10.0]]) - system.center) / system.scale
    np.testing.assert_allclose(z, [[-0.9, -0.9], [0.9, 0.9]])
    np.testing.assert_allclose(system.rate[0], np.sqrt((1.0 + 4.0) / 2))  # over the time of both
    x = [0.0, 0.5, 1.0, 1.5, 2.0, 10.0, 14.0]
    np.testing.assert_allclose(system.loss_scale[0], np.std(x))
    assert system.units.time == 2.0 and system.units.t0 == 0.0


def test_one_trajectory_is_what_it_was() -> None:
    system = system_from_trajectories([line()], "line", 0.6)
    assert system.training == (0,) and not system.train_ends and system.train_end == 1.0 and system.test_end == 2.0
    assert training_data(system).t.tolist() == [0.0, 0.5, 1.0] and len(full_data(system)) == 5


def test_trajectories_are_split_by_the_seed_and_by_time() -> None:
    data = [line(k, name=str(k), rows=5 + k) for k in range(10)]
    lines: list[str] = []
    one, same, other = (
        system_from_trajectories(data, "x", 0.5, validation=0.2, unseen=3, seed=seed, log=lines.append)
        for seed in (1, 1, 2)
    )
    assert (len(one.validation), len(one.unseen), len(one.training)) == (2, 3, 5)
    assert not {*one.validation} & {*one.unseen}
    assert (one.validation, one.unseen) == (same.validation, same.unseen) != (other.validation, other.unseen)
    assert lines[0] == f"trajectories tested on as unseen (drawn with seed 1): {', '.join(map(str, one.unseen))}"
    for k, cut in zip(one.training, training_trajectories(one)):
        assert len(cut) == round(0.5 * len(data[k])) and cut.name == str(k)


REFUSED = {
    "nothing left": ({"unseen": 2, "validation": 1}, "leave none of 3 to train on"),
    "half a trajectory": ({"unseen": 1.5}, "got 1.5 trajectories for unseen: expected a share below 1"),
    "a negative share": ({"validation": -0.5}, "expected a share below 1"),
    "infinitely many": ({"unseen": np.inf}, "got inf trajectories for unseen"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_split_that_cannot_be_is_refused(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        system_from_trajectories([line(k) for k in range(3)], "x", **options)


def test_components_and_rows_that_teach_nothing_are_refused() -> None:
    states = np.array([[0.0, NAN], [1.0, NAN], [2.0, 1.0]])
    with pytest.raises(UsageError, match="y is never measured in the rows that are trained on"):
        system_from_trajectories(Trajectory(T[:3], states, ("x", "y")), "late", 0.67)
    with pytest.raises(UsageError, match="nothing is measured after the first rows"):
        system_from_trajectories(Trajectory(T[:2], [[1.0], [NAN]]), "short")
    late = Trajectory(T, [[NAN], [NAN], [NAN], [1.0]], name="b")
    with pytest.raises(UsageError, match="trajectory b: no measurement at all in the 2 rows that are trained on"):
        system_from_trajectories([Trajectory(T, T[:, None], name="a"), late], "x", 0.5)
    with pytest.raises(UsageError, match="trajectory b: got 1 row of data"):
        system_from_trajectories([line(), Trajectory([0.0], [[1.0, 1.0]], name="b")], "x")
    with pytest.raises(UsageError, match="different inputs"):
        system_from_trajectories([line(), line(name="b", inputs=np.ones((5, 1)))], "x")
    with pytest.raises(UsageError, match="components x, y and y, x: expected the same, in one order"):
        system_from_trajectories([line(), replace(line(name="b"), labels=("y", "x"))], "x")


def test_data_of_any_kind_become_a_system(tmp_path: Path) -> None:
    frame = pd.DataFrame({"t": line().t, "x": line().states[:, 0], "y": line().states[:, 1]})
    frame.to_csv(tmp_path / "lines.csv", index=False)
    for data in (line(), [line()], frame, tmp_path / "lines.csv", str(tmp_path / "lines.csv")):
        system = resolve_system(data)
        np.testing.assert_array_equal(system.trajectories[0].states, line().states)
        assert system.labels == ("x", "y")
    assert len(resolve_system((line(), line(1.0))).training) == 2
    with pytest.raises(UsageError, match="expected at least one Trajectory"):
        resolve_system([])


# ---- a system of equations


def pulled(t: float, u: np.ndarray) -> np.ndarray:
    return np.sin(t) - u


def test_equations_that_depend_on_time_are_noticed_and_their_field_is_given_it() -> None:
    options = {"u0": [1.0], "train_end": 10.0, "test_end": 20.0, "train_saveat": np.linspace(0, 10, 21)}
    system = System("pulled", rhs=pulled, **options)
    assert system.time_dependent and not get_system("lotka").time_dependent
    np.testing.assert_allclose(input_normalisation(system), [[5.0], [5.0 / 0.9]])
    spec = make_field(sampled(system), "mlp", hidden=(3,))
    assert spec.time and spec.widths == (2, 3, 1) and spec.center[1:] == (5.0,)
    with pytest.raises(UsageError, match="raised IndexError at a time between 0 and 20"):
        System("table", rhs=lambda t, u: -u * [1.0, 2.0][int(t)], **options)


def test_initial_states_are_drawn_from_the_box_and_noise_is_relative() -> None:
    lotka = get_system("lotka")
    clean, noisy, again = (sampled(lotka, 40, noise=noise, unseen=3, seed=5) for noise in (0.0, 0.1, 0.1))
    assert (len(noisy.training), noisy.unseen, noisy.starts.shape) == (40, (40, 41, 42), (43, 2))
    low, high = lotka.box
    assert np.all((noisy.starts >= low) & (noisy.starts <= high)) and noisy.starts[0].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(clean.starts, noisy.starts)
    added = np.concatenate([a.states - b.states for a, b in zip(noisy.trajectories, clean.trajectories)])
    spread = np.concatenate([clean.trajectories[k].states for k in clean.training]).std(axis=0)
    np.testing.assert_allclose(added[: 40 * 35].std(axis=0) / spread, 0.1, rtol=0.05)
    assert not added[40 * 35 :].any()  # the unseen ones have none
    for a, b in zip(noisy.trajectories, again.trajectories):
        np.testing.assert_array_equal(a.states, b.states)
    np.testing.assert_array_equal(
        clean.trajectories[41].states, reference_solution(lotka, clean.train_saveat, clean.starts[41])
    )
    everything = np.concatenate([one.states for one in clean.trajectories[:40]])
    assert np.abs((everything - clean.center) / clean.scale).max() <= 0.9001


def test_a_system_whose_own_state_rests_is_scaled_by_the_others() -> None:
    def swing(t: float, u: np.ndarray) -> np.ndarray:
        return np.stack([u[..., 1], -u[..., 0]], axis=-1)

    box = (np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    system = System("rest", [0.0, 0.0], 7.0, np.linspace(0.0, 7.0, 71), rhs=swing, box=box)
    several = sampled(system, 8)
    slopes = swing(0.0, np.concatenate([several.trajectories[k].states for k in several.training]))
    assert len(set(several.rate)) == 1
    np.testing.assert_allclose(several.rate[0], np.sqrt(np.mean(slopes**2)), rtol=1e-12)


def test_the_loss_scale_of_several_trajectories_is_that_of_all() -> None:
    """Decays from 1 and from up to 9: not the spread of the first alone, unless the system says so."""
    box = (np.array([8.0]), np.array([9.0]))
    own = System("decay", [1.0], 2.0, np.linspace(0.0, 2.0, 2001), rhs=lambda t, u: -u, box=box)
    system = resolve_system(own)
    several = sampled(system, 3, unseen=2)
    states = np.concatenate([several.trajectories[k].states for k in several.training])
    np.testing.assert_allclose(several.loss_scale, states.std(axis=0), rtol=1e-3)
    np.testing.assert_array_equal(sampled(system, noise=0.1).loss_scale, system.loss_scale)
    given = resolve_system(replace(own, loss_scale=np.array([2.0])))
    assert sampled(given, 3).loss_scale.tolist() == [2.0]


def test_an_initial_state_before_the_first_measurement_is_known_and_not_shown_to_those_who_learn_it() -> None:
    own = System("decay", [1.0], 2.0, np.linspace(0.5, 2.0, 16), rhs=lambda t, u: -u, box=([2.0], [3.0]))
    system = sampled(resolve_system(own), 2, noise=0.1)
    assert all(np.isnan(one.states[0, 0]) and one.t[0] == 0.0 for one in system.trajectories)
    spec = make_field(system, "mlp", hidden=(2,))
    for one, start in zip(make_problem(system, spec).series, system.starts):
        np.testing.assert_array_equal(one.u0, start)
    for one, data in zip(make_problem(system, spec, learn_u0=True).series, system.trajectories):
        assert one.learned and one.u0 == data.states[1]
    assert make_problem(resolve_system(own), spec, learn_u0=True).u0 == pytest.approx(np.exp(-0.5), rel=1e-9)


def test_a_system_without_changes_is_the_system() -> None:
    assert sampled(get_system("spiral")) is get_system("spiral")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lotka", {"trajectories": 0}, "got trajectories 0"),
        ("lotka", {"noise": -1.0}, "got noise -1.0"),
        ("data", {"trajectories": 3}, "known through its data"),
        ("no box", {"trajectories": 3}, "no box to draw initial states from"),
    ],
)
def test_what_cannot_be_drawn_is_refused(name: str, options: dict, message: str) -> None:
    system = {
        "lotka": get_system("lotka"),
        "data": system_from_trajectories(line(), "x"),
        "no box": System("own", u0=[1.0], train_end=1.0, train_saveat=[0.0, 1.0], rhs=lambda t, u: -u),
    }[name]
    with pytest.raises(UsageError, match=message):
        sampled(system, **options)


# ---- problems, and errors


def solver_of(system: System, **options: object) -> tuple[TorchOdeSolver, np.ndarray]:
    problem = make_problem(system, make_field(system, "mlp", hidden=(3,)), 1e-8, 1e-8, **options)
    return TorchOdeSolver(problem), problem.initial_parameters(0)


def test_a_problem_has_a_series_for_each_trajectory_that_is_trained_on() -> None:
    data = [line(k, name=f"r{k}", inputs=np.full((5, 1), k), weights=np.full((5, 2), 1.0 + k)) for k in range(4)]
    system = system_from_trajectories(data, "x", 0.6, unseen=1, seed=3)
    problem = make_problem(system, make_field(system, "kan", hidden=(2,)))
    assert [one.name for one in problem.series] == [f"r{k}" for k in system.training] and len(problem.series) == 3
    for k, one in zip(system.training, problem.series):
        assert one.u0[0] == k and len(one.saveat) == 3 and one.weights.max() == 1.0 + k and one.inputs(1.0) == k
    assert problem.field.inputs == 1 and problem.field.widths == (3, 2, 2) and problem.solver == "5"
    assert make_problem(get_system("robertson"), make_field(get_system("robertson"), "mlp")).solver == "stiff"


def test_trajectories_long_after_one_another_are_learned_as_at_one_time() -> None:
    """Runs of two seconds, weeks apart, as time stamps have them."""
    curved = [Trajectory(t, np.column_stack([np.sin(t), np.cos(t)]), ("x", "y")) for t in (0.3 * T, 0.5 * T)]
    apart = [replace(one, t=one.t + start) for one, start in zip(curved, (1.7e9, 1.7e9 + 2e6))]
    values = []
    for data in (curved, apart):
        solver, params = solver_of(system_from_trajectories(data, "x"))
        values.append(solver.value_and_grad(params))
    np.testing.assert_allclose(values[1][0], values[0][0], rtol=1e-8)
    np.testing.assert_allclose(values[1][1], values[0][1], rtol=1e-6, atol=1e-8)


def test_a_measurement_of_weight_zero_is_used_nowhere() -> None:
    """Whatever it says: scaling, first guesses, loss and errors are the same; in the first row it is none."""
    weights, states = np.ones((5, 2)), [line().states.copy() for _ in range(2)]
    weights[[0, 2, 4], [1, 0, 0]] = 0.0
    states[0][weights == 0] = [77.0, -1e9, 5.0]
    found = []
    for own in states:
        one = Trajectory(line().t, own, ("x", "y"), weights=weights)
        system = system_from_trajectories([one, line(1.0)], "x", 0.6)
        problem = make_problem(system, make_field(system, "mlp", hidden=(3,)), learn_u0=True)
        solver, params = TorchOdeSolver(problem), problem.initial_parameters(0)
        loss, gradient = solver.value_and_grad(params)
        metrics, _ = evaluate(solver, system, params)
        found.append(
            [*problem.u0, *system.center, *system.rate, *system.loss_scale, loss, *gradient, *metrics.values()]
        )
        with pytest.raises(UsageError, match="y not measured, or of weight 0, in the first row"):
            make_problem(system, problem.field)
        np.testing.assert_array_equal(system.trajectories[0].states, own)  # pictures show it
    assert found[0] == found[1] and metrics["test_mse"] is not None


def test_an_initial_state_with_a_gap_is_to_be_learned() -> None:
    states = np.column_stack([T, T + 5.0])
    states[0, 1] = NAN
    system = system_from_trajectories(Trajectory(T, states, ("x", "y"), name="a"), "gap")
    spec = make_field(system, "mlp", hidden=(3,))
    with pytest.raises(UsageError, match="trajectory a: y not measured in the first row.*--learn-u0"):
        make_problem(system, spec)
    (series,) = make_problem(system, spec, learn_u0=True).series
    assert series.learned and series.u0.tolist() == [0.0, 6.0]  # the first value that was measured


def test_errors_are_those_of_all_measurements_of_a_kind() -> None:
    """By hand, from the states that the same solver gives for each trajectory."""
    data = [line(0.1 * k, rows=4 + k, name=str(k)) for k in range(5)]
    states = data[1].states.copy()
    states[1:3, 0] = NAN
    data[1] = Trajectory(data[1].t, states, ("x", "y"), name="1")
    system = system_from_trajectories(data, "x", 0.6, validation=1, unseen=1, seed=4)
    assert 1 in system.training
    solver, params = solver_of(system)
    metrics, first = evaluate(solver, system, params)

    def errors(ks: tuple[int, ...], rows: str) -> float:
        found = []
        for k in ks:
            one, end = system.trajectories[k], system.end_of(k)
            kept = {"all": one.t < np.inf, "train": one.t <= end, "test": one.t > end}[rows]
            found.append((model_states(solver, system, params, k, one.t) - one.states)[kept] ** 2)
        return float(np.nanmean(np.concatenate(found)))

    expected = {
        "train_mse": errors(system.training, "train"),
        "test_mse": errors(system.training, "test"),
        "validation_mse": errors(system.validation, "all"),
        "unseen_mse": errors(system.unseen, "all"),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9) and not metrics.missing
    np.testing.assert_allclose(first, model_states(solver, system, params, system.training[0], full_data(system).t))


def test_errors_are_against_the_truth_not_the_noise() -> None:
    system = sampled(get_system("lotka"), 2, noise=0.3, unseen=1)
    solver, params = solver_of(system)
    metrics, _ = evaluate(solver, system, params)
    true = [reference_solution(system, one.t, start) for one, start in zip(system.trajectories, system.starts)]
    found = [model_states(solver, system, params, k, one.t) for k, one in enumerate(system.trajectories)]
    assert metrics["train_mse"] == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(found[:2], true)]))
    assert metrics["unseen_mse"] == pytest.approx(np.mean((found[2] - true[2]) ** 2))
    np.testing.assert_array_equal(found[2][0], system.starts[2])


def test_a_system_of_one_trajectory_has_the_metrics_it_had() -> None:
    system = system_from_trajectories(line(), "x")
    metrics, _ = evaluate(*[(s := solver_of(system))[0], system, s[1]])
    assert tuple(metrics) == METRICS and "none are held out" in metrics.missing["test_mse"]


def test_an_unseen_trajectory_without_a_whole_first_row_has_no_error() -> None:
    states = line().states.copy()
    states[0, 0] = NAN
    data = [line(name="a"), Trajectory(line().t, states, ("x", "y"), name="b")]
    seed = next(s for s in range(9) if np.random.default_rng(s).permutation(2)[0] == 1)
    system = system_from_trajectories(data, "x", unseen=1, seed=seed)
    solver, params = solver_of(system)
    metrics, _ = evaluate(solver, system, params)
    assert (
        metrics["unseen_mse"] is None
        and "trajectory b: x not measured in its first row" in metrics.missing["unseen_mse"]
    )
