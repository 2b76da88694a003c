"""The answer for a practitioner: its rows are the experiments' own claims, its sentences follow, its picture fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import fig3_records, fig4_records, fig5_records
from support.page_samples import make_page
from support.pictures import assert_text_fits

from kansciml.analysis.paired import compare, corrected
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.tables import claims
from kansciml.reporting.style import publication_style
from kansciml.reproduce.answer import Answer, answer
from kansciml.reproduce.answer_figure import Line, answer_figure, draw, lines
from kansciml.reproduce.answer_words import details, limits, sentences
from kansciml.reproduce.page.content import MISSING, Entry
from kansciml.reproduce.paper import reproduce
from kansciml.runs.config_json import with_settings
from kansciml.runs.findings import ASIDE, COST, ELSEWHERE, KAN_BETTER, MLP_BETTER, KanOverMlp
from kansciml.runs.records import save_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.settings import settings_json


def outcome(ratio, seeds=12, spread=0.1):
    noise = np.exp(np.linspace(-spread, spread, seeds))
    return corrected([compare(dict(enumerate(ratio * noise)), dict.fromkeys(range(seeds), 1.0), above=1)])[0]


def row(task, ratio, equal="params", kind="neural ODEs", measure="training loss", **more):
    found = outcome(ratio, **{name: more.pop(name) for name in ("seeds", "spread") if name in more})
    return KanOverMlp(kind, task, measure, equal, found, **{"parameters": (240, 252), **more})


@pytest.fixture
def odes(make_record, tmp_path):
    made = make_record(tmp_path, systems=("lotka", "fitzhugh"), seeds=9, diverged=())
    return replace(made, experiment="fig2", config={"training": {"lbfgs_steps": 5000, "adam_steps": 100}})


def test_rows_are_the_claims_of_the_experiment_with_their_verdicts(odes):
    found = answer([odes])
    wanted = {
        (claim.system.title, claim.group.variant): claim.outcome
        for claim in claims(OdeRecord.read(odes))
        if claim.name == "lower"
    }
    assert len(found.rows) == len(wanted) == 4
    for one in found.rows:
        assert one.outcome == wanted[one.task, f"kan-{one.equal}"]
        assert one.verdict == (KAN_BETTER if one.equal == "width" else MLP_BETTER)
    assert "at most 5,000 iterations of L-BFGS after 100 iterations of Adam" in found.limits[0]
    assert "fig3 (Figure 3)" in found.limits[-1] and "fig2" not in found.limits[-1]


def test_the_run_with_more_seeds_counts_and_what_cannot_be_read_is_named(odes, tmp_path, make_record):
    fewer = replace(make_record(tmp_path, systems=("lotka",), seeds=6), experiment="ode")
    found = answer([fewer, odes])
    assert {one.outcome.n_pairs for one in found.rows if one.task == "Lotka-Volterra"} == {9}
    longer = replace(fewer, config={"training": {"lbfgs_steps": 6000}})
    for runs in ([fewer, longer], [longer, fewer]):
        assert {one.steps for one in answer(runs).rows} == {6000}
    found = answer([replace(odes, result={}), fewer])
    assert {one.outcome.n_pairs for one in found.rows} == {6} and "is left out" in found.limits[-1]


def test_runs_of_other_settings_are_beside_those_of_the_preset(tmp_path, make_record):
    experiment, folder = get_experiment("fig2"), tmp_path / "fig2" / "0123456789ab"
    config = settings_json(with_settings(experiment.preset("smoke"), {"backend": "torch"}))
    config["training"] |= {"lbfgs_steps": 6000}
    save_record(replace(make_record(folder, systems=("lotka",), seeds=6), experiment="fig2", config=config))
    page = reproduce([], "smoke", tmp_path, beside=[folder], log=print, run=None)
    (one,) = page.further
    assert one.text == "backend torch, lbfgs_steps 6000" and page.records == [one.record]
    assert {row.steps for row in page.answer.rows} == {6020}
    assert reproduce([], "smoke", tmp_path, log=print, run=None).answer is None


def test_a_run_that_finds_the_opposite_is_named(odes, tmp_path, make_record):
    contrary = make_record(tmp_path, systems=("lotka",), seeds=8, diverged=())
    flipped = {"kan-width": "kan-params", "kan-params": "kan-width"}
    rows = [{**run, "variant": flipped.get(run["variant"], run["variant"])} for run in contrary.result["runs"]]
    contrary = replace(contrary, experiment="ode", result={**contrary.result, "runs": rows})
    (told,) = [line for line in answer([odes, contrary]).limits if "the opposite" in line]
    assert "Lotka-Volterra, training loss, equal parameters" in told and "FitzHugh" not in told
    assert not any("the opposite" in line for line in answer([odes]).limits)


def test_without_a_finished_comparison_there_is_no_answer(odes, tmp_path):
    entry = Entry("fig2", "Figure 2", "Neural ODEs", "kansciml run fig2", MISSING)
    assert answer([]) is None and answer([entry, replace(odes, status="running")]) is None
    assert answer(make_page(tmp_path).entries) is None  # finished, and empty


def test_classifiers_operators_and_memory_have_rows(tmp_path):
    runs = [fig3_records.make(tmp_path), fig5_records.make(tmp_path), fig4_records.make(tmp_path)]
    found = answer(runs).rows
    assert {one.kind for one in found} == {"images", "operators", "memory per sample"}
    images = [one for one in found if one.kind == "images"]
    assert [one.verdict for one in images] == [MLP_BETTER] * 2 and images[0].outcome.effect == pytest.approx(1.39, 0.02)
    darcy = {one.task: one.verdict for one in found if one.kind == "operators"}
    assert darcy == {
        "Darcy flow, 9 x 9, without residual": MLP_BETTER, "Darcy flow, 9 x 9, with residual": KAN_BETTER,
    }  # fmt: skip
    memory = [one for one in found if one.about == COST]
    assert [one.outcome.effect for one in memory] == [0.75, 0.75] and memory[0].verdict == KAN_BETTER
    (alike,) = answer([fig4_records.make(tmp_path, ("one",), {"mlp": 4.0, "kan-spline": 4.0})]).rows
    assert alike.verdict == "undecided"


def test_sentences_count_and_details_name_winners_and_where_the_verdict_turns():
    rows = [
        row("Spiral", 0.1), row("Spiral", 7.0, "time"), row("Lotka", 5.0), row("Rigid", 1.0, spread=1.0),
        *(row(f"f{place}", 0.5, kind="formulas") for place in range(5)), row("f9", 3.0, kind="formulas"),
        row("Lotka", 4.0, measure="later times", about=ELSEWHERE),
        row("f1", 9.0, measure="with 5 % noise", about=ASIDE),
    ]  # fmt: skip
    overall, kinds, equal, other = sentences(rows)
    assert overall == "With equal parameters KANs have the lower error on 6 of 9 tasks and MLPs on 2; 1 is undecided."
    assert kinds == "KANs lead on formulas (5 to 1 of 6); neither on neural ODEs (1 to 1 of 3)."
    assert equal == "MLPs lead at equal time (1 to 0 of 1)."
    assert other == "Elsewhere MLPs lead at later times (1 to 0 of 1)."
    kan, mlp, neither, cost, elsewhere = details(rows)
    assert kan.startswith("With equal parameters a KAN has the lower error on 6 of 9 tasks (KAN / MLP): Spiral (0.10, ")
    assert kan.endswith("; 5 of 6 formulas (0.50).")
    assert mlp.startswith("An MLP has it on 2: Lotka (5.0, ") and "; f9 (3.0, " in mlp
    assert neither.startswith("1 is undecided: Rigid (1.00, ")
    assert cost == (
        "At equal time KANs lead on none and MLPs on 1 of 1 task; the verdict turns on Spiral (with equal time)."
    )
    assert elsewhere == (
        "At later times KANs lead on none and MLPs on 1 of 1 task; with 5 % noise KANs lead on none and MLPs on 1 of 1"
        " task."
    )


def test_a_ratio_next_to_1_says_on_which_side_it_lies():
    assert "Darcy (1.03, 1.02 to 1.04)" in details([row("Darcy", 1.03, spread=0.02)])[1]


def test_what_was_cut_short_for_equal_cost_is_said_to_be():
    rows = [row("Spiral", 2.0), row("Spiral", 0.5, "time", cut="seconds with torch"), row("Spiral", 0.5, "flops")]
    assert "Cut at equal time KANs lead on 1 and MLPs on none of 1 task; at equal FLOPs" in details(rows)[-1]
    (told,) = [line for line in limits(rows) if line.startswith("The dearer of two trainings is cut")]
    assert "as much as the other in seconds with torch:" in told


def test_tasks_that_were_not_trained_to_the_end_are_named_after_the_others():
    rows = [row(f"f{place}", 1.0, kind="formulas", ended=(1.0, 0.1 * place)) for place in range(4, 10)]
    told = details(rows)[-1]
    assert told.startswith("6 are undecided: f8 (1.00, ") and "; f9 (1.00, " in told
    assert told.endswith("; not trained to the end: 4 of 6 formulas (1.00).")
    assert sentences(rows)[0].endswith("and MLPs on none; 6 are undecided; 4 of the 6 were not trained to the end.")
    won = row("wave", 0.5, kind="formulas", ended=(0.5, 1.0))
    kan, _, elsewhere = details([won, replace(won, measure="later times", about=ELSEWHERE)])
    assert "not trained to the end: wave (0.50, " in kan and elsewhere.endswith("(1 of these not trained to the end).")


def test_other_numbers_give_other_details():
    kan, _ = details([row("Spiral", 0.5), row("Rigid", 0.5, "width")])
    turned, _ = details([row("Rigid", 0.5, "width"), row("Spiral", 0.5)])
    assert turned.startswith("With equal parameters, or what is named instead,") and "Rigid, equal width" in turned
    assert "or what is named instead" in kan and "Spiral (0.50" in kan and "Rigid, equal width (0.50" in kan
    kan, mlp = details([row("Spiral", 8.0, "width")])
    assert kan == "With equal width a KAN has the lower error on none of 1 task (ratios: KAN / MLP)."
    assert mlp.startswith("An MLP has it on 1: Spiral, equal width (8.0, ")
    assert details([replace(row("Spiral", 8.0), about=COST, kind="memory")])[0].startswith("The memory of KANs is 8.")


def test_tasks_of_which_no_pair_is_left_hide_no_ratios_and_are_last_in_the_picture(tmp_path):
    lost = corrected([compare(dict.fromkeys(range(12)), dict.fromkeys(range(12)), above=1)])[0]
    rows = [row(f"f{place}", ratio, kind="formulas", spread=1.0) for place, ratio in enumerate((1.0, 0.9, 1.1, 1.0))]
    rows[0] = replace(rows[0], outcome=lost)
    assert details(rows)[-1] == "4 are undecided: 4 of 4 formulas (0.90 to 1.10)."
    (drawn,) = {mark and mark.outcome.effect for mark in Line("", rows).marks("params")[3:]}
    assert np.isnan(drawn)
    assert draw(Answer([row("f1", 9.0, about=ASIDE)], [], []), tmp_path) == []  # told alone


def test_sentences_fall_back_to_what_is_told_alone():
    alone = [row("f1", 9.0, about=ASIDE, measure="with 5 % noise", kind="formulas")]
    assert sentences(alone) == details(alone) == ["With 5 % noise KANs lead on none and MLPs on 1 of 1 task."]
    told = sentences([row("Spiral", 2.0), row("Rigid", 2.0, "width"), row("Lotka", 2.0, "time")])[0]
    assert told.startswith("With equal parameters (else equal width or equal time) KANs have the lower error on none")


def test_budgets_that_differ_in_their_numbers_are_a_range():
    budgets = ("4,000 steps", "16,509 steps", "2 epochs")
    (told, *_) = limits([row(f"f{place}", 2.0, budget=budget) for place, budget in enumerate(budgets)])
    assert told.endswith("at most 4,000 to 16,509 steps or 2 epochs.")


def test_limits_say_what_would_change_the_answer():
    ends = {"Spiral": (1.0, 0.5), "Lotka": (0.9, 0.8)}
    rows = [row(task, 2.0, ended=ended, budget="9 steps") for task, ended in ends.items()]
    rows.append(replace(rows[0], measure="later times", about=ELSEWHERE))
    sizes, budget, few, rest, families = limits([*rows, row("Rigid", 0.5, seeds=4), row("Pleiades", 1.0)])
    assert sizes == (
        "Holds for these sizes and budgets: neural ODEs: 240 to 252 parameters, 4 to 12 paired seeds, at most 9 steps."
    )
    assert budget.endswith("at their noise floor: Spiral, equal parameters (KANs 100 %, MLPs 50 %).")
    assert few == "1 comparison would take 6 seeds to be decided after Holm's correction."
    assert families.startswith("Verdicts are corrected over the claims of one kind of one run")
    assert rest.startswith("In 1 comparison seeds differ more than models: a ratio between 0.9")
    alone = row("Rigid", 0.5)
    alone = replace(alone, outcome=replace(alone.outcome, corrected="undecided"))
    (*_, told) = limits([alone])
    assert told.startswith("More seeds may decide what only Holm's correction leaves open: Rigid, training loss, equal")


def test_the_picture_has_a_column_per_equality_and_a_line_per_measure(tmp_path, every_format):
    rows = [row("Spiral", 0.1), row("Spiral", 7.0, "time"), row("Lotka", 5.0, measure="later times", about=ELSEWHERE)]
    rows.insert(0, rows.pop())  # which does not begin the kind, as it is not the task's own error
    rows += [row("wave", 1e7, spread=30.0, kind="formulas"), row("wave", 2.0, about=ASIDE, kind="formulas")]
    assert [line.text for line in lines(rows)] == [
        "Neural ODEs: training loss", "Spiral", "Lotka: later times", "Formulas: training loss", "wave",
    ]  # fmt: skip
    with publication_style():
        figure = answer_figure(rows)
        figure.draw_without_rendering()
    assert_text_fits(figure)
    assert [axes.get_title() for axes in figure.axes] == ["equal\nparameters", "equal\ntime"]
    first, last = figure.axes[0].get_xlim()
    assert figure.axes[0].get_xscale() == "log" and first < 0.1 and last == 1e2
    assert any(one.get_marker() == 5 for one in figure.axes[0].lines)  # an arrow at the end
    paths = draw(Answer(rows, [], []), tmp_path)
    assert [path.name for path in paths] == ["answer.svg", "answer.png", "answer.pdf"]


def test_many_tasks_of_a_kind_share_a_line_ordered_by_their_ratios():
    many = [row(f"f{place}", 0.2 + (place * 3) % 8, kind="formulas") for place in range(8)]
    noisy = [replace(one, measure="with 5 % noise", about=ELSEWHERE) for one in many[:7]]
    rows = [*many, *noisy, row("f0", 3.0, "time", kind="formulas"), row("Spiral", 0.1)]
    found = {line.text: line for line in lines(rows)}
    assert list(found) == [
        "Formulas: training loss",
        "8 tasks",
        "with 5 % noise",
        "Neural ODEs: training loss",
        "Spiral",
    ]
    drawn = [mark.outcome.effect for mark in found["8 tasks"].marks("params") if mark]
    assert drawn == sorted(one.outcome.effect for one in many) and found["8 tasks"].size == 8
    assert len(found["8 tasks"].marks("time")) == 8 and found["8 tasks"].marks("time").count(None) == 7  # columns agree
    with publication_style():
        figure = answer_figure(rows)
        figure.draw_without_rendering()
    assert_text_fits(figure)
    params, time = figure.axes
    assert params.get_ylim() == time.get_ylim() and list(params.get_yticks()) == list(time.get_yticks())


def test_many_lines_stand_in_two_blocks_and_every_dot_of_a_crowded_line_is_seen():
    rows = [row(f"f{place}", 10.0 ** (place - 4), kind="crowded") for place in range(9)]
    rows += [
        row(f"g{place}", 2.0, kind=f"kind {place // 5}", measure="a measure of so many words") for place in range(30)
    ]
    with publication_style():
        figure = answer_figure(rows)
        figure.draw_without_rendering()
    assert_text_fits(figure)
    left, right = figure.axes
    assert left.get_window_extent().x1 < right.get_window_extent().x0
    heights = [abs(np.subtract(*axes.get_ylim())) for axes in (left, right)]
    assert heights[0] == pytest.approx(heights[1])  # the same inches per line
    assert {text.get_text() for text in left.texts} >= {"KAN", "MLP", "Crowded: training loss"}
    assert not any(text.get_text() == "1.0e-4" for text in left.texts)  # it would cover the next dot
    assert any(one.get_marker() == 4 for one in left.lines)
