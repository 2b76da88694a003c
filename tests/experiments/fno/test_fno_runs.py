"""Neural operators: what the record holds, resuming to the bit, predictions, other resolutions, minima, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.settings import changed

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.fno.config import FnoRunConfig, SamplesConfig
from kansciml.experiments.fno.data import Samples, normalisers_of, read_split, resampled
from kansciml.experiments.fno.experiment import EXPERIMENT, check
from kansciml.experiments.fno.jobs import jobs
from kansciml.experiments.fno.runs import run_jobs
from kansciml.experiments.fno.steps import Encoded, Epoch, RelativeError, errors
from kansciml.experiments.fno.trained import predict, rows_of
from kansciml.experiments.minibatch.trained import load_network
from kansciml.runs import ranks
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment
from kansciml.runs.settings import config_hash
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.dataset import DarcyData, dataset_folder, load
from kansciml.tasks.darcy.metrics import relative_l2_errors
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

TINY = changed(
    FnoRunConfig(),
    resolution=57,
    subsample=4,
    eval_subsamples=(8, 2),
    n_train=10,
    n_test=5,
    epochs=3,
    batch_size=4,
    width=4,
    modes=(3, 3),
    iterations=2,
    projection=6,
    precision="64",
    accelerator="cpu",
)
CURVES = ("epoch", "step", "loss", "test_error", "learning_rate", "samples_per_s", "train_s")
TIMES = ("samples_per_s", "seconds_per_step", "peak_memory_mb", "wall_s")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def run(config, folder, **options):
    return run_experiment(EXPERIMENT, config, results=folder, log=lambda line: None, **options)


@pytest.fixture(scope="module")
def record(tmp_path_factory, data_dir):
    """MLP and KAN, residual, two seeds."""
    config = changed(TINY, data_dir=data_dir, seeds=2, residual=True)
    return run(config, tmp_path_factory.mktemp("results"))


def without_times(record):
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in record.result["runs"]]
    arrays = {k: v for k, v in record.arrays.items() if not k.endswith((".samples_per_s", ".train_s"))}
    return json.dumps(rows, sort_keys=True), arrays


def test_the_record_holds_rows_curves_and_predictions(record, data_dir):
    rows = record.result["runs"]
    assert [(row["group"], row["seed"]) for row in rows] == [
        ("mlp-residual", 0), ("mlp-residual", 1), ("kan-spline-residual", 0), ("kan-spline-residual", 1)
    ]  # fmt: skip
    for row, typed_row in zip(rows, rows_of(record)):
        assert row["status"] == "finished" and row["epochs"] == 3 and row["steps"] == 3 * (10 // 4)
        for name in CURVES:
            assert record.arrays[f"{row['id']}.{name}"].shape == (3,)
        assert record.arrays[f"{row['id']}.test_error"][-1] == pytest.approx(row["relative_l2"], rel=1e-12)
        assert record.arrays[f"{row['id']}.errors.15"].mean() == pytest.approx(row["relative_l2"], rel=1e-12)
        assert row["relative_l2_at"].keys() == {"15", "8", "29"}
        network = load_network(record, typed_row)
        assert row["parameters"] == sum(p.numel() for p in network.parameters())
        ends = [*network.lift.parameters(), *network.projection.parameters()]
        assert row["ends_parameters"] == sum(p.numel() for p in ends)
    assert rows[2]["ends_parameters"] > rows[0]["ends_parameters"]
    assert rows[2]["parameters"] - rows[2]["ends_parameters"] == rows[0]["parameters"] - rows[0]["ends_parameters"]
    assert rows[0]["relative_l2"] != rows[1]["relative_l2"]
    assert not list(record.folder.glob("checkpoints/*/checkpoints"))  # optimiser states are gone
    described = record.result["data"]["darcy15"]
    assert (described["n_train"], described["n_test"]) == (10, 5)
    test = load(TINY.operator.samples.darcy, data_dir, "test")
    np.testing.assert_array_equal(record.arrays["darcy15.u"], test.u[:3])


def test_a_network_read_back_predicts_what_was_recorded_at_every_resolution(record, data_dir):
    for row in rows_of(record):
        for factor, size in ((4, 15), (8, 8), (2, 29)):
            darcy = changed(TINY.operator.samples.darcy, subsample=factor, n_train=0)
            test = load(darcy, data_dir, "test")
            found = predict(record, row, test.a)
            assert found.shape == test.u.shape == (5, size, size)
            own = relative_l2_errors(found, test.u)
            np.testing.assert_allclose(own, record.arrays[f"{row.id}.errors.{size}"], rtol=1e-4)
            assert np.abs(found[:, 0]).max() < 5e-3 * test.u.max()  # eps alone multiplies what the network says there
            if size == 15:
                np.testing.assert_allclose(found[:3], record.arrays[f"{row.id}.prediction"], rtol=1e-6)
    with pytest.raises(UsageError, match=r"expected \(N, s, s\)"):
        predict(record, rows_of(record)[0], np.ones((2, 3, 4)))


def test_an_interrupted_training_goes_on_to_the_bit_and_a_finished_one_is_not_repeated(tmp_path, data_dir, monkeypatch):
    config = changed(TINY, data_dir=data_dir, eval_subsamples=())
    whole = run(config, tmp_path / "whole")
    steps, original = [], RelativeError.__call__

    def stopping(self, module, batch):
        steps.append(1)
        if len(steps) == 10:  # the MLP has taken six; the KAN is in its second epoch
            raise KeyboardInterrupt
        return original(self, module, batch)

    monkeypatch.setattr(RelativeError, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts")
    record = run(config, tmp_path / "parts")
    assert record.sessions == 2 and len(steps) == 10 + 6 - 2  # from the checkpoint at the first epoch's end
    (rows_a, arrays_a), (rows_b, arrays_b) = without_times(whole), without_times(record)
    assert rows_a == rows_b and set(arrays_a) == set(arrays_b)
    for name, array in arrays_a.items():
        np.testing.assert_array_equal(array, arrays_b[name], err_msg=name)
    assert run(config, tmp_path / "parts").sessions == 2 and len(steps) == 14


def test_the_minimum_is_the_same_samples_for_all_and_its_loss_that_of_the_record(record):
    models = trained_models(record)
    assert [model.against for model in models] == [None, None, "mlp-residual", "mlp-residual"]
    for model in models:
        loaded = model.load()
        count = [len(batch[1]) for batch in loaded.batches]
        assert count == [8, 2]
        values = [loaded.loss(loaded.module, batch).item() for batch in loaded.batches]
        assert np.average(values, weights=count) == pytest.approx(model.loss, rel=1e-5)
    weight = loaded.module.lift.layers[0].base_weight
    value = loaded.loss(loaded.module, loaded.batches[0])
    (gradient,) = torch.autograd.grad(value, weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert second.abs().max() > 0


def test_other_samples_or_lost_weights_are_one_line(record, tmp_path):
    damaged = replace(record, result=json.loads(json.dumps(record.result)))
    damaged.result["data"]["darcy15"]["minimum_hash"] = "0" * 16
    with pytest.raises(KansciError, match="the samples of darcy15 are not those of the run"):
        trained_models(damaged)[0].load()
    with pytest.raises(KansciError, match=r"weights.safetensors is missing: .* train again with --force"):
        load_network(replace(record, folder=tmp_path), rows_of(record)[0])


# ---- data -----------------------------------------------------------------------------------------------------------


def test_normalisers_are_equal_where_nodes_coincide_and_bilinear_between():
    mean = np.add.outer(3 * np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    normaliser = PointwiseNormaliser(mean, 1 + mean)
    coarse, fine = (resampled(normaliser, size) for size in (5, 14))
    np.testing.assert_array_equal(coarse.mean, mean[::2, ::2])
    at = np.linspace(0, 1, 14)
    np.testing.assert_allclose(fine.mean, np.add.outer(3 * at, at), atol=1e-12)  # a bilinear field is met exactly
    np.testing.assert_allclose(fine.std, 1 + fine.mean, atol=1e-12)
    bent = resampled(PointwiseNormaliser(mean**2, mean), 17)
    np.testing.assert_array_equal(bent.mean[::2, ::2], mean**2)
    of_a, of_u = normalisers_of(np.stack([mean, mean + 1, mean + 2, mean + 3]))
    assert (of_a.std == mean + 1).all() and (of_u.mean == mean + 2).all()


def test_an_epoch_is_every_sample_once_and_processes_share_each_batch():
    a = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((10, 3, 3), np.float32)
    samples = Encoded(DarcyData(a, a), PointwiseNormaliser(np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)))
    whole = [batch[1][:, 0, 0].tolist() for batch in Epoch(samples, 4, seed=1, epoch=2)]
    assert [len(rows) for rows in whole] == [4, 4] == [4] * len(Epoch(samples, 4, 1, 2))
    assert len({sample for rows in whole for sample in rows}) == 8
    parts = [[b[1][:, 0, 0].tolist() for b in Epoch(samples, 4, 1, 2).shard(rank, 2)] for rank in (0, 1)]
    assert [left + right for left, right in zip(*parts)] == whole
    assert [b[1][:, 0, 0].tolist() for b in Epoch(samples, 4, 1, 2).seek(1)] == whole[1:]
    assert [b[1][:, 0, 0].tolist() for b in Epoch(samples, 4, 1, 3)] != whole


def test_the_error_is_that_of_the_solution_in_its_own_units():
    rng = np.random.default_rng(0)
    u = (1e-2 * rng.random((6, 5, 5)) + 1e-3).astype(np.float32)
    of_u = PointwiseNormaliser.fit(u)
    samples = Encoded(DarcyData(u, u), of_u)  # a network that returns its input is then always right
    identity = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.ones_(identity.weight)
    assert errors(identity, samples, RelativeError(of_u)).max() < 1e-5
    torch.nn.init.zeros_(identity.weight)  # and one that returns zero predicts the mean
    expected = relative_l2_errors(np.broadcast_to(u.mean(0), u.shape), u)
    for size in (None, 4):
        found = errors(identity, samples, RelativeError(of_u), size).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    loss, sums = RelativeError(of_u)(identity, (samples.a, samples.u))
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-5) and sums["count"] == 6


def test_released_files_are_split_and_checked(tmp_path):
    from scipy.io import savemat

    rng = np.random.default_rng(1)
    coeff, sol = rng.random((2, 7, 9, 9))
    savemat(tmp_path / "one.mat", {"coeff": coeff, "sol": sol})
    savemat(tmp_path / "two.mat", {"coeff": coeff[::-1].copy(), "sol": sol[::-1].copy()})
    darcy = DarcyConfig(resolution=9, subsample=2, n_train=4, n_test=2)
    found = Samples.load(SamplesConfig(darcy, tmp_path / "one.mat"))
    np.testing.assert_allclose(found.train.u, sol[:4, ::2, ::2], rtol=1e-6)
    np.testing.assert_allclose(found.test.u, sol[4:6, ::2, ::2], rtol=1e-6)
    two = Samples.load(SamplesConfig(darcy, tmp_path / "one.mat", tmp_path / "two.mat"))
    np.testing.assert_allclose(two.test.a, coeff[::-1][:2, ::2, ::2], rtol=1e-6)
    with pytest.raises(UsageError, match="one.mat has 9 nodes along a side: expected the resolution 17"):
        read_split(SamplesConfig(replace(darcy, resolution=17), tmp_path / "one.mat"), "train")


def test_a_run_on_a_released_file_and_where_it_lies_does_not_matter(tmp_path, data_dir):
    from scipy.io import savemat

    samples = load(changed(TINY.operator.samples.darcy, subsample=4), data_dir, "train")
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path / "other"):
        savemat(folder / "fields.mat", {"coeff": samples.a, "sol": samples.u})
    config = changed(
        TINY, data=tmp_path / "fields.mat", resolution=15, subsample=1, eval_subsamples=(2,), n_train=6, n_test=4,
        variant="mlp", epochs=1,
    )  # fmt: skip
    assert config_hash("fno", config) == config_hash("fno", changed(config, data=tmp_path / "other" / "fields.mat"))
    record = run(config, tmp_path / "results")
    assert record.result["runs"][0]["relative_l2_at"].keys() == {"15", "8"}
    loaded = trained_models(record)[0].load()
    assert sum(len(batch[1]) for batch in loaded.batches) == 6


def test_samples_are_generated_once_and_where_they_lie_does_not_count(data_dir, record):
    assert dataset_folder(TINY.operator.samples.darcy, data_dir).is_dir()
    assert config_hash("fno", TINY) == config_hash("fno", changed(TINY, data_dir=data_dir))
    assert config_hash("fno", TINY) != config_hash("fno", changed(TINY, residual=True))


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mixer-nano"}, "unknown model 'mixer-nano': expected one of fno-deq"),
        ({"variant": "cnn"}, "unknown variant 'cnn'"),
        ({"subsample": 5}, "got subsample 5 of 57 nodes"),
        ({"eval_subsamples": (9,)}, "got subsample 9 of 57 nodes"),
        ({"eval_subsamples": (4,)}, "expected different ones"),
        ({"batch_size": 11}, "got batch_size 11: expected at most the 10 training samples"),
        ({"n_train": 1}, "got n_train 1"),
        ({"n_test": 0}, "got n_test 0"),
        ({"seeds": 0}, "got seeds 0"),
        ({"data": Path("none.mat")}, "none.mat does not exist"),
        ({"test_data": Path("none.mat")}, "got test_data without data"),
        ({"modes": (13, 3)}, "subsample 4, with padding 9: got a grid of 24 x 24 points for modes 13"),
        ({"grid": 0, "variant": "kan-spline"}, "got grid 0"),
        ({"model": "fno-deq", "residual": True}, "equilibrium with residual"),
        ({"epochs": 0}, "got epochs 0"),
        ({"precision": "8"}, "unknown precision '8'"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(changed(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_jobs_of_one_name_are_refused():
    job = jobs(changed(TINY, variant="mlp"))[0]
    with pytest.raises(UsageError, match="2 runs with 1 different names"):
        run_jobs([job, job], None)


def test_presets_fit_and_the_paper_is_the_sources(monkeypatch):
    for config in EXPERIMENT.presets.values():
        check(config)
    paper = EXPERIMENT.presets["paper"]
    darcy = paper.operator.samples.darcy
    assert (darcy.size, darcy.n_train, darcy.n_test, paper.operator.training.epochs) == (85, 1024, 500, 500)
    mlp, kan = jobs(changed(paper, seeds=1))
    assert (mlp.sizes()["parameters"], mlp.sizes()["ends_parameters"]) == (2_376_449, 4_481)
    assert kan.sizes()["ends_parameters"] == 43_200 and kan.label == "KAN, splines (G=5, S=3)"
    assert mlp.resized == {} and mlp.steps == 500 * 32
    monkeypatch.setattr(ranks, "size", lambda: 3)
    with pytest.raises(UsageError, match="got batch_size 32 on 3 processes: expected a multiple of 3"):
        check(paper)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"match": "memory"}, "unknown match 'memory': expected one of none, params, flops"),
        ({"match": "params", "variant": "mlp"}, "got match params with variant mlp"),
        ({"match": "flops", "kan_hidden": (4,)}, "got match flops and kan_hidden"),
    ],
)
def test_a_match_that_cannot_be_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        jobs(changed(FnoRunConfig(), **options))


def test_a_match_names_its_group_and_leaves_other_hashes_alone():
    plain, matched = FnoRunConfig(), changed(FnoRunConfig(), match="params", residual=True)
    assert [job.group for job in jobs(matched)] == ["mlp-residual", "kan-spline-params-residual"]
    assert config_hash("fno", plain) == "2052376a1579"  # of runs made before there was a match
    assert config_hash("fno", changed(FnoRunConfig(), match="params")) != config_hash("fno", plain)
