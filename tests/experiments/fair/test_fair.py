"""Comparisons on equal terms: that they are equal, what the record holds, resuming, equal time, and what is refused."""

import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.settings import changed

from kansciml import cli
from kansciml._errors import KansciError, UsageError
from kansciml.analysis.paired import compare_pairs
from kansciml.experiments.fair import experiment as fair
from kansciml.experiments.fair.config import FairConfig
from kansciml.experiments.fair.experiment import EXPERIMENT, check, kinds
from kansciml.experiments.fair.kinds import equal_time, groups, grown_width
from kansciml.experiments.fair.record import StepTimes
from kansciml.experiments.fair.report import summary
from kansciml.experiments.fair.step_times import measure, stored, stretched
from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.fno.jobs import jobs as fno_jobs
from kansciml.runs.experiment import Result
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash
from kansciml.training.flat import FlatTraining

TINY = FairConfig(
    tasks=("spiral", "images", "darcy"), seeds=2, hidden=(6,), training=FlatTraining(4, lbfgs_steps=2),
    images_subset=60, images_epochs=1, images_batch_size=30, images_patch=4, images_width=16, images_depth=1,
    images_token_hidden=64, images_channel_hidden=64, images_warmup=0.5, accelerator="cpu",
    darcy_resolution=57, darcy_subsample=4, darcy_n_train=8, darcy_n_test=4, darcy_epochs=1, darcy_batch_size=4,
    darcy_width=4, darcy_modes=(3, 3), darcy_iterations=2, darcy_projection=128,
)  # fmt: skip
ALL = TINY.protocols


@pytest.fixture(autouse=True)
def without_a_pool(monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def run(config, folder, **options):
    lines = []
    return run_experiment(EXPERIMENT, config, results=folder, log=lines.append, **options), lines


@pytest.fixture(scope="module")
def record(tmp_path_factory, data_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run(replace(TINY, darcy_data_dir=data_dir), tmp_path_factory.mktemp("results"))[0]


def of(kind, config):
    """Group -> first job of the first task."""
    found = {}
    for job in kind.jobs(lambda layer: groups(config, layer)):
        found.setdefault(kind.group_of(job), job)
    return found


def test_every_protocol_is_equal_in_what_it_says(record):
    rows = {(row["task"], row["protocol"]): row for row in record.result["comparisons"] if row["primary"]}
    assert set(rows) == {(task, protocol) for task in TINY.tasks for protocol in ALL}
    for task in TINY.tasks:
        for protocol, name in (("params", "parameters"), ("flops", "flops")):
            grown = rows[task, f"{protocol}-up"]
            assert grown["mlp"][name] == pytest.approx(grown["kan"][name], rel=0.1), (task, name)
            assert grown["kan"] == rows[task, "width"]["kan"] and grown["adapted"] == "MLP widened"
            if task != "spiral":  # the smallest KAN may be larger than an MLP of 6 units
                shrunk = rows[task, protocol]
                assert shrunk["kan"][name] == pytest.approx(shrunk["mlp"][name], rel=0.1), (task, name)
        assert rows[task, "width"]["kan"]["parameters"] > 1.2 * rows[task, "width"]["mlp"]["parameters"]


@pytest.mark.parametrize("system, hidden", [("lotka", 50), ("pleiades", 50), ("rigid", 40)])
def test_flops_of_fields_are_those_counted_by_hand(system, hidden):
    """MLP: multiply-adds, biases, 5 per activation. KAN: 125 per input, 2 (G + S + 1) per edge, one sum per output."""
    config = FairConfig(tasks=(system,), protocols=("flops", "flops-up"), hidden=(hidden,))
    jobs = of(kinds(config)[0], config)
    n = jobs["mlp"].spec.state_size

    def mlp(h):
        return 2 * n * h + h + 5 * h + 2 * h * n + n

    def kan(h):
        return 125 * (n + h) + 2 * 9 * 2 * n * h + (h + n) + 8 * 2 * n * h / 64

    shrunk, wide = jobs["kan-spline-flops"].spec.widths[1], jobs["mlp-spline-flops"].spec.widths[1]
    assert kan(shrunk) <= mlp(hidden) < kan(shrunk + 1)
    assert wide == min(range(1, 4000), key=lambda h: abs(mlp(h) - kan(hidden)))


def test_parameters_are_those_of_the_modules_that_are_trained():
    config = replace(TINY, tasks=("darcy",), layers=("spline", "rswaf"), grid=None)
    kind = kinds(config)[0]
    jobs = of(kind, config)
    assert {"mlp", "kan-spline", "kan-rswaf", "kan-rswaf-params", "mlp-rswaf-flops"} <= set(jobs)

    def ends(job):
        network = job.build()
        return sum(p.numel() for part in (network.lift, network.projection) for p in part.parameters())

    for layer in config.layers:
        assert ends(jobs[f"kan-{layer}-params"]) == pytest.approx(ends(jobs["mlp"]), rel=0.1)
        assert ends(jobs[f"mlp-{layer}-params"]) == pytest.approx(ends(jobs[f"kan-{layer}"]), rel=0.01)
    assert jobs["kan-spline"].network.kan_hidden is None


def test_the_record_holds_paired_losses_and_their_statistics(record):
    runs = {(run["task"], run["group"], run["seed"]): run for run in record.result["runs"]}
    comparisons = record.result["comparisons"]
    for row in comparisons:
        for side in ("kan", "mlp"):
            losses = [runs[row["task"], row[side]["group"], seed]["losses"][row["metric"]] for seed in row["seeds"]]
            assert losses == row[f"{side}_losses"] and row["seeds"] == [0, 1]
        found = compare_pairs(row["kan_losses"], row["mlp_losses"], ("KAN", "MLP"))
        assert (row["ratio"], row["p_value"], row["verdict"]) == (found.ratio, found.p_value, "undecided")
        assert "2 pairs cannot reach p <= 0.05" in row["reason"] or "too few of the 2" in row["reason"]
    assert {row["metric"] for row in comparisons} == {"train_mse", "test_mse", "error", "test_loss", "relative_l2"}
    assert len({id for run in record.result["runs"] for id in [run["id"]]}) == len(runs)
    assert summary(record)[0].title.startswith("When is a KAN worth it?")


def test_equal_time_gives_the_cheaper_model_as_many_more_steps_as_it_is_cheaper(record):
    rows = {row["task"]: row for row in record.result["comparisons"] if row["primary"] and row["protocol"] == "time"}
    for times in record.result["times"]:
        row, factor = rows[times["task"]], times["kan_s"] / times["mlp_s"]
        assert times["factor"] == factor > 0
        cheaper, other = (row["mlp"], row["kan"]) if factor >= 1 else (row["kan"], row["mlp"])
        assert cheaper["group"].endswith("-time") and not other["group"].endswith("-time")
        if times["task"] != "spiral":  # epochs are whole; an L-BFGS phase ends where it converges
            assert cheaper["steps"] == max(1, round(max(factor, 1 / factor))) * other["steps"]


def test_schedules_stretch_with_the_steps():
    config = replace(TINY, images_epochs=4, images_warmup=1.0)
    ode, images, darcy = kinds(config)
    job = of(ode, config)["mlp"]
    longer = ode.stretched(job, "mlp-spline-time", 2.5)
    assert (longer.training.adam_steps, longer.training.lbfgs_steps) == (10, 5) and longer.id != job.id
    longer = images.stretched(of(images, config)["mlp"], "mlp-spline-time", 2.5)
    assert (longer.training.epochs, longer.training.warmup) == (10, 2.5)
    assert longer.id.endswith("mlp-spline-time.0")
    longer = darcy.stretched(of(darcy, config)["kan-spline"], "kan-spline-time", 3.2)
    assert longer.training.epochs == 3 and longer.group == "kan-spline-time"
    assert equal_time("spline", 0.5).kan == "kan-spline-time" and equal_time("spline", 0.5).mlp == "mlp"
    assert equal_time("spline", 2.0).mlp == "mlp-spline-time"


def test_an_interrupted_run_resumes_with_the_steps_it_began_with(tmp_path, data_dir, monkeypatch):
    """Interrupted in the second part of Darcy flow: no training is repeated, and the measured ratio is kept."""
    config = replace(TINY, tasks=("spiral", "darcy"), protocols=("width", "time"), darcy_data_dir=data_dir)
    original, calls = fair.DarcyKind.train, []

    def stopping(self, jobs, context):
        calls.append(len(jobs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, jobs, context)

    monkeypatch.setattr(fair.DarcyKind, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    (folder,) = (tmp_path / "fair").iterdir()
    path = folder / "checkpoints" / "step-times.darcy.spline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kan_s": 3.0, "mlp_s": 1.0}))
    done = {file: file.stat().st_mtime_ns for file in folder.glob("checkpoints/*/done.json")}
    assert len(done) == 4
    record, lines = run(config, tmp_path)
    assert record.sessions == 2 and all(file.stat().st_mtime_ns == when for file, when in done.items())
    (row,) = (row for row in record.result["comparisons"] if (row["task"], row["protocol"]) == ("darcy", "time"))
    assert row["mlp"]["steps"] == 3 * row["kan"]["steps"] and calls == [4, 2, 4, 2]
    assert any("darcy: the MLP takes 3.00 times as many steps" in line for line in lines)
    path.write_text("{")
    with pytest.raises(KansciError, match="cannot be read"):
        stored(path, lambda: StepTimes(1, 1, 1, 1, "process"))


def test_step_times_are_medians_of_processor_time_taken_in_turn():
    order = []

    def busy(name, seconds):
        def step():
            order.append(name)
            until = time.process_time() + seconds * (20 if len(order) in (1, 5) else 1)
            while time.process_time() < until:
                pass

        return step

    threads = torch.get_num_threads()
    found = measure([(busy("kan", 6e-3), busy("mlp", 2e-3))], rounds=5)
    assert order == ["kan", "mlp"] * 6 and torch.get_num_threads() == threads
    assert found.factor == pytest.approx(3, rel=0.2)  # neither the first call nor an outlier counts
    waiting = measure([(lambda: time.sleep(0.02), busy("mlp", 2e-3))], rounds=2)
    assert waiting.kan_s < 0.01  # other programs' time is not ours
    assert measure([]).factor == 1 and math.isnan(measure([]).kan_s)
    assert (stretched(10, 2.46), stretched(10, 0.1)) == (25, 10)


def test_grown_widths_are_the_nearest():
    for wanted in (5, 99, 1000, 1049, 1051):
        best = min(range(7, 400), key=lambda h: abs(10 * h - wanted))
        assert abs(10 * grown_width(lambda h: 10 * h, wanted, 7) - wanted) == abs(10 * best - wanted)


def test_the_smoke_preset_runs_through_the_command_line(tmp_path, monkeypatch, capsys, data_dir):
    monkeypatch.chdir(tmp_path)
    flags = ["--tasks", "spiral", "--protocols", "width", "time", "--adam-steps", "4", "--lbfgs-steps", "2"]
    assert cli.main(["run", "fair", "--preset", "smoke", *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "finished" and len(document["result"]["comparisons"]) == 4
    assert {path.split("/")[-1] for path in document["files"]} == {
        "fair.svg", "fair.png", "fair.pdf", "tables.md", "tables.json"
    }  # fmt: skip
    assert cli.main(["render", "fair"]) == 0
    assert "When is a KAN worth it?" in capsys.readouterr().out


def test_presets_are_sound():
    for name in EXPERIMENT.presets:
        check(EXPERIMENT.preset(name))
    small = EXPERIMENT.preset("small")
    assert small.seeds >= 6 and len(small.tasks) == 7
    assert EXPERIMENT.preset("paper").images_dataset == "cifar10" and FairConfig().images_dataset == "digits"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": ()}, "expected one or more different ones"),
        ({"tasks": ("lotka", "lotka")}, "got tasks lotka, lotka: expected one or more different ones"),
        ({"tasks": ("lorentz",)}, "unknown task 'lorentz': expected one of fitzhugh, lotka"),
        ({"protocols": ("memory",)}, "unknown protocol 'memory': expected one of width, params, flops, time"),
        ({"layers": ("fourier",)}, "unknown KAN layer 'fourier': expected one of spline, rswaf"),
        ({"layers": ("rswaf",)}, "with neural ODEs, whose KANs"),
        ({"seeds": 0}, "got seeds 0: expected at least 1, and at least 6 to decide"),
        ({"first_seed": -1}, "got first_seed -1"),
        ({"alpha": 1.5}, "got alpha 1.5: expected a number between 0 and 1"),
        ({"rtol": 0.0}, "got rtol 0.0"),
        ({"tasks": ("images",), "images_dataset": "svhn"}, "svhn"),
        ({"tasks": ("darcy",), "darcy_subsample": 11}, "got subsample 11 of 57 nodes"),
        ({"tasks": ("darcy",), "darcy_projection": 8}, "no hidden width gives spline KANs as many"),
        ({"tasks": ("images",), "images_batch_size": 600}, "got batch_size 600: expected at most the 60"),
    ],
)
def test_mistakes_are_told_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run(replace(TINY, **options), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_field_that_cannot_be_timed_is_told():
    kind = kinds(replace(TINY, tasks=("spiral",)))[0]
    jobs = of(kind, TINY)

    lines = []
    failed = Result({}, {f"{job.id}.params": np.full(job.spec.n_parameters, 1e6) for job in jobs.values()})
    context = SimpleNamespace(log=lines.append)
    found = kind.step_times([jobs["kan-spline"]], [jobs["mlp"]], failed, context)
    assert found.pairs == 0 and found.factor == 1 and "cannot be timed" in lines[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"match": "memory"}, "unknown match 'memory': expected one of none, params, flops"),
        ({"match": "params", "variant": "mlp"}, "got match params with variant mlp"),
        ({"match": "flops", "kan_hidden": (4,)}, "got match flops and kan_hidden"),
    ],
)
def test_operators_refuse_a_match_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        fno_jobs(changed(FnoRunConfig(), **options))


def test_a_match_of_operators_names_its_group_and_leaves_other_hashes_alone():
    plain, matched = FnoRunConfig(), changed(FnoRunConfig(), match="params", residual=True)
    assert [job.group for job in fno_jobs(matched)] == ["mlp-residual", "kan-spline-params-residual"]
    assert config_hash("fno", plain) == "2052376a1579"  # of runs made before there was a match
    assert config_hash("fno", changed(FnoRunConfig(), match="params")) != config_hash("fno", plain)
