"""Trainings on functions as a record holds them, and the comparisons of their errors, paired by seed.

``result["targets"]``: `TargetRow` rows; ``result["runs"]``: `Run` rows without their curves, which are the array
``curves`` (R, K, 5), NaN after the end of a shorter one: evaluations, seconds, FLOPs, training error and error.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from kansciml.analysis.paired import SUPPORTED, UNDECIDED, Comparison, compare, corrected
from kansciml.runs.experiment import Result
from kansciml.runs.records import Record, finished_rows, reading
from kansciml.runs.typed import read, write

VARIANTS = {
    "kan": "KAN",
    "kan-refined": "KAN, refined",
    "mlp": "MLP",
    "spline-mlp": "spline MLP",
}
"""Kinds of networks, in the order of tables; a spline MLP has learnable B-splines for activations."""
CURVE = ("evaluations", "seconds", "flops", "train", "error")
"""Columns of `Run.curve`; both errors are root mean squares in standard deviations of the function."""
CONVERGED = "converged"
Errors = dict[int, "float | None"]
"""Error by seed."""


@dataclass(frozen=True)
class TargetRow:
    """A function: see `kansciml.tasks.functions.target.Target`."""

    name: str
    kind: str
    formula: str
    inputs: int


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        variant: a key of `VARIANTS`. match: of its size: ``params`` or ``flops``. label: of the network at the end.
        n_parameters: at the end. flops: of one evaluation at one point, the mean over its grids.
        error: root mean square error on fresh points without noise, in standard deviations of the function; infinite if
            the training diverged.
        ended: ``converged`` on a plateau, ``capped``, ``at the noise floor``.
        curve: by the names of `CURVE`, after some of the iterations.
    """

    id: str
    target: str
    noise: float
    variant: str
    match: str
    seed: int
    label: str
    n_parameters: int
    flops: float
    error: float
    status: str
    ended: str
    iterations: int
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    @property
    def seconds(self) -> float:
        """Seconds of the processor that it took."""
        return self.curve["seconds"][-1]

    def error_at(self, limit: float, of: str) -> float:
        """The error when so many evaluations, seconds or FLOPs were spent, between those watched by its logarithm;
        infinite if the training diverged."""
        if self.status != "finished":
            return math.inf
        return float(np.exp(np.interp(limit, self.curve[of], np.log(self.curve["error"]))))


@dataclass(frozen=True)
class Verdict:
    """Two variants on one function at one noise, equal in something.

    Args:
        a, b: variants. errors: their medians. converged: how many trainings of each ended on a plateau.
        outcome: of the claim that a's error is lower, by itself and after Holm's correction over all functions and
            noises of the two variants, equal in the same.
    """

    target: str
    kind: str
    noise: float
    a: str
    b: str
    errors: tuple[float, float]
    converged: tuple[int, int]
    outcome: Comparison

    @property
    def confirmed(self) -> bool:
        """Whether it is decided after the correction."""
        return self.outcome.corrected != UNDECIDED

    @property
    def winner(self) -> str:
        """The variant that is better after the correction; empty where that is open."""
        return "" if not self.confirmed else self.a if self.outcome.corrected == SUPPORTED else self.b

    @property
    def told(self) -> str:
        """``KAN better``, by itself."""
        verdict = self.outcome.verdict
        return verdict if verdict == UNDECIDED else f"{VARIANTS[self.a if verdict == SUPPORTED else self.b]} better"


PROTOCOLS = {"params": "equal parameters", "flops": "equal FLOPs", "time": "equal time"}
PAIRS = (("kan", "mlp"), ("kan-refined", "mlp"), ("spline-mlp", "mlp"), ("kan", "spline-mlp"), ("kan-refined", "kan"))


@dataclass(frozen=True)
class FunctionsRecord:
    """The functions and all finished trainings on them."""

    targets: tuple[TargetRow, ...]
    runs: tuple[Run, ...]

    @classmethod
    def read(cls, record: Record) -> FunctionsRecord:
        """Raises DamagedRecord where the record holds no trainings."""
        runs, rows = [], finished_rows(record, Run)
        with reading(record):
            targets = tuple(read(TargetRow, row) for row in record.result["targets"])
            for run, curve in zip(rows, record.arrays["curves"], strict=True):
                known = curve[np.isfinite(curve[:, 0])].T
                error = run.error if run.status == "finished" else math.inf
                runs.append(replace(run, error=error, curve=dict(zip(CURVE, known))))
        return cls(targets, tuple(runs))

    @property
    def noises(self) -> list[float]:
        return sorted({run.noise for run in self.runs})

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(target.kind for target in self.targets))

    @property
    def n_seeds(self) -> int:
        return len({run.seed for run in self.runs})

    def of(self, target: str, noise: float, variant: str, match: str) -> list[Run]:
        """The seeds of one kind of network; those with the parameters of the others where there are none of `match`."""
        return self._groups.get((target, noise, variant, match)) or self._groups.get(
            (target, noise, variant, "params"), []
        )

    @functools.cached_property
    def _groups(self) -> dict[tuple[str, float, str, str], list[Run]]:
        found: dict[tuple[str, float, str, str], list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            found.setdefault((run.target, run.noise, run.variant, run.match), []).append(run)
        return found

    @functools.cached_property
    def _verdicts(self) -> dict[tuple[str, str, str, float], list[Verdict]]:
        """What `verdicts` has given: tables and pictures ask for the same."""
        return {}

    def variants(self) -> list[str]:
        return [variant for variant in VARIANTS if any(run.variant == variant for run in self.runs)]

    def verdicts(self, a: str, b: str, equal: str, share: float = 1.0) -> list[Verdict]:
        """The two variants on every function at every noise, corrected for their number.

        Args:
            share: of the budget after which errors are compared: of the evaluations, or of the time.
        """
        key = a, b, equal, share
        if key not in self._verdicts:
            pairs = product(self.targets, self.noises)
            found = [self._verdict(target, noise, a, b, equal, share) for target, noise in pairs]
            outcomes = corrected([one.outcome for one in found])
            self._verdicts[key] = [replace(one, outcome=own) for one, own in zip(found, outcomes)]
        return self._verdicts[key]

    def _verdict(self, target: TargetRow, noise: float, a: str, b: str, equal: str, share: float) -> Verdict:
        match = "flops" if equal == "flops" else "params"
        sides = self.of(target.name, noise, a, match), self.of(target.name, noise, b, match)
        of = "seconds" if equal == "time" else "evaluations" if share < 1 else None
        errors = errors_at(*sides, of, share)
        return Verdict(
            target=target.name,
            kind=target.kind,
            noise=noise,
            a=a,
            b=b,
            errors=(_median(errors[0]), _median(errors[1])),
            converged=(_converged(sides[0]), _converged(sides[1])),
            outcome=compare(*errors, below=1, text=f"{VARIANTS[a]} lower"),
        )


def errors_at(a: Iterable[Run], b: Iterable[Run], of: str | None, share: float = 1.0) -> tuple[Errors, Errors]:
    """Errors by seed of two kinds of networks at equal cost.

    Args:
        of: cost that is equal within a seed, ``evaluations``, ``seconds`` or ``flops``: what the one had spent that
            ended on less; None: each as it ended.
        share: of that cost.
    """
    first, second = ({run.seed: run for run in side} for side in (a, b))
    errors: tuple[Errors, Errors] = ({}, {})
    for seed in first.keys() & second.keys():
        pair = first[seed], second[seed]
        limit = None if of is None else share * min(run.curve[of][-1] for run in pair)
        for own, run in zip(errors, pair):
            own[seed] = run.error if of is None or limit is None else run.error_at(limit, of)
    return errors


def curve_of(columns: Iterable[np.ndarray]) -> dict[str, tuple[float, ...]]:
    """`Run.curve` from arrays (K,) in the order of `CURVE`, to six digits."""
    return {name: tuple(float(f"{value:.6g}") for value in column) for name, column in zip(CURVE, columns)}


def _median(errors: Errors) -> float:
    return float(np.median(np.array(list(errors.values()), dtype=np.float64)))


def _converged(runs: Iterable[Run]) -> int:
    return sum(run.ended == CONVERGED for run in runs)


def functions_result(targets: Iterable[TargetRow], runs: Sequence[Mapping[str, Any]]) -> Result:
    """What the record holds, from `Run` rows in JSON types."""
    longest = max(len(run["curve"]["error"]) for run in runs)
    curves = np.full((len(runs), longest, len(CURVE)), np.nan)
    for own, run in zip(curves, runs):
        columns = np.array([run["curve"][name] for name in CURVE], dtype=np.float64).T  # None, not finite, becomes NaN
        own[: len(columns)] = columns
    rows = [{name: value for name, value in run.items() if name != "curve"} for run in runs]
    return Result(
        {"targets": [write(target) for target in targets], "runs": rows}, {"curves": curves.astype(np.float32)}
    )
