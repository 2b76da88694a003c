"""Results on disk: one folder per experiment and configuration, readable without torch or matplotlib.

``results/<experiment>/<config hash>/`` holds

* ``config.json``: the configuration, as given;
* ``metrics.jsonl``: progress, one JSON object per line, only ever appended to;
* ``arrays.npz``: the arrays of the result (no pickles);
* ``record.json``: what was run, where, how long, how it ended, and its result;
* ``checkpoints/`` and pictures.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import to_jsonable, write_bytes, write_json

SCHEMA = 1
STATUSES = ("running", "finished", "interrupted", "failed")


@dataclass(frozen=True)
class Record:
    """One run of an experiment, as ``record.json`` and ``arrays.npz`` hold it.

    Args:
        folder: where it lies.
        experiment, config, config_hash: what was run.
        status: one of `STATUSES`; ``"running"`` in a folder nobody holds means that the process was killed.
        message: why it failed or how to resume; empty if finished.
        result: JSON-able numbers (non-finite ones are None). arrays: named arrays.
        versions, machine, commit: see `kansciml.reporting.provenance`.
        seeds: every seed used.
        started, finished: UTC, ISO 8601; `finished` is None while running.
        wall_s: seconds of work, summed over resumed sessions. sessions: how many there were.
        peak_memory_mb, peak_memory_workers_mb: of the last session's process, and of its largest worker process.
    """

    folder: Path
    experiment: str
    config: dict[str, Any]
    config_hash: str
    status: str
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    seeds: tuple[int, ...] = ()
    started: str = ""
    finished: str | None = None
    wall_s: float = 0.0
    sessions: int = 1
    peak_memory_mb: float | None = None
    peak_memory_workers_mb: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, in JSON types."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "arrays"}
        return {"schema": SCHEMA, **to_jsonable(own)}


def save_record(record: Record) -> None:
    """Write ``arrays.npz`` if there are arrays, then ``record.json``, each in one step.

    Raises:
        KansciError: unwritable folder, full disk, or an array of Python objects.
    """
    if record.arrays:
        write_bytes(record.folder / "arrays.npz", _pack(record.arrays))
    content = record.to_json()
    del content["folder"]  # results may be moved
    content["arrays"] = sorted(record.arrays)  # their names, so that a missing or foreign file is noticed
    write_json(record.folder / "record.json", content)


def load_record(folder: str | Path) -> Record:
    """Read the record in `folder`.

    Raises:
        KansciError: nothing there, a truncated or corrupt file, or another schema version.
    """
    folder = Path(folder)
    content = _read_json(folder / "record.json")
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        raise KansciError(
            f"{folder / 'record.json'} has schema {schema!r}: this version reads schema {SCHEMA}; "
            "use the version that wrote it, or run again with --force"
        )
    known = {item.name for item in fields(Record)} - {"folder"}
    required = {"experiment", "config", "config_hash", "status"}
    if not required <= set(content) <= known or content["status"] not in STATUSES:
        raise _corrupt(folder / "record.json", "fields are missing or unknown")
    content["seeds"] = tuple(content.get("seeds", ()))
    names = content.pop("arrays", [])
    arrays = _unpack(folder / "arrays.npz") if names else {}
    if sorted(arrays) != names:
        raise _corrupt(folder / "arrays.npz", "it does not hold the arrays of record.json")
    return Record(folder=folder, arrays=arrays, **content)


def find_records(results: str | Path, experiment: str) -> list[Path]:
    """Folders below `results` that hold a ``record.json`` of `experiment`, the most recently written first."""
    files = list((Path(results) / experiment).glob("*/record.json"))
    return [path.parent for path in sorted(files, key=lambda path: (path.stat().st_mtime, str(path)), reverse=True)]


def load_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl`` in order; a line cut short by a killed process is left out, none is no error."""
    path = Path(folder) / "metrics.jsonl"
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise KansciError(f"array {name!r} holds Python objects: expected numbers, which npz stores without pickle")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpack(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:  # np.load leaves a file open that it cannot read
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is not an npz archive")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise _corrupt(path, "the file is missing") from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise _corrupt(path, str(error)) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise KansciError(f"no record at {path}: run the experiment first") from None
    except OSError as error:
        raise KansciError(f"cannot read {path}: {error.strerror}: check its permissions") from error
    except ValueError as error:  # also bytes that are not UTF-8
        raise _corrupt(path, str(error)) from error
    if not isinstance(content, dict):
        raise _corrupt(path, f"expected a JSON object, got a {type(content).__name__}")
    return content


def _corrupt(path: Path, why: str) -> KansciError:
    why = " ".join(why.split())
    return KansciError(f"{path} is damaged ({why}): remove the folder, or run again with --force")
