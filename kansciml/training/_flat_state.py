"""The resumable state of one optimisation, and its file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import file_failure, write_bytes


class Iterate(NamedTuple):
    """Where the optimiser stands. Replaced as a whole, so that an interruption never sees half of it."""

    step: int
    params: np.ndarray
    exp_avg: np.ndarray
    exp_avg_sq: np.ndarray
    updates: int


class Best(NamedTuple):
    """Lowest loss over all save points, and its parameters."""

    loss: float
    params: np.ndarray


@dataclass
class FlatState:
    """All that a resumed run needs; `rows` are (iteration, loss, phase, seconds)."""

    iterate: Iterate
    best: Best
    phase: int = 0
    rate_factor: float = 1.0
    recoveries: int = 0
    evaluations: int = 0
    wall_s: float = 0.0
    status: str = "running"
    message: str = ""
    rows: list[tuple[int, float, int, float]] = field(default_factory=list)

    @classmethod
    def start(cls, initial: np.ndarray) -> FlatState:
        params = np.array(initial, dtype=np.float64)
        zeros = np.zeros_like(params)
        return cls(Iterate(0, params, zeros, zeros, 0), Best(float("inf"), params))

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write atomically, with what the job is, part by part. KansciError if the folder cannot be written."""
        iterate, best = self.iterate, self.best
        scalars = {k: v for k, v in vars(self).items() if k not in ("iterate", "best", "rows")}
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
            rows=np.array(self.rows, dtype=np.float64).reshape(-1, 4),
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
            rows = [(int(i), float(v), int(p), float(s)) for i, v, p, s in arrays["rows"]]
            moments = arrays["exp_avg"], arrays["exp_avg_sq"]
            iterate = Iterate(header.pop("step"), arrays["params"], *moments, header.pop("updates"))
            state = cls(iterate, Best(float(arrays["best_loss"]), arrays["best_params"]), rows=rows, **header)
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
