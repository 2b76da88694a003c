"""What is reached for which cost, at which tolerance, and beyond the training data: from made-up curves."""

from dataclasses import replace

import numpy as np
import pytest

from kansciml.experiments.ode.anytime import curves, figure, tables
from kansciml.experiments.ode.anytime.comparisons import comparisons
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.report import summary
from kansciml.reporting.style import publication_style

N = np.arange(1.0, 1001.0)
SLOWER = 4.0
"""Seconds of a KAN's evaluation, where an MLP's takes one."""


@pytest.fixture
def crossing(make_record, tmp_path):
    """MLPs fall as 100 / n^2, KANs as 1 / n, within one percent over seeds: they cross at n = 100."""
    record = make_record(tmp_path, ("lotka",), ("mlp", "kan-params"), seeds=7, diverged=())
    for run in record.result["runs"]:
        kan, one = run["model"] == "kan", run["id"]
        loss = (1 / N if kan else 100 / N**2) * (1 + 1e-3 * run["seed"])
        cost = {"evaluations": N.astype(int), "cpu_s": N * (SLOWER if kan else 1), "flops": 1e6 * N}
        own = {"iteration": np.arange(1000), "loss": loss, "phase": np.zeros(1000), "rung": np.zeros(1000, np.int8)}
        record.arrays.update({f"{one}.{name}": array for name, array in (own | cost).items()})
    return record


def the_pair(record):
    (pair,) = curves.pairs(OdeRecord.read(record))
    return pair


def test_curves_cross_where_they_do(crossing):
    pair, step = the_pair(crossing), 1000 ** (1 / curves.POINTS)
    for cost, at in (("evaluations", 100), ("cpu_s", 100 / SLOWER), ("flops", 1e8)):
        # of 100 / t^2 and SLOWER / t
        first, second = curves.leads(pair, cost)
        assert (first.model, second.model) == ("KAN", "MLP")
        assert at / step**2 < second.begin < at * step**2 * 1.01
    assert curves.ratio_at(pair, "evaluations", 1.0) == pytest.approx(10)
    assert curves.ratio_at(pair, "evaluations", 0.01) == pytest.approx(0.1)


def test_at_equal_cost_both_stop_where_the_cheaper_one_is_done(crossing):
    mlp, kan = curves.paired_at_equal(the_pair(crossing), "cpu_s")
    assert mlp == pytest.approx({seed: 1e-4 * (1 + 1e-3 * seed) for seed in range(7)})
    assert kan == pytest.approx({seed: SLOWER / 1000 * (1 + 1e-3 * seed) for seed in range(7)})
    leads, equal = tables.anytime_tables(OdeRecord.read(crossing))
    told = {row[2]: row[3] for row in leads.rows}
    assert told["evaluations"].startswith("KAN, from 1") and told["evaluations"].endswith(" MLP")
    rows = {row["Equal"]: row for row in (dict(zip(equal.columns, values)) for values in equal.rows)}
    assert rows["processor seconds"]["KAN / MLP"] == pytest.approx(40)
    assert {row["Verdict"] for row in rows.values()} == {"supported"}
    cut = {one.equal: (one.cut, one.ended) for one in comparisons(crossing) if one.cut}
    assert set(cut) == {"evaluations", "time", "flops"} and cut["time"] == ("processor seconds with torch", None)
    for run in crossing.result["runs"]:
        run["backend"] = "julia"
    (timed,) = (one for one in comparisons(crossing) if one.equal == "time")
    assert (timed.measure, timed.cut) == ("with Julia's seconds", "processor seconds with julia")


def test_a_system_with_fewer_iterations_says_so(crossing):
    record = replace(crossing, config={**crossing.config, "training": {"adam_steps": 10, "lbfgs_steps": 400}})
    (system,) = OdeRecord.read(record).systems
    for shares, most in ((None, 400), ({system.name: 0.1}, 40), ({"another": 0.1}, 400)):
        budgets = {one.budget for one in comparisons(record, shares)}
        assert budgets == {f"{most} iterations of L-BFGS after 10 iterations of Adam"}


def test_of_noisy_data_errors_from_the_truth_are_compared_and_no_losses(crossing):
    for run in crossing.result["runs"]:  # in the end the KAN has the lower loss, and the MLP is nearer to the truth
        errors = dict.fromkeys(
            ("train_relative_mse", "unseen_mse", "unseen_relative_mse"), 0.4 if "kan" in run["variant"] else 0.1
        )
        run |= errors
    found = comparisons(replace(crossing, config={**crossing.config, "noise": 0.05}))
    assert {(one.measure, one.verdict) for one in found} == {("with 5 % noise", "MLP better")}


def test_a_run_that_diverged_has_no_loss_after_its_end_and_one_that_finished_keeps_its_last(crossing):
    crossing.result["runs"][0]["status"] = "diverged"
    diverged, finished = the_pair(crossing).mlp.rows[:2]
    spent = np.array([0.5, 10.0, 1e4])
    np.testing.assert_allclose(curves.at_cost(diverged, "evaluations", spent), [np.inf, 1.0, np.inf])
    np.testing.assert_allclose(curves.at_cost(finished, "evaluations", spent), [np.inf, 1.001, 1.001e-4])


def on_a_ladder(record):
    """MLPs are the lower ones at the first tolerance, where noise ends KANs early, and KANs at the last."""
    record.config["rtol"], record.config["ladder"] = 1e-7, [1e-2]
    for run in record.result["runs"]:
        kan, one = run["model"] == "kan", run["id"]
        record.arrays[f"{one}.rung"] = (N > 500).astype(np.int8)
        low, later = (1e-3, 1e-9) if kan else (1e-4, 1e-5)
        loss = np.where(N > 500, later, low) * (1 + 1e-3 * run["seed"])
        if not kan:
            loss[498:500] = 1e-12, 1e-4  # too low by noise
        record.arrays[f"{one}.loss"] = loss
        run["ended"], run["rung"] = "converged", 1
    return record


def test_tolerances_decide_apart(crossing):
    record = on_a_ladder(crossing)
    (table,) = tables.tolerance_tables(record, OdeRecord.read(record))
    rows = [dict(zip(table.columns, values)) for values in table.rows]
    assert [row["Tolerance"] for row in rows] == ["1e-7", "1e-9"]
    assert [row["Verdict"] for row in rows] == ["supported", "refuted"]
    for run in record.result["runs"]:
        if run["model"] == "mlp" and run["seed"] < 2:
            run["ended"] = "capped"
    (table,) = tables.tolerance_tables(record, OdeRecord.read(record))
    rows = [dict(zip(table.columns, values)) for values in table.rows]
    assert [row["MLPs done"] for row in rows] == ["7 of 7", "5 of 7"]
    assert [row["Verdict"] for row in rows] == ["supported", "undecided"]


def test_a_loss_too_low_by_noise_is_forgotten_at_a_tighter_tolerance(crossing):
    run = the_pair(on_a_ladder(crossing)).mlp.rows[0]
    best = curves.best_so_far(run)
    assert best[499] == 1e-12 and best[500] == best[-1] == 1e-5
    assert np.all(np.diff(best[:500]) <= 0)


def test_errors_beyond_the_data_are_told_where_unseen_states_were_measured(crossing):
    ode = OdeRecord.read(crossing)
    assert tables.generalisation_tables(ode) == []
    for run in crossing.result["runs"]:
        kan = run["model"] == "kan"
        run["unseen_mse"] = run["unseen_relative_mse"] = (0.1 if kan else 0.2) * (1 + 1e-2 * run["seed"])
        run["test_mse"] = run["test_relative_mse"] = None if kan else 0.3  # the KAN's blows up
    (table,) = tables.generalisation_tables(OdeRecord.read(crossing))
    rows = {row["Errors at"]: row for row in (dict(zip(table.columns, values)) for values in table.rows)}
    assert list(rows) == ["the training span", "later times", "unseen initial states"]
    assert rows["unseen initial states"]["Verdict"] == "refuted"
    assert rows["unseen initial states"]["KAN / MLP"] == pytest.approx(0.5)
    assert rows["later times"]["Verdict"] == "supported" and rows["later times"]["KAN, median"] == np.inf


def test_records_without_costs_have_no_such_tables(make_record, tmp_path):
    record = make_record(tmp_path, ("lotka",), ("mlp", "kan-params"))
    assert [table.title for table in summary(record)][1:] == ["Claim: the MLP ends at a lower train MSE than the KAN"]
    assert figure.anytime(OdeRecord.read(record)) is None


def test_the_picture_has_a_panel_for_each_cost(crossing):
    with publication_style():
        drawn = figure.anytime(OdeRecord.read(crossing))
        assert [axes.get_xlabel() for axes in drawn.axes] == list(curves.COSTS.values())
        assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"MLP", "KAN, equal parameters"}
        crossings = [line.get_xdata()[0] for line in drawn.axes[0].lines if line.get_linestyle() == ":"]
    assert len(crossings) == 1 and 90 < crossings[0] < 110
