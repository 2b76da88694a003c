"""The trainer: torch's Adam exactly, exact resume, divergence, corrupt checkpoints."""

import json

import numpy as np
import pytest
import torch

from kansciml import KansciError, SolveError, UsageError
from kansciml.training._flat_state import CAPPED, CONVERGED, NOISE, Iterate
from kansciml.training.flat import FlatTraining, adam_step, checked_ladder, train_flat

MATRIX = np.diag([1.0, 10.0, 100.0])
START = np.array([1.0, -2.0, 3.0])


def quartic(params, subset=None):
    r = MATRIX @ params - 1
    return float(np.mean(r**2) + np.mean(params**4)), (2 * MATRIX @ r + 4 * params**3) / 3


class Interrupted:
    """A function that is interrupted at its n-th call."""

    def __init__(self, at):
        self.calls, self.at = 0, at

    def __call__(self, params, subset):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return quartic(params)


def test_adam_step_is_torch_adam():
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    iterate = Iterate(0, START, np.zeros(3), np.zeros(3), 0)
    for _ in range(25):
        gradient = quartic(iterate.params)[1]
        iterate = adam_step(iterate, gradient, 0.1)
        parameter.grad = torch.from_numpy(quartic(parameter.detach().numpy())[1])
        optimiser.step()
    np.testing.assert_array_equal(iterate.params, parameter.detach().numpy())


def test_finds_the_minimum_and_keeps_the_best():
    result = train_flat(quartic, START, FlatTraining(200, 0.1, 0.01, 200))
    assert result.status == "finished" and result.ended == CONVERGED
    assert np.linalg.norm(quartic(result.params)[1]) < 1e-6
    assert result.loss == quartic(result.params)[0] <= result.history["loss"].min()
    assert set(result.history["phase"]) == {0, 1}
    assert np.all(np.diff(result.history["seconds"]) >= 0)


@pytest.mark.parametrize("at", [1, 2, 17, 40, 41, 47, 58, 66])
def test_an_interrupted_run_resumes_and_ends_in_the_same_bits(tmp_path, at):
    settings = FlatTraining(40, 0.1, 0.01, 30, lbfgs_memory=3, lbfgs_chunk=8)
    whole = train_flat(quartic, START, settings)
    checkpoint = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        train_flat(Interrupted(at), START, settings, checkpoint=checkpoint)
    resumed = train_flat(quartic, START, settings, checkpoint=checkpoint)
    np.testing.assert_array_equal(resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    assert resumed.loss == whole.loss


@pytest.mark.parametrize("at", [3, 23, 41, 52, 60])
def test_parts_validation_and_all_data_resume_to_the_same_bits(tmp_path, at):
    """Steps fit a part; every seventh the whole; what is kept does best on other data, judged at every tenth."""
    settings = FlatTraining(40, 0.1, 0.01, 30, lbfgs_memory=3, lbfgs_chunk=8)
    judged = []

    def part(params, subset=None):
        loss, gradient = quartic(params)
        return (loss, gradient) if subset is None else (loss + 0.1 * params[subset], gradient + 0.1 * np.eye(3)[subset])

    def other(params):
        judged.append(params.copy())
        return float(np.sum((params - 0.1) ** 2))

    calls = 0

    def interrupted(params, subset):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return part(params, subset)

    more = {"subset": lambda step: step % 3, "all_every": 7, "validate": other}
    whole = train_flat(part, START, settings, **more)
    losses = [np.sum((params - 0.1) ** 2) for params in judged]
    np.testing.assert_array_equal(whole.params, judged[int(np.argmin(losses))])
    assert whole.validation_loss == min(losses) and whole.loss == quartic(whole.params)[0]
    assert 8 <= len(judged) <= 12
    with pytest.raises(KeyboardInterrupt):
        train_flat(interrupted, START, settings, checkpoint=tmp_path / "c", **more)
    resumed = train_flat(part, START, settings, checkpoint=tmp_path / "c", **more)
    np.testing.assert_array_equal(resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    assert resumed.validation_loss == whole.validation_loss


@pytest.mark.parametrize("at", [17, 47, 63])
def test_processor_time_and_operations_add_up_over_kill_and_resume(tmp_path, at):
    settings = FlatTraining(40, 0.1, 0.01, 30, lbfgs_memory=3, lbfgs_chunk=8)

    def session(last):
        """With clocks of its own, of 2 s and 5 operations a call."""
        function = Interrupted(last)
        spent = {"cpu": lambda: 100 + 2.0 * function.calls, "work": lambda: 5.0 * function.calls}
        return train_flat(function, START, settings, checkpoint=tmp_path / f"{at}" if last else None, **spent)

    whole = session(0)
    np.testing.assert_array_equal(whole.history["work"], 5 * whole.history["evaluations"])
    np.testing.assert_array_equal(whole.history["cpu_s"], 2 * whole.history["evaluations"])
    with pytest.raises(KeyboardInterrupt):
        session(at)
    resumed = session(1000)
    np.testing.assert_array_equal(resumed.history["work"], whole.history["work"])  # what was lost is done again
    assert np.all(np.diff(resumed.history["cpu_s"]) > 0)
    assert 2 * whole.evaluations <= resumed.cpu_s <= 2 * (whole.evaluations + 12)  # and its time counts twice


def test_the_best_of_minibatches_is_judged_on_all_data():
    seen = []

    def part(params, subset=None):
        if subset is None:
            seen.append(params.copy())
        return quartic(params)

    result = train_flat(part, START, FlatTraining(20, 0.1, 0.01, 0), subset=lambda step: 0, all_every=6)
    assert len(seen) == 5  # steps 0, 6, 12, 18, and the end
    assert result.loss == min(quartic(params)[0] for params in seen)
    assert len(result.history["loss"]) == 20


def test_a_finished_run_is_returned_without_another_evaluation(tmp_path):
    settings = FlatTraining(5, 0.1, 0.01, 5)
    first = train_flat(quartic, START, settings, checkpoint=tmp_path / "c")
    again = train_flat(Interrupted(1), START, settings, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(first.params, again.params)
    assert first.wall_s == again.wall_s


def test_other_settings_corruption_and_unwritable_folders_are_told_apart(tmp_path):
    checkpoint = tmp_path / "state.npz"
    train_flat(quartic, START, FlatTraining(5, 0.1, 0.01, 0), checkpoint=checkpoint)
    with pytest.raises(KansciError, match="belongs to other settings: delete it"):
        train_flat(quartic, START, FlatTraining(6, 0.1, 0.01, 0), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(KansciError, match="cannot be read .*: delete it to start again"):
        train_flat(quartic, START, FlatTraining(5, 0.1, 0.01, 0), checkpoint=checkpoint)
    (tmp_path / "file").write_text("")
    with pytest.raises(KansciError, match="cannot write"):
        train_flat(quartic, START, FlatTraining(5, 0.1, 0.01, 0), checkpoint=tmp_path / "file" / "state.npz")


def test_divergence_stops_with_one_line_and_the_best_parameters():
    def fails_far_out(params, subset):
        if np.abs(params).max() > 3.0001 or fails_far_out.calls > 20:
            raise SolveError("the solution blows up near t = 1")
        fails_far_out.calls += 1
        return quartic(params)

    fails_far_out.calls, lines = 0, []
    result = train_flat(fails_far_out, START, FlatTraining(100, 0.1, 0.01, 10), log=lines.append)
    assert result.status == "diverged" and np.isfinite(result.loss)
    assert result.loss == quartic(result.params)[0] < quartic(START)[0]
    assert lines[-1].startswith("diverged at Adam step 21: the solution blows up near t = 1; the best parameters")
    assert sum("learning rate halved" in line for line in lines) == 5


def test_nan_losses_and_an_unsolvable_start_count_as_diverged():
    result = train_flat(lambda p, h: (float("nan"), p), START, FlatTraining(10, 0.1, 0.01, 10))
    assert result.status == "diverged" and result.loss == np.inf
    np.testing.assert_array_equal(result.params, START)
    result = train_flat(lambda p, h: (float("nan"), p), START, FlatTraining(0, 0.1, 0.01, 10))
    assert result.status == "diverged" and "start of L-BFGS" in result.message


def test_lbfgs_steps_back_from_where_the_ode_cannot_be_solved():
    def walled(params, subset):
        if params[0] > 1.05:
            raise SolveError("wall")
        return quartic(params)

    result = train_flat(walled, START, FlatTraining(0, 0.1, 0.01, 100))
    assert result.status == "finished" and np.linalg.norm(quartic(result.params)[1]) < 1e-6


def test_curriculum_grows_in_the_first_half():
    settings = FlatTraining(adam_steps=8, curriculum=(0.25, 0.5))
    assert [settings.share(step) for step in range(8)] == [0.25, 0.25, 0.5, 0.5, 1, 1, 1, 1]


def test_adam_fits_the_part_of_the_data_that_is_its_turn_and_lbfgs_all():
    seen = []
    parts = ["a", "b", None]
    train_flat(
        lambda p, s: (seen.append(s), quartic(p))[1], START, FlatTraining(3, 0.1, 0.01, 1), subset=parts.__getitem__
    )
    assert seen[:3] == parts and set(seen[3:]) == {None}


def test_progress_reports_every_iteration():
    calls = []
    train_flat(quartic, START, FlatTraining(3, 0.1, 0.01, 2), progress=lambda *a: calls.append(a))
    assert [c[0] for c in calls] == [1, 2, 3, 4, 5] and all(c[1] == 5 for c in calls)
    assert [c[3] for c in calls] == ["Adam"] * 3 + ["L-BFGS"] * 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"adam_steps": -1}, "at least 0"),
        ({"learning_rate": 0.0}, "positive numbers"),
        ({"learning_rate": 1e-5}, "final one not larger"),
        ({"curriculum": (0.0,)}, "shares"),
        ({"lbfgs_chunk": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        FlatTraining(**options)


def test_checkpoint_holds_no_pickle(tmp_path):
    train_flat(quartic, START, FlatTraining(2, 0.1, 0.01, 0), checkpoint=tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as stored:
        header = json.loads(stored["header"].tobytes())
        assert header["status"] == "finished"
        assert all(stored[name].dtype.kind in "fui" for name in stored.files)


def rough(noise):
    """Rosenbrock's function in six dimensions, least value 1e-6, with noise from one number to the next."""

    def value_and_grad(params, subset=None):
        x, y = params[:-1], params[1:]
        loss = 1e-6 + np.sum(100 * (y - x**2) ** 2 + (1 - x) ** 2)
        gradient = np.zeros_like(params)
        gradient[:-1] += -400 * x * (y - x**2) - 2 * (1 - x)
        gradient[1:] += 200 * (y - x**2)
        return float(loss + noise * (1 + np.sin(1e9 * params.sum()))), gradient

    return value_and_grad


class TestEnds:
    SETTINGS = FlatTraining(20, 1e-2, 1e-3, lbfgs_steps=2000, lbfgs_chunk=50, plateau=0.01)
    START = np.linspace(-1.0, 1.5, 6)

    def test_a_smooth_loss_ends_on_a_plateau_at_its_least_value(self):
        def slow(params, subset=None):  # a valley so flat that steps go on for long
            loss, gradient = rough(0.0)(params)
            return loss + 1e-3 * np.sum(np.abs(params - 1) ** 1.5), gradient + 1.5e-3 * np.sign(params - 1) * np.sqrt(
                np.abs(params - 1)
            )

        result = train_flat(slow, self.START, self.SETTINGS)
        assert result.ended == CONVERGED
        evaluations, loss = result.history["evaluations"], result.history["loss"]
        past = loss[evaluations <= 0.8 * result.evaluations][-1]
        assert past * 0.99 < result.loss <= past  # less than 1 % over the last fifth

    def test_noise_ends_it_early_and_a_ladder_goes_on(self):
        end = train_flat(rough(1e-2), self.START, self.SETTINGS)
        assert end.ended == NOISE and rough(0.0)(end.params)[0] > 1e-3
        climbed = train_flat(rough(1e-2), self.START, self.SETTINGS, tighter=[rough(1e-4), rough(0.0)])
        assert climbed.ended == CONVERGED and climbed.loss == pytest.approx(1e-6, rel=0.02)
        assert set(climbed.history["rung"]) <= {0, 1, 2} and climbed.history["rung"][-1] == 2
        assert np.all(np.diff(climbed.history["rung"]) >= 0) and np.all(np.diff(climbed.history["evaluations"]) > 0)

    def test_a_tolerance_that_gains_nothing_says_that_the_first_was_tight_enough(self):
        result = train_flat(rough(1e-12), self.START, self.SETTINGS, tighter=[rough(1e-13)])
        assert result.ended == CONVERGED and result.loss == pytest.approx(1e-6, rel=0.01)

    def test_a_tolerance_at_which_nothing_is_solved_ends_the_ladder_and_other_errors_are_told(self):
        def fails(error):
            def value_and_grad(params, subset):
                raise error

            return value_and_grad

        alone = train_flat(rough(1e-2), self.START, self.SETTINGS)
        stopped = train_flat(rough(1e-2), self.START, self.SETTINGS, tighter=[fails(SolveError("too many steps"))])
        assert (stopped.ended, stopped.loss) == (alone.ended, alone.loss)
        with pytest.raises(IndexError, match="of the loss"):
            train_flat(rough(1e-2), self.START, self.SETTINGS, tighter=[fails(IndexError("of the loss"))])

    def test_the_cap_is_told(self):
        assert train_flat(rough(0.0), self.START, FlatTraining(20, lbfgs_steps=5, plateau=0.01)).ended == CAPPED
        assert train_flat(rough(0.0), self.START, FlatTraining(20, lbfgs_steps=0)).ended == CAPPED

    @pytest.mark.parametrize("at", [5, 30, 90, 140, 250])
    def test_an_interrupted_ladder_resumes_to_the_same_bits(self, tmp_path, at):
        ladder, calls = [rough(1e-5), rough(0.0)], []

        def interrupted(function):
            def value_and_grad(params, subset):
                calls.append(1)
                if len(calls) == at:
                    raise KeyboardInterrupt
                return function(params)

            return value_and_grad

        whole = train_flat(rough(1e-3), self.START, self.SETTINGS, tighter=ladder)
        checkpoint = tmp_path / "state.npz"
        with pytest.raises(KeyboardInterrupt):
            first, *others = map(interrupted, (rough(1e-3), *ladder))
            train_flat(first, self.START, self.SETTINGS, tighter=others, checkpoint=checkpoint)
        resumed = train_flat(rough(1e-3), self.START, self.SETTINGS, tighter=ladder, checkpoint=checkpoint)
        for name in ("loss", "evaluations", "rung"):
            np.testing.assert_array_equal(resumed.history[name], whole.history[name])
        assert (resumed.ended, resumed.loss, resumed.evaluations) == (whole.ended, whole.loss, whole.evaluations)


@pytest.mark.parametrize("ladder", [(1.0,), (0.1, 0.1), (1e-2, 1e-1), (0.0,), (-1e-2,)])
def test_a_ladder_that_does_not_fall_is_refused(ladder):
    with pytest.raises(UsageError, match="expected factors below 1, each smaller than the last"):
        checked_ladder(ladder)
