"""The settings, the outcome and the resumable state of one optimisation, and its file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kansciml._errors import KansciError, UsageError
from kansciml._files import file_failure, write_bytes


@dataclass(frozen=True)
class FlatTraining:
    """Settings of one optimisation.

    Args:
        adam_steps: Adam steps (default 1000; beta 0.9, 0.999).
        learning_rate: first learning rate of Adam (default 1e-2).
        final_learning_rate: last one, reached by cosine annealing (default 1e-4).
        lbfgs_steps: L-BFGS iterations after Adam (default 1000).
        lbfgs_memory: curvature pairs kept (default 50).
        lbfgs_chunk: iterations after which L-BFGS starts with an empty memory and a state that can be resumed
            (default 1000; after 200, MLPs of Figure 2 end at ten times the loss).
        plateau: L-BFGS ends where the best loss has fallen by less than this share over the last fifth of all
            evaluations (default 0: it takes its steps, or as many as lower the loss).
        curriculum: shares of the save points fitted in successive equal parts of the first half of Adam, e.g.
            ``(0.25, 0.5)``; all points from then on. Empty (default): all points from the start. Of a trajectory that
            is first measured late, the share is of the points from then on.

    Raises:
        UsageError: a negative count, a learning rate or share out of range.
    """

    adam_steps: int = 1000
    learning_rate: float = 1e-2
    final_learning_rate: float = 1e-4
    lbfgs_steps: int = 1000
    lbfgs_memory: int = 50
    lbfgs_chunk: int = 1000
    curriculum: tuple[float, ...] = ()
    plateau: float = field(default=0.0, metadata={"counts_if_set": True})

    def __post_init__(self) -> None:
        if min(self.adam_steps, self.lbfgs_steps) < 0 or min(self.lbfgs_memory, self.lbfgs_chunk) < 1:
            raise UsageError("adam_steps and lbfgs_steps must be at least 0, lbfgs_memory and lbfgs_chunk at least 1")
        if not (0 < self.final_learning_rate <= self.learning_rate < np.inf):
            raise UsageError(
                f"got learning_rate {self.learning_rate}, final_learning_rate {self.final_learning_rate}: expected"
                " positive numbers, the final one not larger"
            )
        if not 0 <= self.plateau < 1:
            raise UsageError(f"got plateau {self.plateau}: expected a share such as .01, or 0")
        if any(not 0 < share <= 1 for share in self.curriculum):
            raise UsageError(f"got curriculum {self.curriculum}: expected shares of the save points in (0, 1]")

    def share(self, step: int) -> float:
        """Share of the save points fitted at an Adam step."""
        part = self.adam_steps // 2
        if step >= part or not self.curriculum:
            return 1.0
        return self.curriculum[min(step * len(self.curriculum) // part, len(self.curriculum) - 1)]

    def rate(self, step: int) -> float:
        """Learning rate of an Adam step, by cosine annealing."""
        progress = step / max(self.adam_steps - 1, 1)
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * 0.5 * (
            1 + float(np.cos(np.pi * progress))
        )


def checked_ladder(factors: Sequence[float]) -> tuple[float, ...]:
    """The factors of a ladder of tolerances. Raises UsageError unless they fall, from below 1 to above 0."""
    found = tuple(map(float, factors))
    if any(not 0 < low < high for high, low in zip((1.0, *found), found)):
        raise UsageError(
            f"got ladder {factors}: expected factors below 1, each smaller than the last, such as 1e-2 1e-4"
        )
    return found


CONVERGED, CAPPED, NOISE = "converged", "capped", "at the noise floor"


@dataclass
class FlatResult:
    """Outcome of an optimisation.

    Args:
        params: parameters (P,) with the lowest loss over all save points; with validation, with the lowest validation
            loss among those that were judged.
        loss: over all save points, of these parameters.
        status: ``"finished"``, or ``"diverged"`` (then `params` are the best ones before).
        message: why it ended. ended: the same in a word: ``"converged"`` on a plateau, ``"capped"`` by its number of
            steps, ``"at the noise floor"`` where no step of L-BFGS lowers the loss although it was falling until then;
            empty for one that diverged.
        history: arrays of equal length: ``iteration``, ``loss`` (over the points fitted then), ``phase`` (0 Adam,
            1 L-BFGS), ``rung`` of the ladder of tolerances; and until then, over all sessions: ``seconds``,
            ``evaluations``, ``cpu_s`` seconds of processor time, ``work`` (see `train_flat`).
        evaluations: calls of value_and_grad.
        wall_s, cpu_s: seconds, of the clock and of processors, spent over all sessions of a resumed run.
        validation_loss: of these parameters, where there is validation.
    """

    params: np.ndarray
    loss: float
    status: str
    message: str
    history: dict[str, np.ndarray]
    evaluations: int
    wall_s: float
    validation_loss: float | None = None
    ended: str = ""
    cpu_s: float = float("nan")


class Iterate(NamedTuple):
    """Where the optimiser stands. Replaced as a whole, so that an interruption never sees half of it."""

    step: int
    params: np.ndarray
    exp_avg: np.ndarray
    exp_avg_sq: np.ndarray
    updates: int


class Best(NamedTuple):
    """Lowest loss, and its parameters."""

    loss: float
    params: np.ndarray


class Row(NamedTuple):
    """One iteration, as in the history of a `FlatResult`."""

    iteration: int
    loss: float
    phase: int
    seconds: float
    evaluations: int
    rung: int
    cpu_s: float
    work: float


_INTEGERS = {"iteration": np.int64, "phase": np.int8, "evaluations": np.int64, "rung": np.int8}


@dataclass
class FlatState:
    """All that a resumed run needs.

    `best` is over all save points, `validated` on validation data, if there are any. `rung`: of the ladder of
    tolerances, on which L-BFGS has been since so many evaluations, `rung_began`, from the loss `rung_loss` on.
    """

    iterate: Iterate
    best: Best
    validated: Best
    phase: int = 0
    rate_factor: float = 1.0
    recoveries: int = 0
    evaluations: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    work: float = 0.0
    status: str = "running"
    message: str = ""
    ended: str = ""
    rung: int = 0
    rung_began: int = 0
    rung_loss: float = float("inf")
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def start(cls, initial: np.ndarray) -> FlatState:
        params = np.array(initial, dtype=np.float64)
        zeros = np.zeros_like(params)
        none = Best(float("inf"), params)
        return cls(Iterate(0, params, zeros, zeros, 0), none, none)

    def history(self) -> dict[str, np.ndarray]:
        """The rows as arrays by name."""
        columns = self._table().T
        return {name: column.astype(_INTEGERS.get(name, np.float64)) for name, column in zip(Row._fields, columns)}

    def _table(self) -> np.ndarray:
        return np.array(self.rows, dtype=np.float64).reshape(-1, len(Row._fields))

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write atomically, with what the job is, part by part. KansciError if the folder cannot be written."""
        iterate, best = self.iterate, self.best
        scalars = {k: v for k, v in vars(self).items() if k not in ("iterate", "best", "validated", "rows")}
        scalars |= {"step": iterate.step, "updates": iterate.updates, "identity": dict(identity)}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            header=np.frombuffer(json.dumps(scalars).encode(), dtype=np.uint8),
            params=iterate.params,
            exp_avg=iterate.exp_avg,
            exp_avg_sq=iterate.exp_avg_sq,
            best_loss=np.array(best.loss),
            best_params=best.params,
            validated_loss=np.array(self.validated.loss),
            validated_params=self.validated.params,
            rows=self._table(),
        )
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, Any]) -> FlatState | None:
        """The state in a file, None without one. KansciError if it is corrupt or of a job that differs in any part."""
        try:
            content = io.BytesIO(path.read_bytes())  # np.load leaves a damaged file open
            with np.load(content, allow_pickle=False) as stored:
                arrays = {k: stored[k] for k in stored.files}
            header = json.loads(arrays["header"].tobytes())
            found = header.pop("identity")
            own = [int if name in _INTEGERS else float for name in Row._fields]
            rows = [Row._make(kind(x) for kind, x in zip(own, row, strict=True)) for row in arrays["rows"]]
            moments = arrays["exp_avg"], arrays["exp_avg_sq"]
            iterate = Iterate(header.pop("step"), arrays["params"], *moments, header.pop("updates"))
            best, validated = (
                Best(float(arrays.get(f"{name}_loss", np.inf)), arrays.get(f"{name}_params", arrays["best_params"]))
                for name in ("best", "validated")
            )
            state = cls(iterate, best, validated, rows=rows, **header)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise file_failure("read", path, error) from error
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise KansciError(f"the checkpoint {path} cannot be read ({error}): delete it to start again") from error
        wanted = json.loads(json.dumps(dict(identity)))
        if found != wanted:
            if isinstance(found, dict):
                parts = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
                what = f"not the same {', '.join(parts)}"
            else:
                what = "another version wrote it"
            raise KansciError(
                f"the checkpoint {path} belongs to other settings: delete it or choose another folder ({what})"
            )
        return state
