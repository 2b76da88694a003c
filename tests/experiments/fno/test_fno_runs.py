"""Neural operators: errors at every resolution, their data, normalisation, released files, settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.minibatch import OPERATORS as TINY
from support.minibatch import run
from support.relative_l2 import relative_l2_errors
from support.settings import changed

from kansciml import UsageError
from kansciml.experiments.fno.config import FnoRunConfig, SamplesConfig
from kansciml.experiments.fno.experiment import EXPERIMENT
from kansciml.experiments.fno.jobs import Samples, jobs, read_split
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.runs import Encoded, RelativeError, errors
from kansciml.experiments.fno.trained import evaluate_row
from kansciml.experiments.minibatch.trained import load_network
from kansciml.runs.registry import trained_models
from kansciml.runs.settings import config_hash
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.dataset import DarcyData, dataset_folder, load
from kansciml.tasks.darcy.normalise import PointwiseNormaliser


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def record(tmp_path_factory, data_dir):
    """MLP and KAN, residual."""
    config = changed(TINY, data_dir=data_dir, residual=True)
    return run(EXPERIMENT, config, tmp_path_factory.mktemp("results"))


def test_rows_hold_errors_at_every_resolution_and_the_sizes_of_lift_and_projection(record, data_dir):
    mlp, kan = rows = FnoRecord.read(record).rows
    assert [row.group for row in rows] == ["mlp-residual", "kan-spline-residual"]
    assert [model.against for model in trained_models(record)] == [None, "mlp-residual"]
    for row in rows:
        assert record.arrays[f"{row.id}.errors.15"].mean() == pytest.approx(row.relative_l2, rel=1e-12)
        assert row.relative_l2_at.keys() == {"15", "8", "29"}
        network = load_network(record, row)
        ends = [*network.lift.parameters(), *network.projection.parameters()]
        assert row.ends_parameters == sum(p.numel() for p in ends)
    assert kan.parameters - kan.ends_parameters == mlp.parameters - mlp.ends_parameters
    described = FnoRecord.read(record).data["darcy15"]
    assert (described.n_train, described.n_test, described.size) == (10, 5, 15)
    test = load(TINY.operator.samples.darcy, data_dir, "test")
    np.testing.assert_array_equal(record.arrays["darcy15.u"], test.u[:3])


def test_a_network_read_back_errs_as_was_recorded_at_every_resolution(record, data_dir):
    for row in FnoRecord.read(record).rows:
        for factor, size in ((4, 15), (8, 8), (2, 29)):
            test = load(replace(TINY.operator.samples.darcy, subsample=factor, n_train=0), data_dir, "test")
            found = evaluate_row(record, row, test, "cpu")
            assert found.shape == (5,) and test.size == size
            np.testing.assert_allclose(found, record.arrays[f"{row.id}.errors.{size}"], rtol=1e-6)
        shown = record.arrays[f"{row.id}.prediction"]
        own = relative_l2_errors(shown, record.arrays["darcy15.u"])
        np.testing.assert_allclose(own, record.arrays[f"{row.id}.errors.15"][:3], rtol=1e-4)
        assert np.abs(shown[:, 0]).max() < 5e-3 * shown.max()  # eps alone multiplies what the network says there


# ---- data -----------------------------------------------------------------------------------------------------------


def test_normalisers_are_equal_where_nodes_coincide_and_bilinear_between():
    mean = np.add.outer(3 * np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    normaliser = PointwiseNormaliser(mean, 1 + mean)
    coarse, fine = (normaliser.resampled(size) for size in (5, 14))
    np.testing.assert_array_equal(coarse.mean, mean[::2, ::2])
    at = np.linspace(0, 1, 14)
    np.testing.assert_allclose(fine.mean, np.add.outer(3 * at, at), atol=1e-12)  # a bilinear field is met exactly
    np.testing.assert_allclose(fine.std, 1 + fine.mean, atol=1e-12)
    bent = PointwiseNormaliser(mean**2, mean).resampled(17)
    np.testing.assert_array_equal(bent.mean[::2, ::2], mean**2)


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own():
    a = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((10, 3, 3), np.float32)
    samples = Encoded(DarcyData(a, a), PointwiseNormaliser(np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)))

    def drawn(epoch, first=0):
        return [batch[1][:, 0, 0].tolist() for batch in samples.batches(4, 1, epoch, first)]

    assert [len(rows) for rows in drawn(2)] == [4, 4] and len({sample for rows in drawn(2) for sample in rows}) == 8
    assert drawn(2, first=1) == drawn(2)[1:] and drawn(3) != drawn(2)


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
    record = run(EXPERIMENT, config, tmp_path / "results")
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
        ({"match": "memory"}, "unknown match 'memory': expected one of none, params, flops"),
        ({"match": "params", "variant": "mlp"}, "got match params with variant mlp"),
        ({"match": "flops", "kan_hidden": (4,)}, "got match flops and kan_hidden"),
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
        ({"channels_last": True}, "got channels_last"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(EXPERIMENT, changed(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_presets_fit_and_the_paper_is_the_sources():
    for config in EXPERIMENT.presets.values():
        EXPERIMENT.check(config)
    paper = EXPERIMENT.presets["paper"]
    darcy = paper.operator.samples.darcy
    assert (darcy.size, darcy.n_train, darcy.n_test, paper.operator.training.epochs) == (85, 1024, 500, 500)
    mlp, kan = jobs(changed(paper, seeds=1))
    assert (mlp.sizes()["parameters"], mlp.sizes()["ends_parameters"]) == (2_376_449, 4_481)
    assert kan.sizes()["ends_parameters"] == 43_200 and kan.label == "KAN, splines (G=5, S=3)"
    assert mlp.resized == {} and mlp.steps == 500 * 32


def test_a_match_names_its_group_and_leaves_other_hashes_alone():
    plain, matched = FnoRunConfig(), changed(FnoRunConfig(), match="params", residual=True)
    assert [job.group for job in jobs(matched)] == ["mlp-residual", "kan-spline-params-residual"]
    assert config_hash("fno", plain) == "2052376a1579"  # of runs made before there was a match
    assert config_hash("fno", changed(FnoRunConfig(), match="params")) != config_hash("fno", plain)
