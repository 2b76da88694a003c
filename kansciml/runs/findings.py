"""What a finished run says about a claim of the paper: one line each, the same for every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
