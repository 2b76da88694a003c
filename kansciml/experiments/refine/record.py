"""Trainings on fixed and refined grids, compared at equal cost: rows as in `kansciml.experiments.functions.record`."""

from __future__ import annotations

from dataclasses import dataclass

from kansciml.analysis.paired import Comparison, compare, corrected
from kansciml.experiments.functions.record import FunctionsRecord, Run, errors_at

OPTIMISERS = {"lbfgs": "L-BFGS", "adam": "Adam"}
"""`Run.match` of this experiment, and its titles."""
COSTS = {"flops": "equal FLOPs", "seconds": "equal time"}


def title(variant: str) -> str:
    """``KAN, G = 5``, ``KAN, refined`` or ``MLP``."""
    return {"refined": "KAN, refined", "mlp": "MLP"}.get(variant) or f"KAN, G = {variant.removeprefix('fixed-')}"


@dataclass(frozen=True)
class Matched:
    """Two kinds of training on one function at equal cost; `outcome`: of the claim that a's error is lower."""

    target: str
    a: tuple[str, str]
    b: tuple[str, str]
    cost: str
    outcome: Comparison


@dataclass(frozen=True)
class RefineRecord:
    """The trainings of a run: variant and optimiser of each are a pair such as ``("refined", "lbfgs")``."""

    found: FunctionsRecord

    @property
    def variants(self) -> list[str]:
        """The refined KAN, the fixed grids from coarse to fine, the MLP."""
        return list(dict.fromkeys(run.variant for run in self.found.runs))

    @property
    def fixed(self) -> list[str]:
        return [variant for variant in self.variants if variant.startswith("fixed-")]

    @property
    def targets(self) -> list[str]:
        return [target.name for target in self.found.targets]

    def of(self, target: str, kind: tuple[str, str]) -> list[Run]:
        """The seeds of one kind of training."""
        return [run for run in self.found.runs if (run.target, run.variant, run.match) == (target, *kind)]

    def pairs(self) -> dict[str, list[tuple[tuple[str, str], tuple[str, str]]]]:
        """Question -> the pairs that answer it: each question is one family of Holm's correction at each cost."""
        return {
            "Refined or fixed grid": [(("refined", how), (fixed, how)) for how in OPTIMISERS for fixed in self.fixed],
            "L-BFGS or Adam": [((variant, "lbfgs"), (variant, "adam")) for variant in self.variants],
            "KAN or MLP": [((kan, how), ("mlp", how)) for how in OPTIMISERS for kan in ("refined", *self.fixed)],
        }

    def matched(self, question: str, cost: str) -> list[Matched]:
        """The answers on every function, corrected for their number."""
        made = []
        for a, b in self.pairs()[question]:
            for target in self.targets:
                errors = errors_at(self.of(target, a), self.of(target, b), cost)
                made.append(Matched(target, a, b, cost, compare(*errors, below=1, text=f"{title(a[0])} lower")))
        outcomes = corrected([one.outcome for one in made])
        return [Matched(one.target, one.a, one.b, cost, own) for one, own in zip(made, outcomes)]
