"""Records in one small file each, from which their tables and pictures can be made anew.

``<experiment>-<config hash>.zip`` holds ``config.json``, ``record.json`` and ``arrays.npz``, compressed together.
Arrays of floating-point numbers are rounded to single precision, losses to nine digits, those of `COARSE` to three.
Of the histories of trainings `HISTORY` rows are kept, as many as a picture can show, and those where the least loss so
far has fallen by `FALL` since the last of these: what has been reached at any cost is known as exactly. Of the curves
of trajectories about `CURVE` points are kept. Whole paths in the settings are cut to their last two names; else
``record.json`` stays as it is.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import file_failure, list_folder, make_folder, write_bytes
from kansciml.runs.records import Record, find_record, record_json

HISTORY = 200
"""Rows that are kept of a longer history: the first and the last, those where a phase ends, others evenly in log."""
CURVES = {"line", "line_t", "line_truth"}
"""Arrays of trajectories' curves: ``<id>.line``, ``<id>.line.1`` and so on."""
CURVE = 200
"""Points that are kept at most of a trajectory's curve and of its times: evenly, and the last."""
FALL = 0.02
"""Share of the least loss so far by which it may be too high between two rows that are kept."""
MEMBERS = ("config.json", "record.json", "arrays.npz")
COARSE = {"cpu_s", "curves", "eigenvalues", "flops"}
"""Arrays of which three digits are kept: parts of their names. Others, such as parameters, are singles."""
DROPPED = 13
"""Last bits of the 24 of a single's significand that numbers of three digits have as zeros."""
LOSS, LOSS_DROPPED = ".loss", 22
"""What names of losses end in, which keep nine digits, and the last bits of the 53 of theirs that are then zeros."""
STEPS = (".phase", ".rung")
"""Columns of a history whose changes are kept."""
FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def pack(record: Record, folder: Path, unshown: Collection[str] = ()) -> Path:
    """Write a finished record into `folder` as one file, without the arrays `unshown`, and return its path.

    Args:
        unshown: names of arrays, of `kansciml.runs.experiment.Experiment.unshown`.

    Raises:
        KansciError: it is not finished, or a file cannot be read or written.
    """
    if record.status != "finished":
        raise KansciError(f"{record.folder} is {record.status}: only finished runs can be packed; resume it first")
    return write_bytes(make_folder(folder) / packed_name(record), packed(record, unshown))


def with_parts(*parts: str) -> Callable[[Record], set[str]]:
    """For `Experiment.unshown`: the names of all arrays whose names, after the first dot, have one of these parts."""
    return lambda record: {name for name in record.arrays if not {*parts}.isdisjoint(name.split(".")[1:])}


def without_arrays(record: Record, names: Collection[str]) -> Record:
    """The record without these of its arrays."""
    return replace(record, arrays={name: array for name, array in record.arrays.items() if name not in names})


def packed_name(record: Record) -> str:
    """Name of the file that a record is packed into."""
    return f"{record.experiment}-{record.config_hash}.zip"


def packed(record: Record, unshown: Collection[str] = ()) -> bytes:
    """The bytes of that file. Raises KansciError: a file of the record cannot be read."""
    record = without_arrays(record, unshown)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name in MEMBERS:
            content = {"arrays.npz": _arrays, "record.json": _json}.get(name, _settings)(record)
            if content:
                info = zipfile.ZipInfo(name, FIXED_TIME)  # so that equal records give equal files
                info.compress_type = zipfile.ZIP_LZMA
                archive.writestr(info, content)
    return buffer.getvalue()


def unpack(archives: Path, results: Path) -> list[Path]:
    """Put the records of all files in `archives` into the folder of results, where they are not already.

    Returns their folders. A run that is there, finished or not, is left as it is.

    Raises:
        KansciError: no such files, or one that is none of `pack`.
    """
    found = [path for path in list_folder(archives) if path.suffix == ".zip"]
    if not found:
        raise KansciError(f"{archives} holds no packed records: expected files such as fig2-0123456789ab.zip")
    folders = []
    for path in sorted(found):
        experiment, _, digest = path.stem.rpartition("-")
        folder = results / experiment / digest
        folders.append(folder)
        if (folder / "record.json").exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                content = {name: archive.read(name) for name in archive.namelist() if name in MEMBERS}
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, lzma.LZMAError, EOFError) as error:
            raise KansciError(f"{path} is no packed record: {error}") from error
        if not experiment or "record.json" not in content:
            raise KansciError(f"{path} is no packed record: it lacks record.json, or experiment and hash in its name")
        make_folder(folder)
        for name in sorted(content, key=MEMBERS.index, reverse=True):  # record.json after its arrays
            if name != "record.json":
                write_bytes(folder / name, content[name])
        write_bytes(folder / "record.json", content["record.json"])
        find_record(folder)
    return folders


def _settings(record: Record) -> bytes:
    path = record.folder / "config.json"
    try:
        return json.dumps(_without_folders(json.loads(path.read_bytes())), indent=1).encode()
    except OSError as error:
        raise file_failure("read", path, error) from error
    except ValueError as error:
        raise KansciError(f"{path} is damaged: {error}") from error


def _json(record: Record) -> bytes:
    """The record without what tells of a machine and not of the run: version of the operating system, folders."""
    machine = {**record.machine, "platform": str(record.machine.get("platform", "")).partition("-")[0]}
    kept = replace(record, machine=machine, config=_without_folders(record.config))
    return json.dumps(record_json(kept), indent=1).encode()


def _without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the last two names, ``ode/dc286471fdc5`` of a run, of what is the whole path of a file."""
    paths = {name: Path(value) for name, value in config.items() if isinstance(value, str)}
    whole = {name: path for name, path in paths.items() if path.is_absolute() and len(path.parts) > 2}
    return {**config, **{name: path.relative_to(path.parents[1]).as_posix() for name, path in whole.items()}}


def _arrays(record: Record) -> bytes:
    """The arrays as an npz that is not compressed itself, thinned and rounded; empty if there are none."""
    kept, arrays = {}, record.arrays
    for name, array in arrays.items():
        rows = _rows(arrays, name)
        array = array if rows is None else array[rows]
        kept[name] = array
        if array.dtype == np.float64 and name.endswith(LOSS):
            kept[name] = _rounded(np.ascontiguousarray(array), LOSS_DROPPED)
        elif array.dtype in (np.float32, np.float64):
            single = np.asarray(array, dtype=np.float32, order="C")
            kept[name] = single if COARSE.isdisjoint(name.split(".")) else _rounded(single, DROPPED)
    if not kept:
        return b""
    buffer = io.BytesIO()
    np.savez(buffer, **kept)  # type: ignore[arg-type]  # its own flag comes after the arrays
    return buffer.getvalue()


def _rounded(array: np.ndarray, dropped: int) -> np.ndarray:
    """To the nearest number whose last bits are zero, which takes less room; what is not finite stays."""
    kind = np.dtype(f"u{array.itemsize}").type
    unit = kind(1 << dropped)
    bits = (array.view(kind) + unit // kind(2)) & ~(unit - kind(1))
    return np.where(np.isfinite(array), bits.view(array.dtype), array)


def _rows(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """Which rows are kept of a column of a history, ``<id>.iteration``, and of a curve, ``<id>.line``; None: all."""
    owner, array = name.rpartition(".")[0], arrays[name]
    if not CURVES.isdisjoint(name.split(".")[1:]) and len(array) > CURVE:
        return np.unique([*range(0, len(array), -(-len(array) // CURVE)), len(array) - 1])
    length = len(arrays.get(f"{owner}.iteration", ()))
    if array.ndim != 1 or len(array) != length or length <= HISTORY:
        return None
    rows = set(np.geomspace(1, length, HISTORY).round().astype(int) - 1)
    starts: set[int] = set()
    for column in STEPS:
        steps = arrays.get(f"{owner}{column}")
        if steps is not None and len(steps) == length:
            last = np.flatnonzero(np.diff(steps))
            starts |= {*(last + 1).tolist()}
            rows |= {*last.tolist(), *starts}
    loss = arrays.get(f"{owner}.loss", ())
    return np.array(sorted(map(int, rows | _falls(loss, starts))))


def _falls(loss: Iterable[float], starts: Collection[int]) -> set[int]:
    """Rows where the least loss since the last start, or from the first row on, has fallen by `FALL` since the last."""
    kept, best, last = set(), np.inf, np.inf
    for row, value in enumerate(loss):
        best, last = (np.inf, np.inf) if row in starts else (best, last)
        best = min(best, value)  # of NaN the first
        if best < (1 - FALL) * last:
            kept.add(row)
            last = best
    return kept
