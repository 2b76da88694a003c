"""Comparisons on equal terms: that they are equal, what the record holds, resuming, equal time, and what is refused."""

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kansciml import KansciError, UsageError, cli
from kansciml.analysis.paired import compare
from kansciml.experiments.fair.config import FairConfig
from kansciml.experiments.fair.domain import MLP, Model, equal_time, kan_of, measure, stored, stretched
from kansciml.experiments.fair.experiment import EXPERIMENT, check, domains
from kansciml.experiments.fair.kinds import Networks
from kansciml.experiments.fair.record import FairRecord, StepTimes
from kansciml.experiments.fair.report import summary
from kansciml.experiments.ode.backends import choices
from kansciml.runs.config_json import with_settings
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash

TINY = with_settings(
    FairConfig(),
    {
        "tasks": ("spiral", "images", "darcy"), "seeds": 2, "hidden": (6,), "training.adam_steps": 4,
        "training.lbfgs_steps": 2, "accelerator": "cpu", "images_subset": 60, "images_epochs": 1,
        "images_batch_size": 30, "images_patch": 4, "images_width": 16, "images_depth": 1, "images_token_hidden": 64,
        "images_channel_hidden": 64, "images_warmup": 0.5, "darcy_resolution": 57, "darcy_subsample": 4,
        "darcy_n_train": 8, "darcy_n_test": 4, "darcy_epochs": 1, "darcy_batch_size": 4, "darcy_width": 4,
        "darcy_modes": (3, 3), "darcy_iterations": 2, "darcy_projection": 128,
    },
)  # fmt: skip


ROWS = 3
"""Of the history of a neural ODE that are kept."""


def tiny(**settings):
    return with_settings(TINY, settings)


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
        patch.setattr("kansciml.experiments.ode.runs.ROWS", ROWS)
        return run(tiny(darcy_data_dir=data_dir), tmp_path_factory.mktemp("results"))[0]


@pytest.fixture(scope="module")
def fair(record):
    return FairRecord.read(record)


def first_jobs(domain):
    """Model -> first job of the first task."""
    return {model: jobs[0] for (task, model), jobs in reversed(domain.jobs().items())}


def test_steps_of_neural_odes_are_those_taken_however_many_rows_are_kept(fair):
    steps = {one.steps for one in fair.runs if one.task == "spiral" and not one.group.endswith("time")}
    assert steps and ROWS < min(steps) and max(steps) == 4 + 2


def test_every_protocol_is_equal_in_what_it_says(fair):
    assert {(row.task, row.protocol) for row in fair.rows} == {(t, p) for t in TINY.tasks for p in TINY.protocols}
    for task in TINY.tasks:
        width, params, flops = (fair.of(task, "spline", protocol) for protocol in ("width", "params", "flops"))
        assert width.kan.parameters > 1.2 * width.mlp.parameters and params.adapted == "KAN shrunk"
        if task != "spiral":  # the smallest KAN may be larger than an MLP of 6 units
            assert params.kan.parameters == pytest.approx(params.mlp.parameters, rel=0.1)
            assert flops.kan.flops == pytest.approx(flops.mlp.flops, rel=0.1)


@pytest.mark.parametrize("system, hidden", [("lotka", 50), ("pleiades", 50), ("rigid", 40)])
def test_flops_of_fields_are_those_counted_by_hand(system, hidden):
    """MLP: multiply-adds, biases, 5 per activation. KAN: 125 per input, 2 (G + S + 1) per edge, one sum per output."""
    jobs = first_jobs(domains(FairConfig(tasks=(system,), protocols=("flops",), hidden=(hidden,)))[0])
    n = jobs[MLP].spec.state_size

    def mlp(h):
        return 2 * n * h + h + 5 * h + 2 * h * n + n

    def kan(h):
        return 125 * (n + h) + 2 * 9 * 2 * n * h + (h + n) + 8 * 2 * n * h / 64

    shrunk = jobs[kan_of("spline", "flops")].spec.widths[1]
    assert kan(shrunk) <= mlp(hidden) < kan(shrunk + 1)


def test_parameters_are_those_of_the_modules_that_are_trained():
    config = tiny(tasks=("darcy",), layers=("spline", "rswaf"))
    jobs = first_jobs(domains(config)[0])
    assert {model.group for model in jobs} == {
        "mlp", *(f"kan-{layer}{kind}" for layer in config.layers for kind in ("", "-params", "-flops"))
    }  # fmt: skip

    def ends(job):
        network = job.build()
        return sum(p.numel() for part in (network.lift, network.projection) for p in part.parameters())

    for layer in config.layers:
        assert ends(jobs[kan_of(layer, "params")]) == pytest.approx(ends(jobs[MLP]), rel=0.1)
    assert jobs[kan_of("spline")].network.kan_hidden is None


def test_the_record_holds_paired_losses_and_their_statistics(record, fair):
    runs = {(run.task, run.group, run.seed): run for run in fair.runs}
    for row in fair.comparisons:
        for side, found in ((row.kan, row.kan_losses), (row.mlp, row.mlp_losses)):
            assert found == tuple(runs[row.task, side.group, seed].losses[row.metric] for seed in row.seeds)
        found = compare(dict(enumerate(row.kan_losses)), dict(enumerate(row.mlp_losses)), below=1)
        assert row.seeds == (0, 1)
        assert (row.ratio, row.outcome.p_value, row.verdict) == (found.effect, found.p_value, "undecided")
        assert "2 paired seeds cannot reach p <= 0.05" in row.outcome.why
    metrics = {row.metric for row in fair.comparisons}
    assert metrics == {"train_mse", "test_mse", "error", "test_loss", "relative_l2"}
    assert len({run.id for run in fair.runs}) == len(runs)
    assert summary(record)[0].title.startswith("When is a KAN worth it?")


def test_equal_time_gives_the_cheaper_model_as_many_more_steps_as_it_is_cheaper(fair):
    for times in fair.times:
        row, factor = fair.of(times.task, "spline", "time"), times.kan_s / times.mlp_s
        assert times.factor == factor > 0
        cheaper, other = (row.mlp, row.kan) if factor >= 1 else (row.kan, row.mlp)
        assert cheaper.group.endswith("-time") and not other.group.endswith("-time")
        if times.task != "spiral":  # epochs are whole; an L-BFGS phase ends where it converges
            assert cheaper.steps == max(1, round(max(factor, 1 / factor))) * other.steps


def test_schedules_stretch_with_the_steps():
    ode, images, darcy = domains(tiny(images_epochs=4, images_warmup=1.0))
    job = first_jobs(ode)[MLP]
    longer = ode.stretched(job, Model("mlp", "spline-time"), 2.5)
    steps = longer.config.training
    assert (steps.adam_steps, steps.lbfgs_steps) == (10, 5) and longer.id != job.id
    longer = images.stretched(first_jobs(images)[MLP], Model("mlp", "spline-time"), 2.5)
    assert (longer.training.epochs, longer.training.warmup) == (10, 2.5)
    assert longer.id.endswith("mlp-spline-time.0")
    longer = darcy.stretched(first_jobs(darcy)[kan_of("spline")], kan_of("spline", "time"), 3.2)
    assert longer.training.epochs == 3 and longer.group == "kan-spline-time"
    slower, faster = equal_time("spline", 2.0), equal_time("spline", 0.5)
    assert (slower.kan.group, slower.mlp.group) == ("kan-spline", "mlp-spline-time")
    assert (faster.kan.group, faster.mlp.group) == ("kan-spline-time", "mlp")


def test_an_interrupted_run_resumes_with_the_steps_it_began_with(tmp_path, data_dir, monkeypatch):
    """Interrupted in the second part of Darcy flow: no training is repeated, and the measured ratio is kept."""
    config = tiny(tasks=("spiral", "darcy"), protocols=("width", "time"), darcy_data_dir=data_dir)
    original, calls = Networks.train, []

    def stopping(self, jobs, context):
        calls.append(len(jobs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, jobs, context)

    monkeypatch.setattr(Networks, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    (folder,) = (tmp_path / "fair").iterdir()
    path = folder / "checkpoints" / "step-times.darcy.spline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kan_s": 3.0, "mlp_s": 1.0}))
    done = {file: file.stat().st_mtime_ns for file in folder.glob("checkpoints/*/done.json")}
    assert len(done) == 4
    record, lines = run(config, tmp_path)
    assert record.sessions == 2 and all(file.stat().st_mtime_ns == when for file, when in done.items())
    row = FairRecord.read(record).of("darcy", "spline", "time")
    assert row.mlp.steps == 3 * row.kan.steps and calls == [4, 2, 4, 2]
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


def test_the_smoke_preset_runs_through_the_command_line(tmp_path, monkeypatch, capsys, data_dir):
    monkeypatch.chdir(tmp_path)
    flags = ["--tasks", "spiral", "--protocols", "width", "time", "--adam-steps", "4", "--lbfgs-steps", "2"]
    assert cli.main(["run", "fair", "--preset", "smoke", *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "finished" and len(document["result"]["comparisons"]) == 4
    assert {Path(path).name for path in document["files"]} == {"fair.svg", "tables.md", "tables.json"}
    assert cli.main(["render", "fair"]) == 0
    assert "When is a KAN worth it?" in capsys.readouterr().out


def test_presets_are_sound_and_keep_their_folders():
    for name in EXPERIMENT.presets:
        check(EXPERIMENT.preset(name))
    small, paper = EXPERIMENT.preset("small"), EXPERIMENT.preset("paper")
    assert small.ode.seeds >= 11 and len(small.tasks) == 7 and config_hash("fair", choices(small)[-1]) == "bd883472acf8"
    assert paper.images.images_dataset == "cifar10" and FairConfig().images.images_dataset == "digits"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": ()}, "expected one or more different ones"),
        ({"tasks": ("lotka", "lotka")}, "got tasks lotka, lotka: expected one or more different ones"),
        ({"tasks": ("lorentz",)}, "unknown task 'lorentz': expected one of fitzhugh, lotka"),
        ({"protocols": ("memory",)}, "unknown protocol 'memory': expected one of width, params, flops, time"),
        ({"protocols": ("params-up",)}, "protocol params-up is gone"),
        ({"layers": ("fourier",)}, "unknown KAN layer 'fourier': expected one of spline, rswaf"),
        ({"layers": ("rswaf",)}, "with neural ODEs, whose KANs"),
        ({"seeds": 0}, "got seeds 0: expected at least 1"),
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
        run(tiny(**options), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_field_that_cannot_be_timed_is_told():
    domain = domains(tiny(tasks=("spiral",)))[0]
    jobs, lines = first_jobs(domain), []
    failed = {f"{job.id}.params": np.full(job.spec.n_parameters, 1e6) for job in jobs.values()}
    context = SimpleNamespace(log=lines.append)
    found = domain.step_times([jobs[kan_of("spline")]], [jobs[MLP]], failed, context)
    assert found.pairs == 0 and found.factor == 1 and "cannot be timed" in lines[0]
