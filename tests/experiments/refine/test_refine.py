"""The study of refinement: what is trained, comparisons at equal cost, findings, the picture, what is refused."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from support.pictures import assert_text_fits, rows_of

from kansciml import UsageError
from kansciml.analysis.regressor_sizes import regressor_size
from kansciml.experiments.functions.record import CURVE, FunctionsRecord
from kansciml.experiments.refine.experiment import EXPERIMENT, RefineConfig, plan
from kansciml.experiments.refine.record import RefineRecord
from kansciml.experiments.refine.report import median_curve, refine_figure, summary
from kansciml.reporting.style import publication_style
from kansciml.runs.config_json import with_settings
from kansciml.runs.runner import run_experiment

TINY = RefineConfig(targets=("jv",), grids=(2, 4), middle=2, hidden=3, steps=20, n_train=40, n_test=30, seeds=2)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run_experiment(EXPERIMENT, TINY, results=tmp_path_factory.mktemp("runs"), log=lambda line: None)


def made_up(record, errors, seeds=12):
    """The record with so many seeds, whose error is ``errors(variant, optimiser)`` from the first moment on."""
    rows, curves = [], []
    for row, curve in zip(record.result["runs"], record.arrays["curves"]):
        for seed in range(seeds) if row["seed"] == 0 else ():
            error = errors(row["variant"], row["match"]) * (1 + seed)
            own = curve.copy()
            own[np.isfinite(own[:, 0]), CURVE.index("error")] = error
            rows.append({**row, "seed": seed, "error": error})
            curves.append(own)
    return replace(record, result={**record.result, "runs": rows}, arrays={"curves": np.array(curves)})


def test_every_optimiser_has_the_same_iterations_and_the_mlp_the_parameters_of_the_middle_grid():
    jobs = plan(RefineConfig(seeds=1)).values()
    assert {job.training.adam_steps + job.training.lbfgs_steps for job in jobs} == {10_000}
    assert {(job.match, job.training.lbfgs_steps > 0) for job in jobs} == {("lbfgs", True), ("adam", False)}
    by = {job.variant: job for job in jobs if job.target == "jv"}
    assert set(by) == {"refined", "fixed-3", "fixed-5", "fixed-10", "fixed-20", "mlp"}
    assert 0.8 < by["mlp"].size("params") / by["fixed-5"].size("params") <= 1
    assert (
        by["refined"].size("params") == by["fixed-20"].size("params") == regressor_size("kan", (2, 5, 1), "params", 20)
    )
    fields = {job.variant: job.field for job in jobs if job.target == "lotka"}
    assert 0.9 < fields["mlp"].n_parameters / fields["fixed-5"].n_parameters <= 1
    assert fields["refined"] == fields["fixed-3"] and set(fields) == set(by)


def test_the_refined_network_ends_on_the_finest_grid_and_costs_less_than_on_it_from_the_start(record):
    found = FunctionsRecord.read(record)
    for target, how in product(("jv", "lotka"), ("lbfgs", "adam")):
        refined, fine = (
            next(run for run in found.runs if (run.target, run.variant, run.match) == (target, variant, how))
            for variant in ("refined", "fixed-4")
        )
        assert refined.n_parameters == fine.n_parameters and refined.label == fine.label
        each = [run.curve["flops"][-1] / run.curve["evaluations"][-1] for run in (refined, fine)]
        assert each[0] < each[1] or target == "lotka"  # there an evaluation is a solve, of as many steps as it takes
        for run in (refined, fine):
            assert all((np.diff(run.curve[name]) >= 0).all() for name in ("evaluations", "seconds", "flops"))
            assert run.curve["flops"][-1] > 20 * run.flops * run.curve["evaluations"][-1]
            assert run.iterations <= 20 and run.curve["error"][-1] == pytest.approx(run.error, rel=1e-5)


def test_answers_are_of_paired_errors_at_equal_cost_and_decide_the_findings_with_twelve_seeds(record):
    better = made_up(record, lambda variant, how: (1.0 if variant == "refined" else 2.0) * (1 if how == "lbfgs" else 4))
    found = RefineRecord(FunctionsRecord.read(better))
    for cost in ("flops", "seconds"):
        assert all(one.outcome.corrected == "supported" for one in found.matched("Refined or fixed grid", cost))
        outcomes = [one.outcome for one in found.matched("L-BFGS or Adam", cost)]
        assert [one.effect for one in outcomes] == pytest.approx([0.25] * 8) and outcomes[0].family == 8
    verdicts = {(one.claim[:20], one.case): one.verdict for one in EXPERIMENT.findings(better)}
    assert list(verdicts.values()) == ["reproduced"] * 3 + ["not decidable at this budget"] * 2
    assert list(verdicts)[-1][1].startswith("KAN, G = 2, ")  # the grid `middle`
    answered = EXPERIMENT.comparisons(better)
    kinds = {("special functions", "jv"), ("neural ODEs", "Lotka-Volterra")}
    assert {(one.kind, one.task) for one in answered} == kinds and {one.equal for one in answered} == {"flops", "time"}
    assert [one.outcome.effect for one in answered] == pytest.approx([0.5] * 4)
    assert {one.cut for one in answered} == {"FLOPs", "time"}
    few = [one.verdict for one in EXPERIMENT.findings(record)]
    assert few == ["reproduced"] + ["not decidable at this budget"] * 4


def test_medians_are_drawn_where_all_seeds_have_been(record):
    runs = RefineRecord(FunctionsRecord.read(record)).of("jv", ("mlp", "adam"))
    costs, errors = median_curve(runs)
    assert costs[-1] == pytest.approx(min(run.curve["flops"][-1] for run in runs)) and np.isfinite(errors).all()
    assert errors[-1] == pytest.approx(np.median([run.error for run in runs]), rel=0.2)
    first, lost = runs[0], replace(runs[1], status="diverged")
    assert np.isinf(median_curve([first, lost, lost])[1]).all()  # most diverged: there is no median error
    np.testing.assert_allclose(median_curve([first, first, lost])[1], median_curve([first])[1])
    assert len(median_curve([lost])[0]) == 0


def test_tables_and_the_picture_name_every_training(record):
    errors, *answers = summary(record)
    assert len(rows_of(errors)) == 4 * 2 and [table.title for table in answers] == [
        "Refined or fixed grid?", "L-BFGS or Adam?", "KAN or MLP?",
    ]  # fmt: skip
    with publication_style():
        figure = refine_figure(RefineRecord(FunctionsRecord.read(record)))
        figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "KAN, refined", "KAN, G = 2", "KAN, G = 4", "MLP",
    ]  # fmt: skip
    assert_text_fits(figure)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grids": (5, 3)}, "grids .5, 3."),
        ({"middle": 7}, "middle 7"),
        ({"steps": 0}, "steps 0"),
        ({"targets": (), "systems": ()}, "one or more"),
        ({"systems": ("moon",)}, "unknown system 'moon'"),
        ({"systems": ("lotka", "lotka")}, "different ones"),
    ],
)
def test_what_cannot_be_studied_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        EXPERIMENT.accept(with_settings(TINY, settings))
