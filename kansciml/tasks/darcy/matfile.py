"""Reads the released Darcy files, such as ``piececonst_r421_N1024_smooth1.mat``: variables coeff and sol, (N, s, s).

Source: Li et al. (2021); smooth1 holds their training samples, smooth2 their test samples.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.darcy.config import check_subsample
from kansciml.tasks.darcy.dataset import DarcyData

VARIABLES = ("coeff", "sol")
HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: Path | str, samples: int | None = None, subsample: int = 1, dtype: Any = np.float32) -> DarcyData:
    """Samples of a released MATLAB file, version 5 (SciPy reads it) or 7.3 (needs h5py).

    A file of version 5 is read whole, one variable at a time: 1.5 GB for 1024 samples of 421 x 421.

    Args:
        path: the file.
        samples: how many, from the first on; default: all.
        subsample: every how many-th node, e.g. 5 for 85 x 85 of 421 x 421; default 1.
        dtype: type of the arrays, float32 (default) or float64.

    Raises:
        UsageError: no such file, not a MATLAB file, version 7.3 without h5py, variables missing or of other shapes, too
            few samples, a subsample that does not divide s - 1.
    """
    path = Path(path).expanduser()
    a, u = (_read(path, name, samples, subsample, dtype) for name in VARIABLES)
    return DarcyData(a, u, path.name)


def _read(path: Path, name: str, samples: int | None, subsample: int, dtype: Any) -> np.ndarray:
    whole = _read_hdf5(path, name) if _is_hdf5(path) else _read_v5(path, name)
    if whole.ndim != 3 or whole.shape[1] != whole.shape[2] or whole.dtype.kind not in "fiu":
        raise UsageError(f"{path}: variable {name} is {whole.dtype} of shape {whole.shape}: expected numbers (N, s, s)")
    check_subsample(whole.shape[1], subsample)
    if samples is not None and not 1 <= samples <= len(whole):
        raise UsageError(f"{path} holds {len(whole)} samples: got {samples}, expected 1 to {len(whole)}")
    return np.ascontiguousarray(whole[:samples, ::subsample, ::subsample], dtype)


def _is_hdf5(path: Path) -> bool:
    """Whether the file is an HDF5 file, which may begin after a block of 512 bytes, as MATLAB's do."""
    try:
        with open(path, "rb") as file:
            head = file.read(520)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: expected a MATLAB file with variables coeff and sol") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    return head.startswith(HDF5) or head[512:].startswith(HDF5)


def _read_v5(path: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        names = [entry[0] for entry in whosmat(path)]
        if name not in names:
            raise _absent(path, name, names)
        return loadmat(path, variable_names=[name])[name]
    except UsageError:
        raise
    except (MatReadError, OSError, ValueError, TypeError, LookupError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read as a MATLAB file, truncated or of another kind: download it again"
        ) from error


def _read_hdf5(path: Path, name: str) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            f"{path} is a MATLAB file of version 7.3 (HDF5): install h5py, or save it as version 7 in MATLAB"
        ) from error
    try:
        with h5py.File(path) as file:
            if not isinstance(file.get(name), h5py.Dataset):
                raise _absent(path, name, [key for key in file if isinstance(file[key], h5py.Dataset)])
            return file[name][()].T  # MATLAB counts the first index fastest
    except OSError as error:
        raise UsageError(f"{path} cannot be read as an HDF5 file: truncated: download it again") from error


def _absent(path: Path, name: str, names: list[str]) -> UsageError:
    return UsageError(f"{path} has no variable {name}: expected coeff and sol, found {', '.join(names) or 'none'}")
