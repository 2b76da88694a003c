"""When a run decides a claim, how what its seeds say is written down; and groups of seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from kansciml.analysis.comparison import REFUTED, SUPPORTED, UNDECIDED, compare_losses
from kansciml.reporting import judging
from kansciml.reporting.groups import diverged_notes, grouped
from kansciml.reporting.judging import by_seeds, diverged, judged, listed, resized, shortfalls
from kansciml.runs import findings


@pytest.mark.parametrize("decided, verdict", judging.VERDICT.items())
def test_a_run_of_the_papers_size_decides_and_a_smaller_one_only_says_what_holds_at_its_size(decided, verdict):
    found, evidence = judged(decided, "p = 0.008 <= 0.05", (5, 6), [])
    assert found == verdict and evidence.startswith(f"{decided}, p = 0.008 <= 0.05") and "5 against 6" in evidence
    found, evidence = judged(decided, "because", (5, 5), ["epochs 12 instead of 500"], what="this")
    assert found == findings.UNDECIDED and evidence.startswith(f"at this size: this: {decided}, because")
    assert evidence.endswith("epochs 12 instead of 500")


def test_too_few_seeds_decide_nothing_whatever_the_test_says():
    found, evidence = judged(SUPPORTED, "p = 0.036", (3, 5), [])
    assert found == findings.UNDECIDED and "3 seeds a side instead of 4" in evidence
    assert judged(SUPPORTED, "p = 0.029", (4, 4), [])[0] == findings.REPRODUCED
    assert judged(SUPPORTED, "p = 0.029", (4, 4), [], least=5)[0] == findings.UNDECIDED
    assert "1 seed a side" in judged(UNDECIDED, "", (1, 1), [])[1]


def test_a_comparison_is_judged_with_its_effect_or_as_the_opposite_of_its_claim():
    lower = compare_losses([1.0, 2, 3, 4], [5.0, 6, 7, 8])
    verdict, evidence = by_seeds(lower, [])
    assert verdict == findings.REPRODUCED and "p = 0.029" in evidence and "Cliff's delta -1.00" in evidence
    assert by_seeds(lower, [], decided=judging.OPPOSITE[SUPPORTED])[0] == findings.NOT_REPRODUCED
    assert judging.OPPOSITE == {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}


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

    @property
    def error(self) -> float:
        return math.inf if self.diverged or self.score is None else self.score


def test_groups_leave_diverged_seeds_out_of_medians_but_rank_them_worst():
    rows = [Row("b", "kan", "1", 1.0), Row("a", "mlp", "2", None), Row("b", "kan", "3", 3.0), Row("b", "mlp", "4", 9.0),
            Row("b", "kan", "5", 8.0, diverged=True)]  # fmt: skip
    arrays = {"1.loss": np.ones(2), "3.loss": np.ones(3), "5.loss": np.ones(1)}
    groups = grouped(rows, lambda row: (row.task, row.name), ["mlp", "kan"].index, arrays)
    assert [(group.task, group.name) for group in groups] == [("b", "mlp"), ("b", "kan"), ("a", "mlp")]
    kans, empty = groups[1], groups[2]
    assert kans.median(lambda row: row.score) == 2.0 and kans.spread(lambda row: row.score) == (1.0, 3.0)
    assert kans.errors == [1.0, 3.0, math.inf] and diverged_notes(groups) == ["b, KAN: 1 of 3 seeds diverged."]
    assert math.isnan(empty.median(lambda row: row.score)) and empty.errors == [math.inf]
    np.testing.assert_array_equal(kans.curves("loss")[2], [1, np.nan, np.nan])
