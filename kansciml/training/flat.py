"""Adam, then L-BFGS, on a flat parameter vector: one optimiser for every ODE backend.

Everything the optimiser needs from the outside is ``value_and_grad(params, subset) -> (loss, gradient)``, so that a
torch and a Julia backend are trained by the same arithmetic. The state can be written at any moment and read back: a
run that was killed continues where it was and, from the same evaluations, ends in the same bits.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from kansciml._errors import SolveError, UsageError, WorkerDied
from kansciml.training._flat_state import (
    CAPPED,
    CONVERGED,
    NOISE,
    Best,
    FlatResult,
    FlatState,
    FlatTraining,
    Iterate,
    Row,
    checked_ladder,
)
from kansciml.training.optim import adam_step

__all__ = ["FlatResult", "FlatTraining", "Progress", "adam_step", "checked_ladder", "train_flat"]

ValueAndGrad = Callable[[np.ndarray, Any], "tuple[float, np.ndarray]"]
ADAM, LBFGS = 0, 1
PHASES = ("Adam", "L-BFGS")
ENDS = {CONVERGED: "converged", NOISE: "no lower loss found: the noise floor of its tolerance, or a minimum,"}
GAIN = 0.01
"""Share of the loss that a tighter tolerance has to gain, where no plateau is set."""
JUDGED_EVERY = 10
"""Iterations between two judgements, on validation data and of a plateau."""
MAX_RECOVERIES = 5
"""How often Adam may return to its best parameters at half the learning rate before the run counts as diverged."""


Progress = Callable[[int, int, float, str], None]
"""``progress(done, total, loss, phase)``, called after every iteration."""


def train_flat(
    value_and_grad: ValueAndGrad,
    initial: np.ndarray,
    settings: FlatTraining,
    *,
    tighter: Sequence[ValueAndGrad] = (),
    subset: Callable[[int], Any] = lambda step: None,
    all_every: int = 0,
    validate: Callable[[np.ndarray], float] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 15.0,
    identity: str | Mapping[str, Any] = "",
    cpu: Callable[[], float] = time.process_time,
    work: Callable[[], float] = lambda: 0.0,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> FlatResult:
    """Minimise a loss over a flat parameter vector by Adam, then L-BFGS.

    Args:
        value_and_grad: loss and gradient (P,) over a part of the data; raises SolveError where the loss does not exist.
        initial: first parameters (P,).
        settings: see `FlatTraining`.
        tighter: the same loss at tighter tolerances, each tighter than the one before: a ladder, as the noise of
            step-size control can keep L-BFGS from lowering the loss. Where it comes to an end it goes on at the next
            one, until that gains less than ``settings.plateau``. The loss then is that at the last one it went to.
        subset: part of the data that `value_and_grad` is given at an Adam step; None (default): all of them. The best
            parameters are judged on all of them.
        all_every: Adam steps after which the loss over all data is computed beside that over a part (default 0: never):
            with minibatches, where no step fits all.
        validate: a loss on data that are not trained on: the result then is what does best on them, judged at every
            tenth iteration (early stopping). Raises SolveError where the loss does not exist.
        checkpoint: file the state is kept in; a state found there is resumed, a finished one returned at once.
        checkpoint_every: seconds between two writes (default 15); on Ctrl-C it is written too.
        identity: what the problem is, as text or part by part in JSON types; a checkpoint with another one, with other
            settings or other first parameters is refused, and the parts that differ are named.
        cpu, work: processor time in seconds, and a count of the work that value_and_grad does, since any moment
            (defaults: of this process; none is counted).
        progress, log: called after every iteration, and with one line at each event worth telling.

    The loss is expected to be of order one, as those of `kansciml.backends` are: Adam's eps (1e-8) and the gradient at
    which L-BFGS ends (1e-14) are absolute.

    Raises:
        UsageError: there is no parameter.
        KansciError: unreadable or foreign checkpoint, unwritable folder.
        KeyboardInterrupt: passed on after the state was written.
    """
    if len(initial) == 0:
        raise UsageError("got no parameters to train: a module needs at least one that requires gradients")
    checkpoint = None if checkpoint is None else Path(checkpoint)
    initial = np.ascontiguousarray(initial, dtype=np.float64)
    identity = {
        **(identity if isinstance(identity, Mapping) else {"problem": identity}),
        "initial values": hashlib.sha256(initial.tobytes()).hexdigest(),
        "training settings": asdict(settings),
    }
    state = FlatState.load(checkpoint, identity) if checkpoint else None
    state = state or FlatState.start(initial)
    log = log or (lambda line: None)
    return _Run(
        [value_and_grad, *tighter],
        settings,
        state,
        subset,
        all_every,
        validate,
        progress,
        log,
        checkpoint,
        checkpoint_every,
        identity,
        cpu,
        work,
    ).finish()


@dataclass
class _Run:
    """One session of `train_flat`, whose arguments these are."""

    rungs: Sequence[ValueAndGrad]
    settings: FlatTraining
    state: FlatState
    subset: Callable[[int], Any]
    all_every: int
    validate: Callable[[np.ndarray], float] | None
    progress: Progress | None
    log: Callable[[str], None]
    checkpoint: Path | None
    every: float
    identity: Mapping[str, Any]
    cpu: Callable[[], float]
    work: Callable[[], float]

    def __post_init__(self) -> None:
        self.last_save = time.monotonic()
        self.began, self.cpu_began = self.last_save - self.state.wall_s, self.cpu() - self.state.cpu_s
        self.work_began = self.work() - self.state.work

    def finish(self) -> FlatResult:
        state = self.state
        if state.status == "running":
            try:
                if state.phase == ADAM:
                    self._adam()
                if state.status == "running":
                    self._lbfgs()
            except BaseException as error:
                self._save()
                if self.checkpoint and isinstance(error, WorkerDied):
                    raise WorkerDied(f"{error}; the last checkpoint is kept, the same command resumes") from error
                raise
            if state.status == "running":
                state.status = "finished"
            self._save()
        best, validated = state.best, None
        if self.validate and np.isfinite(state.validated.loss):
            with contextlib.suppress(SolveError):
                loss, _ = self.rungs[state.rung](state.validated.params, None)
                best = Best(loss, state.validated.params)
                validated = state.validated.loss
        told = state.status, state.message, state.history(), state.evaluations, state.wall_s
        return FlatResult(best.params, best.loss, *told, validated, state.ended, state.cpu_s)

    def _save(self) -> None:
        state = self.state
        if state.phase == ADAM:  # a row is written before its step counts: an interruption in between drops it
            del state.rows[state.iterate.step :]
            state.evaluations, state.work = (
                (state.rows[-1].evaluations, state.rows[-1].work) if state.rows else (0, 0.0)
            )
        state.wall_s, state.cpu_s = time.monotonic() - self.began, self.cpu() - self.cpu_began
        if self.checkpoint:
            state.save(self.checkpoint, self.identity)
        self.last_save = time.monotonic()

    def _evaluate(self, params: np.ndarray, subset: Any) -> tuple[float, np.ndarray]:
        self.state.evaluations += 1
        loss, gradient = self.rungs[self.state.rung](params, subset)
        self.state.work = self.work() - self.work_began
        if not (np.isfinite(loss) and np.all(np.isfinite(gradient))):
            raise SolveError("the loss or its gradient is not finite")
        if subset is None and loss < self.state.best.loss:
            self.state.best = Best(loss, params.copy())
        return loss, gradient

    def _judge(self, params: np.ndarray) -> None:
        """Keep the parameters if they do best on the validation data."""
        if self.validate:
            with contextlib.suppress(SolveError):
                if (loss := self.validate(params)) < self.state.validated.loss:
                    self.state.validated = Best(loss, params.copy())

    def _record(self, loss: float, phase: int) -> None:
        state, seconds = self.state, time.monotonic() - self.began
        spent = state.evaluations, state.rung, self.cpu() - self.cpu_began, state.work
        state.rows.append(Row(len(state.rows), loss, phase, seconds, *spent))
        if self.progress:
            total = self.settings.adam_steps + self.settings.lbfgs_steps
            self.progress(len(self.state.rows), total, loss, PHASES[phase])

    def _adam(self) -> None:
        state, settings = self.state, self.settings
        while (step := state.iterate.step) < settings.adam_steps:
            try:
                loss, gradient = self._evaluate(state.iterate.params, self.subset(step))
            except SolveError as error:
                if not self._recover(error):
                    return
                continue
            if step % JUDGED_EVERY == 0:
                self._judge(state.iterate.params)
            if self.all_every and step % self.all_every == 0:
                self._fit_all(state.iterate.params)
            following = adam_step(state.iterate, gradient, settings.rate(step) * state.rate_factor)
            self._record(loss, ADAM)
            state.iterate = following
            if time.monotonic() - self.last_save > self.every:
                self._save()
        if self.all_every:
            self._fit_all(state.iterate.params)
        self._judge(state.iterate.params)
        start = state.best.params if np.isfinite(state.best.loss) else state.iterate.params
        state.iterate = state.iterate._replace(step=0, params=start)
        state.phase, state.rung_began, state.rung_loss = LBFGS, state.evaluations, state.best.loss

    def _fit_all(self, params: np.ndarray) -> None:
        """Keep the parameters if their loss over all data is the lowest."""
        with contextlib.suppress(SolveError):
            self._evaluate(params, None)

    def _recover(self, error: SolveError) -> bool:
        """Back to the best parameters with half the learning rate; False if the run is to be given up."""
        state = self.state
        state.recoveries += 1
        if state.recoveries > MAX_RECOVERIES or state.iterate.step == 0:
            state.status = "diverged"
            state.message = f"diverged at Adam step {state.iterate.step}: {error}"
            self.log(f"{state.message}; the best parameters so far are kept (loss {state.best.loss:.3g})")
            return False
        state.rate_factor *= 0.5
        zeros = np.zeros_like(state.best.params)
        state.iterate = Iterate(state.iterate.step, state.best.params, zeros, zeros, 0)
        self.log(f"Adam step {state.iterate.step}: {error}; back to the best parameters, learning rate halved")
        return True

    def _lbfgs(self) -> None:
        settings, state = self.settings, self.state
        while (step := state.iterate.step) < settings.lbfgs_steps:
            chunk = min(settings.lbfgs_chunk, settings.lbfgs_steps - step)
            rows, evaluations, work = len(state.rows), state.evaluations, state.work
            try:
                params, done, stuck = self._lbfgs_chunk(state.iterate.params, chunk)
            except SolveError as error:
                state.status, state.message = "diverged", f"diverged at the start of L-BFGS: {error}"
                self.log(f"{state.message}; the best parameters so far are kept (loss {state.best.loss:.3g})")
                return
            except BaseException:
                del state.rows[rows:]  # a resumed run does this chunk again from its start
                state.evaluations, state.work = evaluations, work
                raise
            self._judge(params)
            state.iterate = state.iterate._replace(step=step + done, params=params)
            if stuck or self._on_plateau():
                state.ended = self._ended(stuck)
                if state.ended:
                    state.message = f"{ENDS[state.ended]} after {step + done} iterations of L-BFGS"
                    return
            self._save()
        state.ended, state.message = CAPPED, f"finished after {len(state.rows)} iterations"

    def _on_plateau(self) -> bool:
        """Whether the best loss fell by less than `plateau` over the last fifth of evaluations, all on this rung."""
        last_fifth = 0.8 * self.state.evaluations
        return bool(self.settings.plateau) and last_fifth >= self.state.rung_began and self._flat_since(last_fifth)

    def _flat_since(self, evaluations: float) -> bool:
        state, share = self.state, self.settings.plateau or GAIN
        past = bisect.bisect_right(state.rows, evaluations, key=lambda row: row.evaluations) - 1
        return past >= 0 and state.best.loss > (1 - share) * state.rows[past].loss

    def _ended(self, stuck: bool) -> str:
        """How L-BFGS ends here, or empty: then it goes on at the next tolerance, to see whether it gains by that.

        Where it did not, the loss is as low as it gets. At the last tolerance a plateau is taken for that too; where no
        step lowers a loss that was falling until then (over the last fifth of this rung), noise is the cause.
        """
        state, share = self.state, self.settings.plateau or GAIN
        if state.rung > 0 and state.best.loss > (1 - share) * state.rung_loss:
            return CONVERGED
        loss = math.inf
        if state.rung + 1 < len(self.rungs):
            with contextlib.suppress(SolveError):
                loss, _ = self.rungs[state.rung + 1](state.best.params, None)
        if not math.isfinite(loss):  # this is the last one, or as far as it goes
            own = 0.8 * state.evaluations + 0.2 * state.rung_began
            return NOISE if stuck and not self._flat_since(own) else CONVERGED
        state.rung, state.rung_began, state.rung_loss = state.rung + 1, state.evaluations, loss
        state.best = Best(loss, state.best.params)
        state.iterate = state.iterate._replace(params=state.best.params)
        self.log(f"L-BFGS goes on at tolerance {state.rung + 1} of {len(self.rungs)} (loss {loss:.4g})")
        return ""

    def _lbfgs_chunk(self, start: np.ndarray, iterations: int) -> tuple[np.ndarray, int, bool]:
        """L-BFGS with an empty memory from `start`, as far as to a plateau: the end point, the iterations done, and
        whether even so there is no way down."""
        first = self._evaluate(start, None)

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            if np.array_equal(x, start):
                return first
            try:
                return self._evaluate(x, None)
            except SolveError:  # a wall for the line search, which then shortens its step
                return 1e3 * (1.0 + first[0]), np.zeros_like(x)

        def after_iteration(intermediate_result: OptimizeResult) -> None:
            self._record(float(intermediate_result.fun), LBFGS)
            if len(self.state.rows) % JUDGED_EVERY == 0:
                self._judge(np.array(intermediate_result.x))
                if self._on_plateau():
                    raise StopIteration

        settings = {"maxcor": self.settings.lbfgs_memory, "ftol": 0.0, "gtol": 1e-14, "maxls": 40}
        result = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=after_iteration,
            options={"maxiter": iterations, "maxfun": 40 * iterations, **settings},
        )
        done = int(result.nit)
        return np.array(result.x), done, done <= 2 and done < iterations and not self._on_plateau()
