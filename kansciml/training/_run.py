"""Runs one training from its first or last saved step to its end. Entry point: `kansciml.training.loop.train`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kansciml._errors import KansciError, UsageError
from kansciml.training import _devices
from kansciml.training._checkpoint import Store, all_finite, save_tensors
from kansciml.training._config import EXECUTION, LoopConfig
from kansciml.training._logging import MetricsLog
from kansciml.training._signals import StopSignals
from kansciml.training._tally import MEASURED, Meter, State, Sums, means
from kansciml.training.ema import Ema, entries
from kansciml.training.optim import adamw, rate

REDRAW_S = 0.2
"""Seconds between two updates of the progress bar."""


class Calls(NamedTuple):
    """Callables that the caller of `train` gives."""

    batches: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Any]
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None
    log: Callable[[str], None]


class Diverged(Exception):
    """The loss or the weights are not finite."""


class Run:
    """See `kansciml.training.loop.train`; afterwards `state` and `average` hold the outcome."""

    def __init__(
        self,
        model: nn.Module,
        config: LoopConfig,
        fabric: Any,
        stop: StopSignals,
        calls: Calls,
        folder: Path,
        identity: str,
    ) -> None:
        self.model, self.config, self.fabric, self.stop, self.calls = model, config, fabric, stop, calls
        self.folder = folder
        self.alone = fabric.world_size == 1
        self.state = State()
        self.per_epoch = len(calls.batches(0))
        if self.per_epoch < 1:
            raise UsageError("got an epoch without batches: expected at least one")
        self.total = config.epochs * self.per_epoch
        self.batching = _devices.Batching(fabric, config)
        with self._one_line_errors():
            _devices.move_model(model, fabric, config)
            optimiser = adamw(model, config.learning_rate, config.weight_decay)
            self.optimiser = optimiser
            self.module, self.wrapped = fabric.setup(torch.compile(model) if config.compile else model, optimiser)
            self.average = Ema(model, config.ema) if config.ema is not None else None
        self.sums = Sums(fabric.device)
        settings = {name: value for name, value in asdict(config).items() if name not in EXECUTION}
        settings |= {"steps_per_epoch": self.per_epoch, "identity": identity}
        self.store = Store(fabric, folder / "checkpoints", calls.log, settings, model, optimiser, self.average)
        self.meter = Meter()
        self.metrics: MetricsLog | None = None
        self.bar: Any = None
        self.shown: dict[str, Any] = {}
        self.drawn = 0.0

    def finish(self, progress: Any) -> None:
        """Train to the end, or return at once where the folder holds a training that has ended."""
        state = self.store.load(self.sums)
        self.state = state or self.state
        if self.state.status != "running":
            self.calls.log(f"{self.state.message} (found in {self.folder})")
            return
        if not all_finite(self.model):
            raise UsageError("got a model whose weights are not all finite: expected numbers to start from")
        self.saved = time.monotonic()
        self.began = self.saved - self.state.wall_s
        if state:
            self.calls.log(f"continuing at step {self.state.step} of {self.total}")
        else:
            self._save()  # what a run that diverges at once falls back to; and a folder that cannot be written shows
        try:
            if self.fabric.global_rank == 0:
                done = self.state.step, len(self.state.history)
                self.metrics = MetricsLog(self.folder, *done, tensorboard=self.config.tensorboard)
            if progress:
                self.bar = progress.task("training", self.total)
                self._draw(now=True)
            with self._one_line_errors():
                self._epochs()
            self.state.status, self.state.message = "finished", f"finished after {self.total} steps"
            self._save()
        except Diverged as error:
            self._fall_back(str(error))
        finally:
            if self.metrics:
                self.metrics.close()
            if self.bar:
                self.bar.close()

    def _epochs(self) -> None:
        self.meter.restart()
        while True:
            epoch, first = divmod(self.state.step, self.per_epoch)
            if len(self.state.history) < epoch:  # it has just ended, or was interrupted while it was evaluated
                self._end_epoch()
            if self.state.step >= self.total:
                return
            self.module.train()
            source = self._source(epoch, first)
            for place in range(first, self.per_epoch):
                _devices.seed_step(self.fabric.device, self.config.seed, self.fabric.global_rank, self.state.step)
                try:
                    batch = next(source)
                except StopIteration:
                    raise UsageError(
                        f"got {place} batches in epoch {epoch + 1}: expected {self.per_epoch}, the length of the first"
                        " epoch's batches"
                    ) from None
                self._step(self.batching(batch))
                self._after_step()

    def _source(self, epoch: int, first: int) -> Iterator[Any]:
        """Batches of an epoch from the `first` on."""
        source = self.calls.batches(epoch)
        if first > 0:
            source = source.seek(first) if hasattr(source, "seek") else itertools.islice(source, first, None)
        return iter(source)

    def _step(self, batch: Any) -> None:
        clip, step = self.config.clip, self.state.step
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        loss, metrics = self.calls.loss(self.module, batch)
        if loss.ndim or not loss.requires_grad:
            raise UsageError(f"got a loss of shape {tuple(loss.shape)}: expected a scalar that depends on the weights")
        self.fabric.backward(loss)
        norm = None
        if clip is not None:
            norm = self.fabric.clip_gradients(self.module, self.wrapped, max_norm=clip, error_if_nonfinite=False)
        self.wrapped.step()
        self.wrapped.zero_grad()
        if self.average:
            self.average.update(step + 1)
        self.sums.add(loss, metrics, norm)
        self.state.step += 1

    def _after_step(self) -> None:
        """Read, log, save or stop where one is due. When the sums are read does not depend on interruptions."""
        config, step = self.config, self.state.step
        row_due, epoch_over = step % config.log_every == 0, step % self.per_epoch == 0
        save_due = config.checkpoint_steps > 0 and step % config.checkpoint_steps == 0
        stop = self.stop.wanted and self.alone
        if row_due or epoch_over or save_due:
            stop = self._read()
        if row_due:
            self._log({"kind": "step", **self._row(self.state.row, self.meter.row)})
            self.state.row = {}
            minutes = config.checkpoint_minutes
            save_due |= minutes > 0 and time.monotonic() - self.saved > 60 * minutes
        self._draw()
        if stop:
            self._interrupted()
        if save_due and not epoch_over:  # an epoch's end comes to its own checkpoint after the evaluation
            self._save()

    def _end_epoch(self) -> None:
        """Evaluate, add a row to the history, keep the best weights, save."""
        state, config = self.state, self.config
        if not all_finite(self.model):
            raise Diverged(f"the weights after step {state.step} are not finite")
        row = {"epoch": state.step // self.per_epoch, **self._row(state.epoch, self.meter.epoch)}
        row |= {f"eval_{name}": value for name, value in self._evaluated().items()}
        value = row.get(self._monitor)
        if value is None:
            skipped = ("epoch", "step", *MEASURED)
            names = [name for name in row if name.startswith("eval_") == bool(self.calls.evaluate)]
            valid = [name.removeprefix("eval_") for name in names if name not in skipped]
            raise UsageError(f"unknown monitor {config.monitor!r}: expected one of {', '.join(valid)}")
        state.history.append(row)
        state.epoch = {}
        self._log({"kind": "epoch", **row})
        if math.isfinite(value) and (state.best is None or self._better(value, state.best[self._monitor])):
            state.best = row
            if self.fabric.global_rank == 0:
                weights = self.average.weights if self.average else entries(self.model)
                save_tensors(self.folder / "best.safetensors", weights, {"epoch": row["epoch"]})
        due = config.checkpoint_epochs and row["epoch"] % config.checkpoint_epochs == 0
        due = due or (config.checkpoint_steps and state.step % config.checkpoint_steps == 0)
        if due and state.step < self.total:  # the last one is saved as finished
            self._save()
        self.meter.restart()

    @property
    def _monitor(self) -> str:
        return f"eval_{self.config.monitor}" if self.calls.evaluate else self.config.monitor

    def _better(self, value: float, before: float) -> bool:
        return value < before if self.config.monitor_mode == "min" else value > before

    def _evaluated(self) -> dict[str, float]:
        if self.calls.evaluate is None:
            return {}
        _devices.seed_step(self.fabric.device, self.config.seed, "evaluate", self.state.step)
        self.model.eval()
        as_in_training = self.model.register_forward_hook(
            lambda module, inputs, output: self.fabric.strategy.precision.convert_output(output)
        )
        try:
            # several processes have to stop together, which they do after the evaluation
            self.stop.at_once = self.alone
            if self.stop.wanted and self.alone:
                self.stop.stop()
            average = self.average.applied() if self.average else nullcontext()
            with torch.no_grad(), average, self.fabric.autocast():
                found = {name: float(value) for name, value in self.calls.evaluate(self.model).items()}
        except KeyboardInterrupt:
            self.stop.at_once = False
            self._interrupted()
        finally:
            self.stop.at_once = False
            as_in_training.remove()
            self.model.train()
        return found if self.alone else self.fabric.broadcast(found)

    def _read(self) -> bool:
        """Add the sums of the last steps; return whether any process was asked to stop.

        Raises:
            Diverged: their loss is not finite.
        """
        sums, stop = self.sums.read(self.fabric, float(self.stop.wanted))
        self.state.take(sums | {"cpu_s": self.meter.read(sums["count"])})
        if not math.isfinite(sums["loss"]):
            raise Diverged(f"the loss is {sums['loss']} within the {sums['steps']:g} steps up to {self.state.step}")
        return stop > 0

    def _row(self, totals: Mapping[str, float], window: list[float]) -> dict[str, Any]:
        samples, seconds = window
        window[:] = 0.0, 0.0
        self.state.peak_memory = max(self.state.peak_memory, _devices.peak_memory(self.fabric.device))
        return {
            "step": self.state.step,
            **means(totals),
            "learning_rate": self._rate(self.state.step - 1),
            "samples_per_s": samples / seconds if seconds > 0 else 0.0,
            "cpu_s": totals.get("cpu_s", 0.0),
            "peak_memory_mb": self.state.peak_memory / 1e6,
            "wall_s": time.monotonic() - self.began,
        }

    def _log(self, row: dict[str, Any]) -> None:
        hidden = ("kind", "epoch", "step", "gradient_norm", "learning_rate", "cpu_s", "wall_s")
        shown = {name: value for name, value in row.items() if name not in hidden}
        last = self.state.history[-1] if self.state.history else {}
        evaluated = {name: value for name, value in last.items() if name.startswith("eval_")}
        self.shown = {"epoch": math.ceil(self.state.step / self.per_epoch), **shown, **evaluated}
        self._draw(now=True)
        if self.metrics:
            self.metrics.write(row)

    def _draw(self, now: bool = False) -> None:
        if self.bar and (now or time.monotonic() - self.drawn > REDRAW_S):
            self.drawn = time.monotonic()
            self.bar.update(completed=self.state.step, **self.shown)

    def _rate(self, step: int) -> float:
        config = self.config
        warmup = round(config.warmup * self.per_epoch)
        return rate(
            step,
            self.total,
            peak=config.learning_rate,
            warmup=warmup,
            schedule=config.schedule,
            minimum=config.min_lr,
        )

    def _save(self) -> None:
        self.state.wall_s = time.monotonic() - self.began
        self.store.save(self.state, self.sums)
        self.saved = time.monotonic()
        self.meter.restart()

    def _interrupted(self) -> None:
        self._save()
        step, total = self.state.step, self.total
        self.calls.log(f"stopped at step {step} of {total} and saved: the same command continues there")
        self.stop.stop()

    def _fall_back(self, reason: str) -> None:
        """End as diverged, with the weights of the last checkpoint."""
        self.state = self.store.load(self.sums) or self.state
        self.state.status = "diverged"
        self.state.message = f"diverged: {reason}; the weights of step {self.state.step} are kept"
        self._save()
        self.calls.log(f"{self.state.message}; a smaller learning rate or a longer warm-up may help")

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if _devices.memory_exhausted(error):
                raise KansciError(
                    f"memory ran out in step {self.state.step + 1} with batches of {self.config.batch_size}: choose"
                    " smaller batches or precision bf16-mixed (what was saved remains)"
                ) from error
            if self.config.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).strip().split("\n")[0]
                raise KansciError(f"torch.compile failed ({reason}): train without compile") from error
            raise
