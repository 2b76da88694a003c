"""Windows with closed links lose nothing, learned starts and minibatches have exact gradients, a loss of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kansciml import UsageError
from kansciml.backends.base import OdeProblem, Series, Subset
from kansciml.backends.torch import ModuleField, TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.tasks.ode.fitting.config import FitConfig, Part
from kansciml.tasks.ode.fitting.objective import Objective
from kansciml.tasks.ode.fitting.windows import gaps, in_windows, prepared, uncut
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import get_system

SYSTEM = get_system("lotka")
FIELD = FieldSpec("mlp", (2, 6, 2), center=SYSTEM.center, scale=SYSTEM.scale, rate=SYSTEM.rate)
PARAMS = FIELD.initial_parameters(0)


def make_problem():
    """Two trajectories of 12 and 8 rows, the second with gaps, from t = 1 on."""
    t = np.linspace(0.0, 2.2, 12)
    states = reference_solution(SYSTEM, t)
    holes = states[:8] * 1.1
    holes[:2, 0], holes[3], holes[4:, 1] = np.nan, np.nan, np.nan
    series = Series(states[0], t, states), Series(np.array([2.0, 3.0]), t[:8] + 1.0, holes, 1.0, name="gappy")
    return OdeProblem(FIELD, series, np.array([1.5, 0.8]), 1e-10, 1e-10, units=SYSTEM.units)


PROBLEM = make_problem()


def squares(states, measured):
    return sum((one.weights * (u - one.states.nan_to_num())).pow(2).sum() for u, one in zip(states, measured))


def test_a_first_guess_is_the_first_measurement_of_a_component_or_what_the_problem_starts_from():
    learned = prepared(PROBLEM, FitConfig(learn_u0=True))
    np.testing.assert_array_equal(learned.series[0].u0, PROBLEM.data[0])
    np.testing.assert_array_equal(learned.series[1].u0, [PROBLEM.series[1].data[2, 0], PROBLEM.series[1].data[0, 1]])
    never = np.where([True, False], PROBLEM.series[1].data, np.nan)
    unseen = replace(PROBLEM, series=(PROBLEM.series[0], replace(PROBLEM.series[1], data=never)))
    assert prepared(unseen, FitConfig(learn_u0=True)).series[1].u0[1] == 3.0
    assert learned.n_parameters == FIELD.n_parameters + 4


def test_a_trajectory_without_a_measurement_has_no_initial_state_to_learn():
    empty = replace(PROBLEM.series[1], data=np.full((8, 2), np.nan))
    with pytest.raises(UsageError, match="got trajectory gappy without a single measurement"):
        prepared(replace(PROBLEM, series=(PROBLEM.series[0], empty)), FitConfig(learn_u0=True))


@pytest.mark.parametrize("rows", [2, 4, 6, 100])
def test_windows_whose_links_are_closed_have_the_loss_of_the_whole(rows):
    windows = in_windows(PROBLEM, rows)
    assert len(windows.series) == sum(-(-(len(one.saveat) - 1) // (rows - 1)) for one in PROBLEM.series)
    whole, cut = TorchOdeSolver(PROBLEM), TorchOdeSolver(windows)
    firsts = [k for k, one in enumerate(windows.series) if one.follows is None]
    starts = []
    for k, one in enumerate(windows.series):
        if one.follows is not None:
            of = int(np.searchsorted(firsts, k, side="right")) - 1
            starts.append(whole.trajectory(PARAMS, one.t0, series=of)[0])
    starts = np.reshape(starts, (-1, 2))
    params = np.concatenate([PARAMS, windows.solved_in.states_in(starts).ravel()])
    assert cut.value_and_grad(params)[0] == pytest.approx(whole.value_and_grad(PARAMS)[0], rel=1e-7)
    np.testing.assert_allclose(gaps(cut, params), 0.0, atol=1e-7)
    np.testing.assert_array_equal(uncut(PROBLEM, windows, params), PARAMS)


def test_a_window_starts_between_the_measurements_around_it():
    second = [one for one in in_windows(PROBLEM, 4).series if one.name == "gappy"][1]
    data = PROBLEM.series[1].data
    assert second.t0 == PROBLEM.series[1].saveat[3] and second.follows == 4 and np.isnan(data[3]).all()
    np.testing.assert_allclose(second.u0, [(data[2, 0] + data[4, 0]) / 2, data[2, 1]])


@pytest.mark.parametrize("subset", [None, Subset((0, 2, 4)), Subset((1,)), Subset((3, 4), 0.7)])
@pytest.mark.parametrize("own", [False, True])
def test_the_gradient_of_a_minibatch_of_windows_reaches_the_starts_that_follow(subset, own):
    windows = replace(in_windows(prepared(PROBLEM, FitConfig(learn_u0=True)), 4), continuity=3.0)
    fit = FitConfig(l1=0.01)
    objective = Objective([TorchOdeSolver(windows)], fit, squares if own else None)
    part = None if subset is None else Part(subset, 0)
    params = windows.initial_parameters(1)
    rng = np.random.default_rng(0)
    params += 0.05 * rng.standard_normal(len(params))
    _, gradient = objective(params, part)
    starts = np.eye(len(params))[FIELD.n_parameters :]
    for direction in (*rng.standard_normal((2, len(params))), *starts):
        ahead, back = (objective(params + h * direction, part)[0] for h in (1e-5, -1e-5))
        assert gradient @ direction == pytest.approx((ahead - back) / 2e-5, rel=2e-6, abs=2e-7)
    if subset == Subset((1,)):
        assert np.any(gradient[FIELD.n_parameters + 4 : FIELD.n_parameters + 6])  # the start of the third window


def test_parts_of_the_loss_add_up():
    windows = in_windows(PROBLEM, 4)
    fit = FitConfig(shooting=4, continuity=(2.0, 8.0), l1=0.01)
    solvers = [TorchOdeSolver(replace(windows, continuity=weight)) for weight in fit.continuity]
    objective, params = Objective(solvers, fit), windows.initial_parameters(0)
    terms = objective.terms(params, objective(params)[0])
    assert list(terms) == ["data", "continuity", "l1"]
    early = objective(params, Part(None, 0))[0]
    assert objective(params)[0] == pytest.approx(sum(terms.values()), rel=1e-12)
    assert objective(params)[0] - early == pytest.approx(0.75 * terms["continuity"], rel=1e-6)


def test_a_loss_of_ones_own_can_be_the_built_in_one():
    scale = torch.from_numpy(PROBLEM.loss_scale)

    def mean_square(states, measured):
        errors = [((u - one.states) / scale)[one.seen] for u, one in zip(states, measured)]
        return (torch.cat(errors) ** 2).mean()

    solver = TorchOdeSolver(PROBLEM)
    for part in (None, Part(Subset((1,), 0.8), 0)):
        loss, gradient = Objective([solver], FitConfig(), mean_square)(PARAMS, part)
        expected = solver.value_and_grad(PARAMS, part and part.subset)
        assert loss == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "loss, told",
    [
        (lambda u, data: u[0], "a tensor of shape"),
        (lambda u, data: 1.0, "gave float"),
        (lambda u, data: torch.tensor(1.0), "made from the states"),
        (lambda u, data: sum((v - one.states).pow(2).sum() for v, one in zip(u, data)), "is NaN: leave out"),
    ],
)
def test_a_loss_that_cannot_be_followed_is_refused(loss, told):
    with pytest.raises(UsageError, match=told):
        Objective([TorchOdeSolver(PROBLEM)], FitConfig(), loss)(PARAMS)


def test_weights_of_components_weigh_and_zero_leaves_one_out():
    losses = [TorchOdeSolver(prepared(PROBLEM, FitConfig(component_weights=w))).value_and_grad(PARAMS)[0]
              for w in ((), (1.0, 1.0), (5.0, 0.0), (0.0, 2.0), (3.0, 1.0))]  # fmt: skip
    counts = [sum(np.isfinite(one.data[:, i]).sum() for one in PROBLEM.series) for i in (0, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)
    assert np.average(losses[2:4], weights=counts) == pytest.approx(losses[0], rel=1e-12)
    assert np.average(losses[2:4], weights=np.multiply([3, 1], counts)) == pytest.approx(losses[4], rel=1e-12)
    with pytest.raises(UsageError, match="got 3 component_weights: expected 2"):
        prepared(PROBLEM, FitConfig(component_weights=(1.0, 1.0, 1.0)))


def test_penalties_that_a_field_does_not_have_are_refused():
    with pytest.raises(UsageError, match="leave it at 0 for an MLP"):
        prepared(PROBLEM, FitConfig(entropy=1e-3))
    module = ModuleField(torch.nn.Linear(2, 2), 2)
    with pytest.raises(UsageError, match="for built-in fields"):
        prepared(replace(PROBLEM, field=module), FitConfig(l1=1e-3))


def test_every_epoch_of_minibatches_takes_each_series_once_by_step_and_seed_alone():
    fit = FitConfig(batch_trajectories=3)
    drawn = [fit.part(step, 100, 1.0, 10, seed=7).subset.series for step in range(40)]
    for epoch in range(10):
        assert sorted(sum(drawn[4 * epoch : 4 * epoch + 4], ())) == list(range(10))
    assert len(set(drawn)) > 20 and fit.all_every(10) == 40
    assert fit.part(5, 100, 1.0, 10, 7).subset.series == drawn[5] != fit.part(5, 100, 1.0, 10, 8).subset.series
    assert fit.part(5, 100, 1.0, 3, 7) is None and fit.all_every(3) == 0
    assert fit.part(5, 100, 0.5, 3, 7) == Part(Subset(None, 0.5), 0)


def test_weights_of_links_grow_in_equal_parts_of_adam():
    fit = FitConfig(shooting=5, continuity=(1.0, 10.0, 100.0))
    levels = [2 if (part := fit.part(step, 9, 1.0, 4, 0)) is None else part.level for step in range(9)]
    assert levels == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"shooting": 1}, "at least 2 rows"),
        ({"shooting": 5, "continuity": (0.0,)}, "positive weights"),
        ({"shooting": 5, "continuity": (10.0, 1.0)}, "that do not fall"),
        ({"continuity": (10.0,)}, "without shooting"),
        ({"batch_trajectories": -1}, "at least 1, or 0"),
        ({"component_weights": (0.0, 0.0)}, "one that is not 0"),
        ({"component_weights": (1.0, float("nan"))}, "at least 0"),
        ({"l1": -1.0}, "at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, told):
    with pytest.raises(UsageError, match=told):
        FitConfig(**settings)
    with pytest.raises(UsageError, match="windows are short already"):
        FitConfig(shooting=5).check_with((0.5,))
