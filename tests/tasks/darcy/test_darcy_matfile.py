"""Released MATLAB files, written here by SciPy, and every way they can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from kansciml import UsageError
from kansciml.tasks.darcy.matfile import HDF5, read_mat


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a = np.where(rng.random((6, 13, 13)) > 0.5, 12.0, 3.0)
    return {"coeff": a, "sol": rng.random((6, 13, 13)), "Kcoeff": a[:, :2]}


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_of_version_5(arrays, compressed, tmp_path: Path) -> None:
    path = tmp_path / "piececonst.mat"
    savemat(path, arrays, do_compression=compressed)
    data = read_mat(path, dtype=np.float64)
    np.testing.assert_array_equal(data.a, arrays["coeff"])
    np.testing.assert_array_equal(data.u, arrays["sol"])
    part = read_mat(path, samples=2, subsample=3)
    np.testing.assert_array_equal(part.u, arrays["sol"][:2, ::3, ::3].astype(np.float32))
    assert part.size == 5 and part.source == "piececonst.mat"


def test_bad_requests_and_files_are_one_clear_line(arrays, tmp_path: Path) -> None:
    path = tmp_path / "data.mat"
    savemat(path, arrays, do_compression=True)
    for options, message in (
        ({"samples": 7}, "holds 6 samples: got 7, expected 1 to 6"),
        ({"samples": 0}, "got 0"),
        ({"subsample": 5}, r"got subsample 5 of 13 nodes: expected a divisor of 12"),
    ):
        with pytest.raises(UsageError, match=message):
            read_mat(path, **options)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:60], b"", b"not MATLAB at all, but long enough to be read" * 20):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="cannot be read as a MATLAB file") as caught:
            read_mat(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(UsageError, match="does not exist"):
        read_mat(tmp_path / "absent.mat")
    with pytest.raises(UsageError, match="cannot be read"):
        read_mat(tmp_path)


def test_other_variables(arrays, tmp_path: Path) -> None:
    path = tmp_path / "data.mat"
    savemat(path, {"coeff": arrays["coeff"], "u": 1.0})
    with pytest.raises(UsageError, match="has no variable sol: expected coeff and sol, found coeff, u"):
        read_mat(path)
    savemat(path, {"coeff": arrays["coeff"], "sol": arrays["sol"][:, :5]})
    with pytest.raises(
        UsageError, match=r"variable sol is float64 of shape \(6, 5, 13\): expected numbers \(N, s, s\)"
    ):
        read_mat(path)
    savemat(path, {"coeff": arrays["coeff"], "sol": arrays["sol"][:5]})
    with pytest.raises(UsageError, match=r"coefficients of shape \(6, 13, 13\), solutions of shape \(5, 13, 13\)"):
        read_mat(path)


@pytest.mark.parametrize("before", [b"", b"MATLAB 7.3 MAT-file".ljust(512)])
def test_version_7_3_without_h5py(before, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "data.mat"
    path.write_bytes(before + HDF5 + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"version 7.3 \(HDF5\): install h5py"):
        read_mat(path)


def test_version_7_3_with_h5py(arrays, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "data.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name in ("coeff", "sol"):
            file[name] = arrays[name].T  # as MATLAB writes them
        file.create_group("other")
    data = read_mat(path, samples=4, subsample=2, dtype=np.float64)
    np.testing.assert_array_equal(data.a, arrays["coeff"][:4, ::2, ::2])
    np.testing.assert_array_equal(data.u, arrays["sol"][:4, ::2, ::2])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot be read as an HDF5 file"):
        read_mat(path)
    with h5py.File(path, "w") as file:
        file.create_group("coeff")
    with pytest.raises(UsageError, match=r"has no variable coeff: expected coeff and sol, found none"):
        read_mat(path)
