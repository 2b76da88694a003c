"""Settings, samples in memory, normalisation and errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.relative_l2 import relative_l2_errors

from kansciml import KansciError, UsageError
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.dataset import DarcyData, dataset_folder, generate, load
from kansciml.tasks.darcy.metrics import relative_l2
from kansciml.tasks.darcy.normalise import PointwiseNormaliser


def test_defaults_are_the_papers() -> None:
    config = DarcyConfig()
    assert (config.resolution, config.size, config.n_train, config.n_test) == (421, 85, 1024, 500)
    assert (config.low, config.high, config.tau, config.alpha, config.forcing) == (3, 12, 3, 2, 1)
    assert [DarcyConfig(subsample=k).size for k in (1, 2, 3, 5)] == [421, 211, 141, 85]


def test_every_setting_but_the_numbers_of_samples_names_another_folder() -> None:
    config = DarcyConfig()
    others = dict(
        resolution=841, subsample=4, data_seed=1, low=2.0, high=11.0, tau=2.0, alpha=3.0, forcing=2.0, solver="lu"
    )
    ids = {replace(config, **{name: value}).id for name, value in others.items()}
    assert len(ids | {config.id}) == 10 and config.id.startswith("421to85-seed0-")
    assert {*others, "seed"} - {"data_seed"} == set(config.settings())  # as data sets on disk call it
    assert replace(config, n_train=3, n_test=4, low=3, data_seed=np.int64(0)).id == config.id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"subsample": 8},
            r"got subsample 8 of 421 nodes: expected a divisor of 420.*: 1 \(421\), 2 \(211\), 3 \(141\)",
        ),
        ({"subsample": 0}, "got subsample 0"),
        ({"resolution": 12, "subsample": 2}, r"divisor of 11, with the nodes it leaves: 1 \(12\)$"),
        ({"resolution": 4, "subsample": 1}, "at least 5 nodes"),
        ({"n_train": -1}, "got n_train -1"),
        ({"data_seed": -1}, "got data_seed -1"),
        ({"low": 0.0}, "0 < low <= high"),
        ({"low": 13.0}, "0 < low <= high"),
        ({"high": float("nan")}, "0 < low <= high"),
        ({"tau": -1.0}, "got tau"),
        ({"alpha": 1.0}, "got alpha 1.0: expected above 1"),
        ({"forcing": 0.0}, "got forcing"),
        ({"solver": "gmres"}, "unknown solver 'gmres': expected one of cg, lu"),
    ],
)
def test_bad_settings_are_one_clear_line(settings, message) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        DarcyConfig(**settings)
    assert "\n" not in str(caught.value)


def test_folders(config, tmp_path, monkeypatch) -> None:
    assert dataset_folder(config, tmp_path) == tmp_path / config.id
    cache = dataset_folder(config)
    assert cache.parts[-2:] == ("darcy", config.id)
    monkeypatch.setenv("KANSCIML_DATA", str(tmp_path / "shared"))
    assert dataset_folder(config) == cache  # nothing there yet
    generate(replace(config, n_train=2), tmp_path / "shared" / "darcy" / config.id)
    assert dataset_folder(config) == tmp_path / "shared" / "darcy" / config.id
    assert len(load(replace(config, n_train=2))) == 2


def test_loading_what_was_not_generated(config, tmp_path) -> None:
    with pytest.raises(KansciError, match="holds 0 of 40 train samples: generate them with kansciml darcy"):
        load(config, tmp_path)
    generate(config, dataset_folder(config, tmp_path))
    with pytest.raises(KansciError, match="holds 40 of 41 train samples"):
        load(replace(config, n_train=41), tmp_path)
    with pytest.raises(UsageError, match="unknown split 'valid': expected one of train, test"):
        load(config, tmp_path, "valid")
    assert len(load(replace(config, n_test=0), tmp_path, "test")) == 0


def test_the_data_room_needs_no_torch() -> None:
    code = "import kansciml.tasks.darcy.dataset, kansciml.tasks.darcy.normalise, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_samples_in_memory() -> None:
    a = np.random.default_rng(0).random((3, 13, 13))
    data = DarcyData(a, 2 * a, "here")
    assert (len(data), data.size) == (3, 13) and data.x[[0, 1, -1]].tolist() == [0, 1 / 12, 1]
    with pytest.raises(UsageError, match="got coefficients of shape"):
        DarcyData(a, a[:2])
    with pytest.raises(UsageError, match="float32 or float64 for both"):
        DarcyData(a, a.astype(np.float32))


def test_normalised_samples_have_mean_0_and_deviation_1_at_each_node(config, tmp_path: Path) -> None:
    generate(config, dataset_folder(config, tmp_path))
    train, test = load(config, tmp_path), load(config, tmp_path, "test")
    for x, other in ((train.a, test.a), (train.u, test.u)):
        normaliser = PointwiseNormaliser.fit(x, eps=1e-12)
        z = normaliser.encode(x.astype(np.float64))
        inner = np.s_[:, 1:-1, 1:-1]
        np.testing.assert_allclose(z.mean(0)[inner[1:]], 0, atol=1e-5)
        np.testing.assert_allclose(z.std(0, ddof=1)[inner[1:]], 1, rtol=1e-5)
        np.testing.assert_allclose(normaliser.decode(normaliser.encode(other)), other, rtol=1e-5, atol=1e-9)
        assert normaliser.encode(other).dtype == np.float32
    # boundary values of u never vary: they decode to 0 but for eps, whatever a network says there
    normaliser = PointwiseNormaliser.fit(train.u)
    wild = normaliser.decode(np.full((5, 5), 7.0, np.float32))
    assert np.abs(wild[0]).max() <= 7.1e-5 and normaliser.eps == 1e-5
    np.testing.assert_array_equal(normaliser.encode(train.u)[:, 0], 0)


def test_normalisation_in_torch_is_that_in_numpy() -> None:
    x = np.random.default_rng(1).random((6, 4, 4)).astype(np.float32)
    plain = PointwiseNormaliser.fit(x)
    tensors = plain.to_torch()
    np.testing.assert_array_equal(tensors.encode(torch.from_numpy(x)).numpy(), plain.encode(x))
    np.testing.assert_array_equal(tensors.decode(torch.from_numpy(x)).numpy(), plain.decode(x))
    assert plain.to_torch(dtype=torch.float64).decode(torch.zeros(4, 4)).dtype == torch.float64
    with pytest.raises(UsageError, match="at least 2 samples"):
        PointwiseNormaliser.fit(x[:1])


def test_relative_l2_is_its_formula() -> None:
    rng = np.random.default_rng(2)
    prediction, target = rng.standard_normal((2, 5, 7, 7))
    expected = relative_l2_errors(prediction, target)
    p, t = torch.from_numpy(prediction).requires_grad_(), torch.from_numpy(target)
    np.testing.assert_allclose(relative_l2(p, t, "none").detach(), expected, rtol=1e-14)
    assert relative_l2(p, t).item() == pytest.approx(np.mean(expected))
    assert torch.autograd.gradcheck(lambda x: relative_l2(x, t), (p,))
    assert relative_l2(p.bfloat16(), t.bfloat16()).dtype == torch.float32
    assert relative_l2(7 * t, t).item() == pytest.approx(6)
    same = t.clone().requires_grad_()
    relative_l2(same, t).backward()
    assert same.grad is not None and same.grad.isfinite().all()  # a perfect answer does not end a training
    with pytest.raises(UsageError, match=r"got a prediction of shape \(5, 7, 7, 1\) for a target of shape \(5, 7, 7\)"):
        relative_l2(p[..., None], t)
    with pytest.raises(UsageError, match="unknown reduction 'max'"):
        relative_l2(p, t, "max")
