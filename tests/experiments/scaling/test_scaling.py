"""The study of size: sizes within limits, exponents of known power laws, the record, findings and picture."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.pictures import assert_text_fits, rows_of

from kansciml import UsageError
from kansciml.experiments.ode.config import RunConfig
from kansciml.experiments.scaling.experiment import EXPERIMENT, ScalingConfig, plan
from kansciml.experiments.scaling.record import Point, ScalingRecord
from kansciml.experiments.scaling.report import exponents_table, ratios_table, scaling_figure, summary
from kansciml.reporting.style import publication_style
from kansciml.runs.config_json import with_settings
from kansciml.runs.records import Record
from kansciml.runs.runner import run_experiment

TINY = ScalingConfig(
    targets=("jv",), systems=("lotka",), parameters=(40, 80, 160), n_train=30, n_test=20, function_steps=6,
    run=replace(RunConfig.of_steps(2, 2, 2), backend="torch"),
)  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run_experiment(EXPERIMENT, TINY, results=tmp_path_factory.mktemp("runs"), log=lambda line: None)


def power_laws(kan=2.0, mlp=1.0, seeds=12, lost=()):
    """Points whose error is c P^-a, with a factor c of every seed; infinite for (model, limit, seed) in `lost`."""
    points = [
        Point("jv", "function", model, size, size, f"{model} {size}", seed, error, "capped")
        for model, a in (("kan", kan), ("mlp", mlp))
        for size in (10, 100, 1000)
        for seed in range(seeds)
        for error in (math.inf if (model, size, seed) in lost else (1 + seed) * size**-a * 1.0,)
    ]
    return ScalingRecord({"jv": "jv"}, tuple(points))


def test_sizes_are_within_their_limits_and_more_than_half_of_them():
    trainings = plan(ScalingConfig(run=RunConfig.of_steps(1, 1, 1)))
    sizes = [(job.size("params"), int(job.match)) for job in trainings.functions]
    sizes += [(job.spec.n_parameters, int(job.variant.split("-")[1])) for job in trainings.odes.jobs]
    assert len(sizes) == 2 * 5 * (4 + 4) and all(limit / 2 <= size <= limit for size, limit in sizes)
    assert max(limit for _, limit in sizes) == 100 * min(limit for _, limit in sizes)


def test_exponents_are_those_of_power_laws_and_the_larger_one_is_told():
    found = power_laws()
    assert found.exponents("jv", "kan") == pytest.approx(dict.fromkeys(range(12), 2.0))
    one = found.faster()["jv"]
    assert one.effect == pytest.approx(1.0) and one.corrected == "supported" and one.p_value == 2 / 2**12
    assert power_laws(1.0, 2.0).faster()["jv"].corrected == "refuted"
    assert rows_of(exponents_table(found))[0]["Verdict"] == "KAN's error falls faster"


@pytest.mark.parametrize(("end", "factor"), [(10, 1e6), (1000, 1e-6)])
def test_a_law_that_hangs_on_the_smallest_or_the_largest_networks_is_undecided(end, factor):
    straight = power_laws(kan=1.5, mlp=2.0)
    bent = [
        replace(one, error=one.error * factor) if (one.model, one.limit) == ("kan", end) else one
        for one in straight.points
    ]
    found = replace(straight, points=tuple(bent))
    assert found.faster()["jv"].corrected == "supported" and found.lasting()["jv"] == "undecided"
    assert straight.lasting()["jv"] == "refuted"
    assert [one.corrected for one in found.without_ends()["jv"]].count("refuted") == 1


def test_who_errs_less_is_told_at_every_size():
    found = power_laws(kan=2.0, mlp=1.0)
    assert {limit: one.effect for (_, limit), one in found.lower().items()} == pytest.approx(
        {10: 0.1, 100: 0.01, 1000: 1e-3}
    )
    assert rows_of(ratios_table(found)) == [
        {"Task": "jv", "10 parameters": "0.10 *", "100 parameters": "0.010 *", "1000 parameters": "0.0010 *"}
    ]


def test_the_largest_networks_are_compared_seed_by_seed():
    assert power_laws(kan=2.0, mlp=1.0).largest()["jv"].effect == pytest.approx(1e-3)
    lost = power_laws(kan=2.0, mlp=1.0, lost=[("kan", 1000, seed) for seed in range(12)]).largest()["jv"]
    assert lost.corrected == "refuted"


def test_a_seed_of_which_a_training_diverged_counts_against_the_model():
    found = power_laws(lost={("kan", 100, 3)})
    assert found.exponents("jv", "kan") == pytest.approx(dict.fromkeys(range(12), 2.0) | {3: -math.inf})
    one = found.faster()["jv"]
    assert (one.n_pairs, one.n_true) == (12, 11) and one.p_value > power_laws().faster()["jv"].p_value
    assert found.exponent("jv", "kan").n_true == 11
    sizes, errors = found.medians("jv", "kan")
    assert sizes.tolist() == [10, 100, 1000] and np.isfinite(errors).all()


def test_a_seed_without_enough_sizes_has_no_exponent():
    whole = power_laws()
    fewer = tuple(one for one in whole.points if (one.model, one.limit, one.seed) != ("kan", 100, 3))
    found = replace(whole, points=fewer)
    assert set(found.exponents("jv", "kan")) == set(range(12)) - {3} and found.faster()["jv"].n_pairs == 11


def test_the_record_holds_functions_and_systems_alike(record):
    found = ScalingRecord.read(record)
    assert (
        found.tasks == ["jv", "lotka"]
        and found.titles["lotka"] == "Lotka-Volterra"
        and len(found.points) == 2 * 2 * 3 * 2
    )
    for point in found.points:
        assert 0 < point.error < 10 and point.n_parameters <= point.limit and point.ended
    assert {point.kind for point in found.points} == {"function", "system"}


def test_findings_decide_with_twelve_seeds_alone(record, tmp_path):
    points = power_laws().points
    full = Record(
        tmp_path, "scaling", {}, "0", "finished", result={"titles": {"jv": "jv"}, "runs": [vars(p) for p in points]}
    )
    (found,) = EXPERIMENT.findings(full)
    assert found.verdict == "reproduced" and "2.0 for the KAN and 1.0 for the MLP" in found.measured
    assert {one.verdict for one in EXPERIMENT.findings(record)} == {"not decidable at this budget"}
    assert "without the smallest" not in found.evidence


def test_a_finding_that_hangs_on_one_end_is_undecided_and_says_what_is_left(tmp_path):
    rows = [
        vars(p) | {"error": p.error * 1e6} if (p.model, p.limit) == ("kan", 10) else vars(p)
        for p in power_laws(1.5, 2.0).points
    ]
    bent = Record(tmp_path, "scaling", {}, "0", "finished", result={"titles": {"jv": "jv"}, "runs": rows})
    (found,) = EXPERIMENT.findings(bent)
    assert found.verdict == "not decidable at this budget" and "without the smallest networks -0.50" in found.evidence


def test_the_picture_has_a_panel_per_task_with_both_exponents(record):
    assert [table.title for table in summary(record)][2] == "Errors by size"
    with publication_style():
        figure = scaling_figure(ScalingRecord.read(record))
        figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["jv", "Lotka-Volterra"]
    assert all(len(axes.texts) == 2 for axes in figure.axes)
    assert_text_fits(figure)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targets": (), "systems": ()}, "no functions and no systems"),
        ({"parameters": (50, 100)}, "three or more"),
        ({"parameters": (5, 100, 200)}, "at most 5 parameters"),
        ({"function_steps": 0}, "function_steps 0"),
        ({"systems": ("moon",)}, "moon"),
        ({"systems": ("lotka", "lotka")}, "different ones"),
        ({"backend": "both"}, "takes one, torch, julia or auto"),
    ],
)
def test_what_cannot_be_studied_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        EXPERIMENT.accept(with_settings(TINY, settings))
