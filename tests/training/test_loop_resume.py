"""A training that was killed, interrupted or found damaged ends in the bits of an unbroken one."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError
from kansciml.training._logging import read_rows
from kansciml.training.loop import MEASURED, LoopConfig, train

CONFIG = LoopConfig(
    epochs=4,
    batch_size=8,
    learning_rate=0.02,
    warmup=1,
    ema=0.9,
    log_every=4,
    checkpoint_steps=3,
    accelerator="cpu",
    seed=7,
)
STEPS = 7
TOTAL = 4 * STEPS


class Mixup:
    """Images of an epoch, mixed in pairs by shares drawn from (seed, epoch, batch)."""

    def __init__(self, epoch, first=0, made=None):
        self.epoch, self.first, self.made = epoch, first, made

    def __len__(self):
        return STEPS

    def seek(self, first):
        return Mixup(self.epoch, first, self.made)

    def __iter__(self):
        for place in range(self.first, STEPS):
            if self.made is not None:
                self.made.append(STEPS * self.epoch + place)
            generator = torch.Generator().manual_seed(7000 + 100 * self.epoch + place)
            x = torch.randn(8, 3, 6, 6, generator=generator)
            target = F.one_hot((x.mean((1, 2, 3)) > 0).long(), 2).float()
            share = torch.rand((), generator=generator)
            yield share * x + (1 - share) * x.flip(0), share * target + (1 - share) * target.flip(0)


def net():
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(128, 2)
    )


class Loss:
    """Cross-entropy; calls `event` before the given step is over."""

    def __init__(self, at=None, event=None):
        self.calls, self.at, self.event = 0, at, event

    def __call__(self, module, batch):
        x, target = batch
        y = module(x)
        if self.calls == self.at:
            self.event()
        self.calls += 1
        return F.cross_entropy(y, target), {"count": len(x), "accuracy": (y.argmax(1) == target.argmax(1)).sum()}


def evaluate(module):
    x, target = next(iter(Mixup(99)))
    y = module(x + 0.1 * torch.randn_like(x))  # draws from the global generator
    return {"loss": F.cross_entropy(y, target), "accuracy": (y.argmax(1) == target.argmax(1)).float().mean()}


def run(folder, loss, config=CONFIG, batches=Mixup, **options):
    model = net()
    options = {"evaluate": evaluate, **options}
    return model, train(model, config, batches=batches, loss=loss, folder=folder, **options)


def without_times(history):
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in history]


def assert_same(one, other):
    (model, result), (expected, whole) = one, other
    for (name, value), right in zip(model.state_dict().items(), expected.state_dict().values()):
        assert torch.equal(value, right), name
    for name, value in result.average.items():
        assert torch.equal(value, whole.average[name]), name
    assert without_times(result.history) == without_times(whole.history)
    assert without_times([result.best]) == without_times([whole.best])
    assert (result.status, result.steps) == (whole.status, whole.steps) == ("finished", TOTAL)


def rows(folder):
    found = [{name: v for name, v in row.items() if name not in MEASURED} for row in read_rows(folder / "metrics.csv")]
    assert len(found) == len((folder / "metrics.csv").read_text().splitlines()) - 1
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, run(folder, Loss())


@pytest.mark.slow
def test_a_run_that_failed_and_was_killed_ends_in_the_same_bits(tmp_path, unbroken):
    """In the middle of a step between checkpoints, then by SIGKILL in a later one; then the rest here."""
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Loss(4, lambda: 1 / 0))
    command = [sys.executable, __file__, tmp_path, "13"]  # steps of this session, which starts at a checkpoint
    child = subprocess.run(command, capture_output=True, text=True, env=ENV)
    assert child.returncode == -signal.SIGKILL, child.stderr
    made = []
    resumed = run(tmp_path, Loss(), batches=lambda epoch: Mixup(epoch, made=made))
    assert made == list(range(15, TOTAL))  # killed in step 16 (3 + 13): the last checkpoint was that of step 15
    assert_same(resumed, unbroken[1])
    assert rows(tmp_path) == rows(unbroken[0])
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(v, best[name]) for name, v in load_file(unbroken[0] / "best.safetensors").items())


def test_an_epoch_s_processor_time_is_also_that_before_an_interruption(tmp_path):
    def interrupted(module):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(), evaluate=interrupted)
    _, result = run(tmp_path, Loss())
    assert all(row["cpu_s"] > 0 for row in result.history)


ENV = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.parametrize(
    ("number", "at"), [(signal.SIGTERM, 3), *((signal.SIGINT, at) for at in (0, 1, 6, 7, 16, TOTAL - 1))]
)
def test_an_interruption_finishes_the_step_and_says_how_to_go_on(tmp_path, unbroken, number, at):
    lines = []
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(at, lambda: signal.raise_signal(number)), log=lines.append)
    assert lines == [f"stopped at step {at + 1} of {TOTAL} and saved: the same command continues there"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    loss = Loss()
    assert_same(run(tmp_path, loss, log=lines.append), unbroken[1])
    assert loss.calls == TOTAL - at - 1 and lines[1:] == [f"continuing at step {at + 1} of {TOTAL}"]
    assert rows(tmp_path) == rows(unbroken[0])


def test_an_interruption_within_an_evaluation_repeats_the_evaluation_alone(tmp_path, unbroken):
    def interrupted(module):
        evaluate(module)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(), evaluate=interrupted)
    loss = Loss()
    assert_same(run(tmp_path, loss), unbroken[1])
    assert loss.calls == TOTAL - STEPS and rows(tmp_path) == rows(unbroken[0])


def test_a_second_interruption_does_not_wait(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    lines = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(4, twice), log=lines.append)
    assert lines == [] and sorted(p.stem[-1] for p in (tmp_path / "checkpoints").iterdir()) == ["0", "3"]


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(tmp_path, unbroken):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(10, lambda: signal.raise_signal(signal.SIGINT)))
    last = sorted((tmp_path / "checkpoints").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-100])
    lines, loss = [], Loss()
    assert_same(run(tmp_path, loss, log=lines.append), unbroken[1])
    assert "trying the one before" in lines[0] and loss.calls == TOTAL - 9
    assert rows(tmp_path) == rows(unbroken[0])


def test_a_line_of_the_log_that_was_cut_is_made_again(tmp_path, unbroken):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(10, lambda: signal.raise_signal(signal.SIGINT)))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "step,12,0.3")
    run(tmp_path, Loss())
    assert rows(tmp_path) == rows(unbroken[0])


def test_batches_that_cannot_be_sought_are_skipped(tmp_path, unbroken):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(10, lambda: signal.raise_signal(signal.SIGINT)), batches=lambda e: list(Mixup(e)))
    assert_same(run(tmp_path, Loss(), batches=lambda e: list(Mixup(e))), unbroken[1])


def test_a_finished_run_is_returned_at_once(tmp_path, unbroken):
    lines = []
    again = run(unbroken[0], None, log=lines.append)
    assert_same(again, unbroken[1])
    assert again[1].wall_s == unbroken[1][1].wall_s and lines == [
        f"finished after {TOTAL} steps (found in {unbroken[0]})"
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.03}, r"was made with learning_rate 0\.02, this run has 0\.03: choose another folder"),
        ({"epochs": 5}, "made with epochs 4, this run has 5"),
        ({"ema": None}, "made with ema 0.9, this run has None"),
        ({"precision": "64"}, "made with precision '32', this run has '64'"),
    ],
)
def test_other_settings_are_one_line(unbroken, fields, message):
    with pytest.raises(KansciError, match=message):
        run(unbroken[0], Loss(), replace(CONFIG, **fields))


def test_another_problem_and_other_batches_are_one_line(unbroken):
    with pytest.raises(KansciError, match="made with identity '', this run has 'cifar'"):
        run(unbroken[0], Loss(), identity="cifar")
    with pytest.raises(KansciError, match="made with steps_per_epoch 7, this run has 6"):
        run(unbroken[0], Loss(), batches=lambda epoch: list(Mixup(epoch))[:6])
    with pytest.raises(KansciError, match="belongs to another model"):
        train(nn.Linear(3, 3), CONFIG, batches=Mixup, loss=Loss(), folder=unbroken[0])


def test_how_a_run_is_executed_may_change(tmp_path, unbroken):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Loss(9, lambda: signal.raise_signal(signal.SIGINT)))
    config = replace(CONFIG, log_every=2, checkpoint_steps=0, checkpoint_epochs=0)
    _, result = run(tmp_path, Loss(), config)
    assert result.final["eval_loss"] == unbroken[1][1].final["eval_loss"]


def test_checkpoints_are_written_after_minutes_too(tmp_path):
    config = replace(CONFIG, checkpoint_steps=0, checkpoint_epochs=0, checkpoint_minutes=1e-9)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Loss(10, lambda: 1 / 0), config)
    assert [p.stem for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-0000000004", "step-0000000008"]


if __name__ == "__main__":
    run(Path(sys.argv[1]), Loss(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL)))
