"""The training loop: the arithmetic of a bare PyTorch loop, its sums, precisions, divergence, errors of one line."""

import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError, UsageError
from kansciml.training import _run
from kansciml.training._devices import Batching
from kansciml.training._logging import read_rows
from kansciml.training.loop import MEASURED, LoopConfig, train
from kansciml.training.optim import adamw, rate

SMALL = LoopConfig(epochs=3, batch_size=8, learning_rate=0.02, warmup=0.5, accelerator="cpu", log_every=2)


class Data:
    """Five batches an epoch, the last of them smaller, each from its own generator."""

    def __init__(self, epoch, first=0, made=None):
        self.epoch, self.first, self.made = epoch, first, made

    def __len__(self):
        return 5

    def seek(self, first):
        return Data(self.epoch, first, self.made)

    def __iter__(self):
        for place in range(self.first, 5):
            if self.made is not None:
                self.made.append((self.epoch, place))
            generator = torch.Generator().manual_seed(100 * self.epoch + place)
            x = torch.randn(8 if place < 4 else 6, 4, generator=generator)
            yield x, (x.sum(1) > 0).long()


def net(dropout=0.0):
    torch.manual_seed(3)
    layers = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 2)
    return nn.Sequential(*layers)


def loss(module, batch):
    x, target = batch
    y = module(x)
    return F.cross_entropy(y, target), {"count": len(x), "accuracy": (y.argmax(1) == target).sum()}


def run(folder, config=SMALL, model=None, **options):
    options = {"batches": Data, "loss": loss, **options}
    model = model or net()
    return model, train(model, config, folder=folder, **options)


def changed(**fields):
    return replace(SMALL, **fields)


def weights_equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_it_computes_what_a_bare_loop_computes(tmp_path):
    model, result = run(tmp_path)
    bare = net()
    optimiser = adamw(bare, 0.02, SMALL.weight_decay)
    rows, step = [], 0
    for epoch in range(3):
        losses, right, count = 0.0, 0, 0
        for x, target in Data(epoch):
            optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = rate(step, 15, peak=0.02, warmup=2)
            y = bare(x)
            value = F.cross_entropy(y, target)
            value.backward()
            nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            losses += value.item() * len(x)
            right, count = right + (y.argmax(1) == target).sum().item(), count + len(x)
        rows.append((losses / count, right / count))
    assert weights_equal(model, bare)
    for row, (mean, accuracy) in zip(result.history, rows):
        assert row["loss"] == pytest.approx(mean, rel=1e-12) and row["accuracy"] == accuracy
    assert [row["step"] for row in result.history] == [5, 10, 15]
    assert (result.status, result.steps, result.final) == ("finished", 15, result.history[-1])
    assert all(result.final[name] > 0 for name in MEASURED)


def test_the_device_is_read_only_where_the_log_or_an_epoch_needs_it(tmp_path, monkeypatch):
    steps = []
    original = _run.Run._read
    monkeypatch.setattr(_run.Run, "_read", lambda self: (steps.append(self.state.step), original(self))[1])
    run(tmp_path, changed(log_every=3))
    assert steps == [3, 5, 6, 9, 10, 12, 15]


def test_the_global_random_numbers_of_the_caller_are_untouched(tmp_path):
    model = net(0.5)
    before = torch.get_rng_state()
    run(tmp_path, model=model)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_follows_from_the_seed_alone(tmp_path):
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = net(0.5)
        torch.rand(len(results) + 1)  # the caller's own numbers do not matter
        results.append(run(tmp_path / name, changed(seed=seed), model)[0])
    assert weights_equal(*results[:2]) and not weights_equal(results[0], results[2])


def test_evaluation_sees_the_averaged_weights_in_eval_mode(tmp_path):
    seen = []

    def evaluate(module):
        assert not module.training and not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"score": torch.tensor([0.5, 0.9, 0.7][len(seen) - 1])}

    config = changed(ema=0.8, monitor="score", monitor_mode="max")
    model, result = run(tmp_path, config, evaluate=evaluate)
    assert [row["eval_score"] for row in result.history] == pytest.approx([0.5, 0.9, 0.7])
    assert result.best["epoch"] == 2
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in seen[1].items())
    assert all(torch.equal(result.average[name], value) for name, value in seen[2].items())
    assert weights_equal(model, run(tmp_path / "plain")[0])  # neither average nor evaluation changes the training


@pytest.mark.parametrize(("mode", "epoch"), [("min", 2), ("max", 3)])
def test_the_best_epoch_is_that_of_the_monitor(tmp_path, mode, epoch):
    values = iter([2.0, 1.0, float("inf") if mode == "max" else math.nan])
    values = iter([2.0, 1.0, 3.0]) if mode == "max" else values
    config = changed(monitor="error", monitor_mode=mode)
    _, result = run(tmp_path, config, evaluate=lambda module: {"error": next(values)})
    assert result.best["epoch"] == epoch


def test_a_monitor_that_is_not_there_lists_those_that_are(tmp_path):
    with pytest.raises(UsageError, match="unknown monitor 'auc': expected one of loss, accuracy, gradient_norm"):
        run(tmp_path / "a", changed(monitor="auc"))
    with pytest.raises(UsageError, match="unknown monitor 'accuracy': expected one of error$"):
        run(tmp_path / "b", changed(monitor="accuracy"), evaluate=lambda module: {"error": 1.0})


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3)
        self.spectral = nn.Parameter(torch.randn(8, 2, dtype=torch.complex64))
        self.seen = []

    def forward(self, x):
        y = self.conv(x)
        self.seen.append((x.dtype, y.dtype, y.is_contiguous(memory_format=torch.channels_last)))
        return (y.mean((2, 3)).to(self.spectral.dtype) @ self.spectral).abs()


@pytest.mark.parametrize(
    ("precision", "inside", "weights"),
    [
        ("32", torch.float32, torch.complex64),
        ("64", torch.float64, torch.complex128),
        ("bf16-mixed", torch.bfloat16, torch.complex64),
    ],
)
def test_precision_and_layout(tmp_path, precision, inside, weights):
    def images(epoch):
        return [torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(epoch))]

    def squares(module, batch):
        value = module(batch).square().mean()
        assert value.dtype == (torch.float64 if precision == "64" else torch.float32)
        return value, {"count": len(batch)}

    def evaluate(module):
        x = next(iter(images(0))).to(module.conv.weight.dtype, memory_format=torch.channels_last)
        return {"loss": squares(module, x)[0]}

    model = Complex()
    imaginary = model.spectral.detach().imag.clone()
    config = changed(precision=precision, channels_last=True, learning_rate=1e-6)
    run(tmp_path, config, model, batches=images, loss=squares, evaluate=evaluate)
    assert model.spectral.dtype == weights
    torch.testing.assert_close(model.spectral.detach().imag.float(), imaginary, atol=1e-3, rtol=0)
    assert set(model.seen) == {(torch.float64 if precision == "64" else torch.float32, inside, True)}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_computes_the_same(tmp_path):
    torch.manual_seed(0)
    models = [nn.Linear(4, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    config = changed(epochs=2)
    same_size = {"batches": lambda epoch: list(Data(epoch))[:4]}  # another size would be compiled anew
    plain = run(tmp_path / "a", config, models[0], **same_size)[1]
    compiled = run(tmp_path / "b", replace(config, compile=True), models[1], **same_size)[1]
    assert compiled.final["loss"] == pytest.approx(plain.final["loss"], rel=1e-5)


class Poisoned(Data):
    """Not a number in epoch 2, third batch."""

    def __iter__(self):
        for place, (x, target) in enumerate(super().__iter__()):
            yield (x * math.nan if (self.epoch, place) == (1, 2) else x), target


def test_divergence_ends_with_the_last_good_weights(tmp_path):
    lines = []
    model, result = run(tmp_path, batches=Poisoned, log=lines.append)
    assert result.status == "diverged" and result.steps == 5 and len(result.history) == 1
    assert result.message.startswith("diverged: the loss is nan within the 2 steps up to 8; the weights of step 5")
    assert len(lines) == 1 and lines[0].startswith(result.message)
    good = run(tmp_path / "good")[1]
    assert result.history[0]["loss"] == good.history[0]["loss"]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    again, repeated = run(tmp_path, batches=Poisoned, loss=None)  # known to diverge: nothing is computed
    assert repeated.status == "diverged" and weights_equal(again, model)


def test_divergence_at_the_very_first_step_keeps_the_initial_weights(tmp_path):
    model, result = run(tmp_path, batches=lambda epoch: [(torch.full((4, 4), math.inf), torch.zeros(4).long())])
    assert (result.status, result.steps, result.history, result.best) == ("diverged", 0, [], None)
    assert result.final == {} and weights_equal(model, net())


def test_a_last_step_that_ruins_the_weights_is_noticed(tmp_path):
    model = nn.Linear(4, 2)
    model.weight.register_hook(lambda gradient: gradient * math.nan)  # the loss before the step is finite
    _, result = run(tmp_path, changed(epochs=1), model, batches=lambda epoch: list(Data(epoch))[:1])
    assert result.status == "diverged" and "the weights after step 1 are not finite" in result.message


def test_memory_that_ran_out_is_one_line(tmp_path):
    def on_the_gpu(module, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def on_the_cpu(module, batch):
        torch.empty(2**60, dtype=torch.uint8)

    for name, failing in (("gpu", on_the_gpu), ("cpu", on_the_cpu)):
        with pytest.raises(KansciError, match=r"^memory ran out in step 1 with batches of 8: choose smaller [^\n]*$"):
            run(tmp_path / name, loss=failing)


def test_other_errors_are_passed_on_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(tmp_path, model=nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": lambda epoch: []}, "got an epoch without batches"),
        ({"batches": lambda epoch: list(Data(0)) if epoch == 0 else list(Data(0))[:3]}, "got 3 batches in epoch 2"),
        ({"loss": lambda m, b: (m(b[0]).sum(), {})}, r"got metrics \(none\) .*number of samples as 'count'"),
        ({"loss": lambda m, b: (m(b[0]).sum(), {"count": 1, "loss": 2})}, "none called loss, steps, gradient_norm"),
        ({"loss": lambda m, b: (m(b[0]), {"count": 1})}, r"got a loss of shape \(8, 2\): expected a scalar"),
        ({"loss": lambda m, b: (torch.zeros(()), {"count": 1})}, "that depends on the weights"),
        ({"config": changed(accelerator="mps")}, r"got accelerator mps, 1 device\(s\)"),
        ({"model": nn.Linear(4, 2).requires_grad_(False)}, "without parameters to train"),
        ({"model": nn.Linear(4, 2).apply(lambda m: m.weight.data.fill_(math.nan))}, "weights are not all finite"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "got epochs 0: expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "got batch_size 2.5: expected a whole number"),
        ({"log_every": True}, "got log_every True"),
        ({"learning_rate": 0.0}, "expected a positive learning rate"),
        ({"learning_rate": math.nan}, "expected a positive learning rate"),
        ({"learning_rate": 0.1, "min_lr": 0.2}, "a min_lr that is not larger"),
        ({"weight_decay": -1.0}, "got weight_decay -1.0: expected a finite number of at least 0"),
        ({"warmup": 20.0}, "got warmup 20.0: expected at most the 10 epochs"),
        ({"clip": 0.0}, "got clip 0.0"),
        ({"ema": 1.0}, "got ema 1.0"),
        ({"ema": 0.0}, "got ema 0.0"),
        ({"schedule": "linear"}, "unknown schedule 'linear': expected one of cosine, constant, onecycle"),
        ({"precision": "16"}, "unknown precision '16': expected one of 32, bf16-mixed, 64"),
        ({"accelerator": "tpu"}, "unknown accelerator"),
        ({"monitor_mode": "best"}, "unknown monitor_mode"),
    ],
)
def test_settings_are_checked_where_they_are_made(fields, message):
    with pytest.raises(UsageError, match=message):
        LoopConfig(**fields)


def test_the_log_has_a_row_per_interval_and_per_epoch(tmp_path):
    _, result = run(tmp_path, changed(log_every=4))
    rows = read_rows(tmp_path / "metrics.csv")
    assert [(row["kind"], int(row["step"])) for row in rows] == [
        ("step", 4), ("epoch", 5), ("step", 8), ("epoch", 10), ("step", 12), ("epoch", 15)
    ]  # fmt: skip
    epochs = [row for row in rows if row["kind"] == "epoch"]
    for row, expected in zip(epochs, result.history):
        assert {name: float(value) for name, value in row.items() if name != "kind"} == expected


def test_tensorboard_gets_the_rows(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, result = run(tmp_path, changed(tensorboard=True))
    events = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("epoch/loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in result.history
    ]


def test_a_log_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(KansciError, match=r"^cannot read .*metrics\.csv [^\n]*: delete it to start a new log$"):
        run(tmp_path)


def test_progress_is_told_of_steps_and_values(tmp_path):
    updates, tasks = [], []
    bar = SimpleNamespace(update=lambda **v: updates.append(v), close=lambda: updates.append("closed"))
    progress = SimpleNamespace(task=lambda text, total: (tasks.append((text, total)), bar)[1])
    run(tmp_path, progress=progress, evaluate=lambda module: {"loss": 0.5})
    assert tasks == [("training", 15)] and updates[0] == {"completed": 0} and updates[-1] == "closed"
    assert (updates[-2]["completed"], updates[-2]["epoch"]) == (15, 3)
    names = ["completed", "epoch", "loss", "accuracy", "samples_per_s", "peak_memory_mb", "eval_loss"]
    assert list(updates[-2]) == names
    within = [update for update in updates[1:-1] if update["completed"] == 8]  # a row of the log in the second epoch
    assert within and list(within[0]) == names and within[0]["eval_loss"] == 0.5


def test_each_process_takes_an_equal_part_of_a_batch():
    batch = {"x": torch.arange(6), "pair": (torch.arange(12).reshape(6, 2), [torch.zeros(6)])}
    parts = []
    for rank in range(3):
        fabric = SimpleNamespace(world_size=3, global_rank=rank, to_device=lambda b: b)
        parts.append(Batching(fabric, SMALL)(batch))
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert torch.equal(torch.cat([part["pair"][0] for part in parts]), batch["pair"][0])
    for odd in (torch.zeros(7, 2), torch.zeros(())):
        with pytest.raises(UsageError, match="on 3 processes: expected a number of samples that they can share"):
            Batching(SimpleNamespace(world_size=3, global_rank=0), SMALL)(odd)
