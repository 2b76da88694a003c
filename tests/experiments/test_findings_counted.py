"""Findings that rest on counts alone, Figures 1 and 4: numbers of the record in, each verdict out."""

from __future__ import annotations

import pytest
from support import fig1_records, fig4_records

from kansciml.experiments.fig1 import findings as fig1_findings
from kansciml.experiments.memory import findings as fig4_findings
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from kansciml.runs.tables import format_number


def equations(record):
    """Findings of Figure 1: the misprint, the algebra, the memory, the parameters."""
    found = fig1_findings.findings(record)
    assert [one.item for one in found] == ["Equation (1)", "Equation (2)", "Equation (2)", "Section 3.1"]
    return found


def test_equation_1_is_a_misprint_unless_all_layers_are_square(tmp_path):
    misprint = equations(fig1_records.make(tmp_path))[0]
    assert misprint.verdict == NOT_REPRODUCED
    assert "73,600, not 73,664" in misprint.measured and "-64 to 64 elements" in misprint.measured
    assert equations(fig1_records.make(tmp_path, widths=(64,)))[0].verdict == UNDECIDED
    right = fig1_records.make(tmp_path)
    for name in ("size", "batch"):
        right.arrays[f"{name}.equation_2"] = right.arrays[f"{name}.corrected"]
    assert equations(right)[0].verdict == REPRODUCED


def test_equation_2_is_the_sum_of_equation_1_until_a_cell_is_not(tmp_path):
    record = fig1_records.make(tmp_path)
    algebra = equations(record)[1]
    assert algebra.verdict == REPRODUCED and "0 of 4" in algebra.measured and "159,680" in algebra.evidence
    record.arrays["size.equation_2"][0, 1] += 4
    assert equations(record)[1].verdict == NOT_REPRODUCED


@pytest.mark.parametrize(
    "ratio, verdict",
    [(6.0, NOT_REPRODUCED), (0.5, NOT_REPRODUCED), (1.11, NOT_REPRODUCED), (1.09, REPRODUCED), (0.91, REPRODUCED)],
)
def test_equation_2_is_met_within_a_tenth_of_the_measured_memory(tmp_path, ratio, verdict):
    memory = equations(fig1_records.make(tmp_path, ratio=ratio))[2]
    assert memory.verdict == verdict and f"median {format_number(ratio)}, 8 sizes" in memory.measured
    assert "76.0 numbers" in memory.evidence and "has 16" in memory.evidence


def test_ten_times_the_parameters_needs_wide_layers_and_the_papers_grid(tmp_path):
    wide = equations(fig1_records.make(tmp_path))[3]
    assert wide.verdict == REPRODUCED and "9.92 times at I = O = 128, 9.85 at 64" in wide.measured
    assert equations(fig1_records.make(tmp_path, widths=(2, 4)))[3].verdict == NOT_REPRODUCED  # 10 * 4 / 5
    finer = equations(fig1_records.make(tmp_path, grid=10))[3]
    assert finer.verdict == UNDECIDED and "not the paper's grid" in finer.evidence


def about(record, words):
    """The finding whose claim has all `words`."""
    (found,) = [one for one in fig4_findings.findings(record) if all(word in one.text for word in words)]
    return found


@pytest.mark.parametrize("slope, verdict", [(140.0, REPRODUCED), (8.0, REPRODUCED), (7.9, NOT_REPRODUCED)])
def test_significantly_higher_is_twice_as_much_per_sample_in_every_model(tmp_path, slope, verdict):
    record = fig4_records.make(tmp_path, slopes={"mlp": 4.0, "textbook": slope})
    found = about(record, ("significantly higher", "textbook"))
    assert found.verdict == verdict and f"one: {slope:.3g}" in found.measured.replace(".00", "")
    assert found.item == "Figure 4a" and "no training" in found.evidence


def test_one_model_with_little_more_is_enough_against_the_claim_and_small_batches_leave_it_open(tmp_path):
    record = fig4_records.make(tmp_path, slopes={"mlp": 4.0, "textbook": 140.0})
    second = record.result["curves"][3]
    second["kept_bytes"] = 2 * second["slope_bytes"]
    found = about(record, ("significantly higher",))
    assert found.verdict == UNDECIDED and "of 1 the batches are too small to tell" in found.evidence
    second |= {"kept_bytes": 0.0, "slope_bytes": 4.1e6}
    assert about(record, ("significantly higher",)).verdict == NOT_REPRODUCED


def test_running_out_of_memory_earlier_is_decided_at_16_gb_alone(tmp_path):
    record = fig4_records.make(tmp_path)
    assert about(record, ("16GB", "textbook")).verdict == REPRODUCED
    assert "one: 114 against 4000" in about(record, ("16GB", "textbook")).measured
    assert about(record, ("16GB", "SplineKAN")).verdict == NOT_REPRODUCED  # 3 MB a sample against 4
    record.config["limit_gb"] = 0.5
    found = about(record, ("16GB", "textbook"))
    assert found.verdict == UNDECIDED and found.evidence.startswith("at this size: the limit is 0.5 GB")


def test_growth_is_linear_until_a_curve_bends_and_two_points_tell_nothing(tmp_path):
    record = fig4_records.make(tmp_path, models=("one",))
    straight = about(record, ("linear growth",))
    assert straight.verdict == REPRODUCED and "7 of the 7 largest batches of 2 curves" in straight.measured
    for key in ("batch", "peak", "total"):
        record.arrays[f"one.textbook.{key}"] = record.arrays[f"one.textbook.{key}"][:2]
    assert about(record, ("linear growth",)).verdict == UNDECIDED
    record.arrays["one.mlp.peak"][-1] *= 2
    bent = about(record, ("linear growth",))
    assert bent.verdict == NOT_REPRODUCED and "1 of 2 curves are bent" in bent.evidence


def test_points_off_the_line_at_small_batches_are_no_bend(tmp_path):
    record = fig4_records.make(tmp_path, models=("one",))
    record.arrays["one.mlp.peak"][0] *= 50  # gradients alone
    found = about(record, ("linear growth",))
    assert found.verdict == REPRODUCED and "6 of the 6" in found.measured


@pytest.mark.parametrize(
    "model, full, verdict",
    [
        ("whole-85", 0, REPRODUCED),
        ("whole-85", 24, NOT_REPRODUCED),
        ("whole-29", 0, UNDECIDED),
        ("ends-85", 0, UNDECIDED),
    ],
)
def test_training_is_infeasible_where_no_sample_of_the_sources_size_fits(tmp_path, model, full, verdict):
    slopes = {"mlp": 200.0, "textbook": 650.0}
    record = fig4_records.make(tmp_path, models=(model,), slopes=slopes, experiment="fig4b")
    record.result["curves"][1]["full_batch"] = full
    found = about(record, ("infeasible", "textbook"))
    assert found.verdict == verdict and found.item == "Section 4.3"
    assert ("batch of 32 does not fit" in found.evidence) == (verdict != UNDECIDED)
    record.config["limit_gb"] = 0.2
    assert about(record, ("infeasible", "textbook")).verdict == UNDECIDED


def test_feasibility_is_of_operators_and_every_variant_has_its_findings(tmp_path):
    images = fig4_findings.findings(fig4_records.make(tmp_path))
    assert not any("infeasible" in one.claim for one in images) and len(images) == 3 * 2 + 1
    operators = fig4_findings.findings(fig4_records.make(tmp_path, models=("whole-85",), experiment="fig4b"))
    assert {one.item for one in operators} == {"Figure 4b", "Section 4.3"} and len(operators) == 3 * 3 + 1
    without = fig4_findings.findings(fig4_records.make(tmp_path, slopes={"textbook": 140.0}))
    assert {one.verdict for one in without[:2]} == {UNDECIDED}  # nothing to compare with
