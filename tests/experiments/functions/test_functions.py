"""The comparison on functions: what is trained, that sizes are equal, the record, its tables and pictures."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from support.pictures import assert_text_fits, rows_of

from kansciml import UsageError
from kansciml.analysis.regressor_sizes import regressor_size
from kansciml.experiments.functions.comparisons import comparisons
from kansciml.experiments.functions.experiment import EXPERIMENT, FunctionsConfig, plan
from kansciml.experiments.functions.record import CURVE, PAIRS, VARIANTS, FunctionsRecord
from kansciml.experiments.functions.report import budget_table, functions_figure, summary, wins_table
from kansciml.reporting.style import publication_style
from kansciml.runs.config_json import with_settings
from kansciml.runs.findings import ERROR
from kansciml.runs.records import DamagedRecord
from kansciml.runs.runner import run_experiment
from kansciml.training.flat import FlatTraining

TINY = FunctionsConfig(
    targets=("I.16.6", "jv"), seeds=2, n_train=40, n_test=30, parameters=80, training=FlatTraining(3, lbfgs_steps=6)
)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run_experiment(EXPERIMENT, TINY, results=tmp_path_factory.mktemp("runs"), log=lambda line: None)


def made_up(record, errors, seeds=12):
    """The record with so many seeds, whose errors are ``errors(variant, match, seed)``."""
    rows, curves = [], []
    for row, curve in zip(record.result["runs"], record.arrays["curves"]):
        for seed in range(seeds) if row["seed"] == 0 else ():
            error = errors(row["variant"], row["match"], seed)
            rows.append({**row, "seed": seed, "error": error})
            own = curve.copy()
            own[np.isfinite(own[:, 0]), CURVE.index("error")] = np.nan if error is None else error
            curves.append(own)
    return replace(record, result={**record.result, "runs": rows}, arrays={"curves": np.array(curves)})


def test_networks_are_as_large_as_the_budget_or_the_kan_allows():
    for job in plan(FunctionsConfig(seeds=1)):
        kan = next(own.last for own in plan(FunctionsConfig(targets=(job.target,), seeds=1, variants=("kan",))))
        if job.match == "params":
            assert 0.6 * 250 < job.size("params") <= 250
        else:
            assert 0.6 < job.flops / regressor_size("kan", kan.widths, "flops") <= 1


def test_the_presets_have_what_the_comparison_is_to_have():
    small = EXPERIMENT.presets["small"]
    kinds = {job.variant for job in plan(small)}
    assert kinds == set(VARIANTS) and small.seeds == 12 and small.noise == (0.0, 0.05)


def test_the_record_holds_every_training_with_its_curve_and_is_read_back(record):
    found = FunctionsRecord.read(record)
    assert len(found.runs) == len(plan(TINY)) == 2 * 2 * 2 * 7
    for run in found.runs:
        assert run.curve["error"][-1] == pytest.approx(run.error, rel=1e-5)
        assert run.n_parameters <= 80 or run.match == "flops"
        assert (np.diff(run.curve["flops"]) >= 0).all() and run.seconds > 0
        assert run.error_at(0, "evaluations") == pytest.approx(run.curve["error"][0])
    json.dumps(record.result, allow_nan=False)


def test_verdicts_follow_the_paired_errors_and_a_diverged_training_is_worst(record):
    def errors(variant, match, seed):
        scale = {"kan": 1.0, "mlp": 2.0, "spline-mlp": 0.5}.get(variant, None if seed else 1.0)
        return scale if scale is None else scale * (1 + seed)

    found = FunctionsRecord.read(made_up(record, errors))
    by = {row["Networks"] + row["Held equal"]: row for row in rows_of(wins_table(found))}
    assert by["KAN : MLPequal parameters"]["all"] == by["KAN : MLPequal FLOPs"]["all"] == "4 : 0 : 0"
    assert by["KAN : spline MLPequal parameters"]["all"] == "0 : 4 : 0"
    one = found.verdicts("kan", "mlp", "params")[0]
    assert (
        one.outcome.effect == pytest.approx(0.5)
        and one.outcome.p_value == 2 / 2**12
        and one.outcome.adjusted_p == pytest.approx(4 * 2 / 2**12)
    )


def test_equal_time_compares_when_the_first_of_two_has_ended(record):
    found = FunctionsRecord.read(record)
    kan, mlp = (found.of("jv", 0.0, variant, "params") for variant in ("kan", "mlp"))
    one = next(v for v in found.verdicts("kan", "mlp", "time") if (v.target, v.noise) == ("jv", 0.0))
    ends = [min(a.seconds, b.seconds) for a, b in zip(kan, mlp)]
    expected = [np.median([run.error_at(end, "seconds") for run, end in zip(side, ends)]) for side in (kan, mlp)]
    assert one.errors == pytest.approx(expected)
    assert all(kan[i].error_at(kan[i].seconds, "seconds") == pytest.approx(kan[i].error, rel=1e-5) for i in range(2))


def test_an_error_between_two_that_were_watched_is_interpolated_by_its_logarithm(record):
    run = replace(FunctionsRecord.read(record).runs[0], curve={"seconds": [1.0, 3.0, 5.0], "error": [1.0, 0.01, 0.005]})
    found = [run.error_at(limit, "seconds") for limit in (0.5, 1.0, 2.0, 3.0, 9.0)]
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.005])
    assert replace(run, status="diverged").error_at(2.0, "seconds") == np.inf


def test_tables_and_the_picture_tell_of_every_function(record, tmp_path):
    found = FunctionsRecord.read(made_up(record, lambda variant, match, seed: (1.0 + (variant == "mlp")) * (1 + seed)))
    budget = rows_of(budget_table(found))
    assert {row["whole budget"] for row in budget} <= {"2 : 0 : 0", "0 : 2 : 0", "0 : 0 : 2"}
    assert {row["Noise"] for row in budget} == {0.0, 0.05} and len(budget) == 2 * 2 * len(PAIRS)
    assert "56 trainings" in " ".join(summary(record)[0].notes)
    with publication_style():
        figure = functions_figure(found)
        figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["no noise", "noise 5 %"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["I.16.6", "jv"]
    assert_text_fits(figure)
    names = {path.name for path in EXPERIMENT.render(record, tmp_path)}
    assert {"functions.svg", "functions_models.svg", "tables.md"} <= names


def test_findings_decide_with_twelve_seeds_alone(record):
    better = made_up(record, lambda variant, match, seed: (1.0 + (variant == "mlp")) * (1 + seed))
    found = EXPERIMENT.findings(better)
    assert {one.verdict for one in found} == {"reproduced"} and len(found) == 4
    assert {one.verdict for one in EXPERIMENT.findings(record)} == {"not decidable at this budget"}
    assert "KAN has the lower error on 2" in found[0].measured


def test_comparisons_of_kans_with_mlps_are_the_verdicts(record):
    made = made_up(record, lambda variant, match, seed: {"kan": 1.0, "mlp": 2.0}.get(variant, 3.0) * (1 + seed))
    found = {(one.task, one.equal): one for one in comparisons(made) if one.about == ERROR}
    assert set(found) == set(itertools.product(("I.16.6", "jv"), ("params", "flops", "time")))
    assert {(one.cut, one.ended is None) for one in found.values()} == {("time", True), ("", False)}
    for task in ("I.16.6", "jv"):
        assert found[task, "params"].outcome.effect == pytest.approx(0.5)
        assert found[task, "params"].verdict == found[task, "flops"].verdict == "KAN better"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targets": ("sin",)}, "unknown function 'sin'"),
        ({"variants": ("cnn",)}, "unknown variant 'cnn'"),
        ({"noise": (-0.1,)}, "noise -0.1"),
        ({"grids": (5, 3)}, "expected increasing ones"),
        ({"parameters": 20}, "has at most 20 parameters"),
        ({"hidden_layers": 0}, "got hidden_layers 0"),
        ({"kan_hidden_layers": 0}, "got kan_hidden_layers 0"),
        ({"n_train": 1}, "n_train 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        EXPERIMENT.accept(with_settings(TINY, settings))


def test_a_record_without_trainings_says_so(record):
    with pytest.raises(DamagedRecord, match="no finished run"):
        FunctionsRecord.read(
            replace(record, result={**record.result, "runs": []}, arrays={"curves": np.empty((0, 1, 5))})
        )
