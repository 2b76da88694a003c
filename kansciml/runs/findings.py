"""What a finished run says: of claims of the paper, and of KANs against MLPs; the same for every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kansciml.analysis.paired import UNDECIDED as OPEN
from kansciml.analysis.paired import Comparison

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this budget"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, UNDECIDED)


@dataclass(frozen=True)
class Finding:
    """One claim of the paper beside what was measured.

    Args:
        item: what the paper numbers it by, such as ``"Figure 2"``, ``"Table 1"`` or ``"Equation (1)"``.
        claim: the claim, in the paper's words where it has some, with the section; the same for all its cases.
        printed: the number or relation that the paper prints; empty where it prints none.
        measured: the same quantity here, with its unit and its error.
        verdict: one of `VERDICTS`.
        evidence: why: seeds, test, p-value, size of the run against the paper's.
        figures: stems of the pictures in the run's folder that show it, without suffix.
        case: what it was tried on, where there are several, such as ``"Spiral, equal width"``.

    Raises:
        ValueError: an unknown verdict.
    """

    item: str
    claim: str
    printed: str
    measured: str
    verdict: str
    evidence: str
    figures: Sequence[str] = ()
    case: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"got verdict {self.verdict!r}: expected one of {', '.join(VERDICTS)}")

    @property
    def text(self) -> str:
        """The claim with its case."""
        return f"{self.claim}: {self.case}" if self.case else self.claim


EQUAL = {
    "params": "equal parameters",
    "width": "equal width",
    "evaluations": "equal evaluations",
    "flops": "equal FLOPs",
    "time": "equal time",
}
"""What a KAN and an MLP are made equal in, the one that decides first."""
ERROR, ELSEWHERE, ASIDE, COST = "error", "error elsewhere", "error, told and not drawn", "cost"
"""What a `KanOverMlp` compares: the error of its task; that on other data, of other sizes or settings, drawn or told
alone; a cost."""
KAN_BETTER, MLP_BETTER = "KAN better", "MLP better"


@dataclass(frozen=True)
class KanOverMlp:
    """The error (or cost) of KANs over that of MLPs on one task with something held equal; below 1 the KAN is better.

    Args:
        kind: of task, such as ``"neural ODEs"``. task: such as ``"Lotka-Volterra"``.
        measure: what the ratio is of, such as ``"training loss"``. equal: a key of `EQUAL`.
        outcome: of a claim on that ratio, after Holm's correction; of a cost that was counted without p-value.
        about: `ERROR`, `ELSEWHERE`, `ASIDE` or `COST`.
        parameters: of KAN and MLP. ended: shares of the KANs' and of the MLPs' trainings that ended on a plateau or at
            their noise floor. Each None where it is not known.
        budget: what a training may take at most, in words. steps: iterations, where they are counted.
        cut: cost at which the dearer of two trainings was cut short, that of the cheaper one; empty where none was.
    """

    kind: str
    task: str
    measure: str
    equal: str
    outcome: Comparison
    about: str = ERROR
    parameters: tuple[int, int] | None = None
    ended: tuple[float, float] | None = None
    budget: str = ""
    cut: str = ""
    steps: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two runs of the same comparison share."""
        return self.kind, self.task, self.measure, self.equal

    @property
    def weight(self) -> tuple[int, int]:
        """Of two runs of the same comparison that of more seeds counts, and of as many the one trained for longer."""
        return self.outcome.n_pairs, self.steps

    @property
    def verdict(self) -> str:
        """`KAN_BETTER`, `MLP_BETTER` or ``"undecided"``, after Holm's correction."""
        return _better(self.outcome.corrected, self.outcome.effect)

    @property
    def uncorrected(self) -> str:
        """The same, of this comparison by itself."""
        return _better(self.outcome.verdict, self.outcome.effect)


def _better(verdict: str, ratio: float) -> str:
    """A signed-rank test that decides, and its estimate, lie on the same side of 1."""
    return OPEN if verdict == OPEN else KAN_BETTER if ratio < 1 else MLP_BETTER
