"""When a run decides a claim, how what its seeds say is written down; and groups of seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from kansciml.analysis.paired import REFUTED, SUPPORTED, UNDECIDED, compare
from kansciml.reporting import judging
from kansciml.reporting.claims import Claim, claim_table, counted, in_families
from kansciml.reporting.groups import diverged_notes, grouped
from kansciml.reporting.judging import diverged, judged, listed, resized, shortfalls
from kansciml.runs import findings

LOW, HIGH = ({seed: start + seed for seed in range(8)} for start in (1.0, 21.0))
CLAIMS = {
    SUPPORTED: compare(HIGH, LOW, above=1, text="MLP lower"),
    REFUTED: compare(LOW, HIGH, above=1, text="MLP lower"),
    UNDECIDED: compare(LOW, {seed: 8 - seed for seed in LOW}, above=1, text="MLP lower"),
}


def claim(outcome, name="lower"):
    return Claim(name, "", None, None, outcome)


@pytest.mark.parametrize("decided, verdict", judging.VERDICT.items())
def test_a_run_of_the_papers_size_decides_and_a_smaller_one_only_says_what_holds_at_its_size(decided, verdict):
    found, evidence = judged(claim(CLAIMS[decided]), [])
    assert found == verdict and evidence.startswith(f"{decided}, MLP lower with") and "signed-rank test" in evidence
    found, evidence = judged(claim(CLAIMS[decided]), ["epochs 12 instead of 500"], what="this")
    assert found == findings.UNDECIDED and evidence.startswith(f"at this size: this: {decided}, MLP lower with")
    assert evidence.endswith("epochs 12 instead of 500")


def test_too_few_seeds_for_the_family_decide_nothing_whatever_the_test_says():
    few = compare(*({seed: side[seed] for seed in range(5)} for side in (HIGH, LOW)), above=1)
    found, evidence = judged(claim(few), [])
    assert found == findings.UNDECIDED and "5 paired seeds instead of 6" in evidence
    one, *_ = in_families([claim(CLAIMS[SUPPORTED])] * 7)
    found, evidence = judged(one, [])
    assert found == findings.UNDECIDED and "supported by itself, undecided after Holm's correction" in evidence
    assert "8 paired seeds instead of 9" in evidence and "p = 0.055 after Holm's correction over 7" in evidence


def test_a_claim_is_judged_as_the_opposite_of_the_papers():
    assert judged(claim(CLAIMS[SUPPORTED]), [], opposite=True)[0] == findings.NOT_REPRODUCED
    assert judged(claim(CLAIMS[REFUTED]), [], opposite=True)[0] == findings.REPRODUCED
    assert judging.OPPOSITE == {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}


def test_claims_of_one_name_are_a_family_and_the_table_shows_both_verdicts():
    others = [claim(CLAIMS[SUPPORTED])] * 6 + [claim(counted(SUPPORTED, "counted"))]
    found = in_families([claim(CLAIMS[SUPPORTED], "alone"), *others, claim(CLAIMS[SUPPORTED])])
    assert [one.outcome.family for one in found] == [1, *[7] * 6, 1, 7]
    table = claim_table("Claims", ["Where"], "KAN / MLP", [(["here"], one) for one in found])
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert [row["After Holm"] for row in rows] == [SUPPORTED, *[UNDECIDED] * 6, None, UNDECIDED]
    assert {row["Verdict"] for row in rows} == {SUPPORTED} and rows[7]["Seeds"] is None and rows[1]["Seeds"] == 8
    assert rows[1]["Why"].endswith("to decide one claim of 7 takes 9 seeds") and rows[1]["p after Holm"] == 14 / 256
    assert "(7 claims, decided by 9 seeds or more, or 1 claim, decided by 6 seeds or more; 12 are" in table.notes[0]


def test_only_what_is_smaller_or_other_falls_short():
    reference = {"at_least": {"epochs": 500, "size": 85}, "same": {"subset": None, "dataset": "cifar10"}}
    assert shortfalls({"epochs": 600, "size": 85, "subset": None, "dataset": "cifar10"}, **reference) == []
    found = shortfalls({"epochs": 12, "size": 85, "subset": 2000, "dataset": "cifar10"}, **reference)
    assert found == ["epochs 12 instead of 500", "subset 2000 instead of all"]
    assert len(shortfalls({}, **reference)) == 3  # what a record does not say is not taken for granted
    assert resized({"modes": [8, 8]}) == ["modes 8 x 8 instead of the model's own"] and resized(None) == []


def test_long_lists_are_cut_and_lost_seeds_named():
    assert listed(list("abcdef")) == "a; b; c; d; e; f" and listed(list("abcdefg")).endswith("e; and 2 more")
    assert diverged({"MLP": (0, 5), "KAN": (2, 5)}) == "; 2 of 5 seeds of KAN diverged"


@dataclass(frozen=True)
class Row:
    task: str
    name: str
    id: str
    score: float | None
    diverged: bool = False
    label: str = "KAN"
    seed: int = 0

    @property
    def error(self) -> float:
        return math.inf if self.diverged or self.score is None else self.score


def test_groups_leave_diverged_seeds_out_of_medians_but_rank_them_worst():
    rows = [Row("b", "kan", "1", 1.0), Row("a", "mlp", "2", None), Row("b", "kan", "3", 3.0, seed=1),
            Row("b", "mlp", "4", 9.0), Row("b", "kan", "5", 8.0, diverged=True, seed=4)]  # fmt: skip
    arrays = {"1.loss": np.ones(2), "3.loss": np.ones(3), "5.loss": np.ones(1)}
    groups = grouped(rows, lambda row: (row.task, row.name), ["mlp", "kan"].index, arrays)
    assert [(group.task, group.name) for group in groups] == [("b", "mlp"), ("b", "kan"), ("a", "mlp")]
    kans, empty = groups[1], groups[2]
    assert kans.median(lambda row: row.score) == 2.0 and kans.spread(lambda row: row.score) == (1.0, 3.0)
    assert kans.by_seed() == {0: 1.0, 1: 3.0, 4: math.inf} and diverged_notes(groups) == [
        "b, KAN: 1 of 3 seeds diverged."
    ]
    assert math.isnan(empty.median(lambda row: row.score)) and empty.by_seed() == {0: math.inf}
    np.testing.assert_array_equal(kans.curves("loss")[2], [1, np.nan, np.nan])
