"""Results on disk: one folder per experiment and configuration, readable without torch or matplotlib.

``results/<experiment>/<config hash>/`` holds

* ``config.json``: the configuration, as given;
* ``metrics.jsonl``: progress, one JSON object per line, only ever appended to;
* ``arrays.npz``: the arrays of the result (no pickles);
* ``record.json``: what was run, where, how long, how it ended, and its result;
* ``checkpoints/``, pictures and tables, and, written last of all, ``pictures.json``, which names them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import file_failure, list_folder, to_jsonable, write_bytes, write_json
from kansciml.runs.typed import read

T = TypeVar("T")
SCHEMA = 1
STATUSES = ("running", "finished", "interrupted", "failed")
DRAWN = "pictures.json"


class DamagedRecord(KansciError):
    """A record that cannot be read, or lacks what others of its experiment have. Exit code 1."""


@dataclass(frozen=True)
class Record:
    """One run of an experiment, as ``record.json`` and ``arrays.npz`` hold it.

    Args:
        folder: where it lies.
        experiment, config, config_hash: what was run.
        status: one of `STATUSES`; ``"running"`` in a folder nobody holds means that the process was killed.
        message: why it failed or how to resume; empty if finished.
        result: JSON-able numbers (non-finite ones are None). arrays: named arrays.
        versions, machine, commit: see `kansciml.runs.provenance`.
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
    """Write ``arrays.npz`` if there are arrays, then ``record.json``, each in one step."""
    if record.arrays:
        write_bytes(record.folder / "arrays.npz", _pack(record.arrays))
    write_json(record.folder / "record.json", record_json(record))


def record_json(record: Record) -> dict[str, Any]:
    """What ``record.json`` holds."""
    content = record.to_json()
    del content["folder"]  # results may be moved
    content["arrays"] = sorted(record.arrays)  # their names, so that a missing or foreign file is noticed
    return content


def load_record(folder: str | Path) -> Record:
    """Read the record in `folder`.

    Raises:
        KansciError: nothing there, or a folder that may not be read.
        DamagedRecord: a truncated or corrupt file, fields of another kind, or another schema version.
    """
    record = find_record(folder)
    if record is None:
        raise KansciError(f"no record at {Path(folder) / 'record.json'}: run the experiment first")
    return record


def find_record(folder: str | Path) -> Record | None:
    """As `load_record`; None where there is none."""
    folder = Path(folder)
    path = folder / "record.json"
    content = _read_json(path)
    if content is None:
        return None
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        raise DamagedRecord(
            f"{path} has schema {schema!r}: this version reads schema {SCHEMA}; "
            "use the version that wrote it, or run again with --force"
        )
    names = content.pop("arrays", [])
    try:
        record = read(Record, {**content, "folder": str(folder)})
    except (KeyError, TypeError) as error:
        raise _corrupt(path, f"no {error}" if isinstance(error, KeyError) else str(error)) from error
    if record.status not in STATUSES or not content.keys() <= vars(record).keys():
        raise _corrupt(path, f"status is {record.status!r}" if record.status not in STATUSES else "a field is unknown")
    arrays = _unpack(folder / "arrays.npz") if names else {}
    if sorted(arrays) != names:
        raise _corrupt(folder / "arrays.npz", "it does not hold the arrays of record.json")
    return replace(record, folder=folder, arrays=arrays)


def load_records(folders: Iterable[Path], log: Callable[[str], None]) -> Iterator[Record]:
    """The records in `folders`; one that cannot be read is a line for `log`, and does not keep the others back."""
    for folder in folders:
        try:
            yield load_record(folder)
        except KansciError as error:
            log(f"left out: {error}")


def find_records(results: str | Path, experiment: str) -> list[Path]:
    """Folders below `results` that hold a ``record.json`` of `experiment`, the most recently written first.

    Those that may not be looked into are among them, the last ones: `load_record` says so of each.

    Raises:
        KansciError: `results`, or the folder of the experiment there, is no folder or may not be read.
    """
    list_folder(Path(results))
    found = []
    for folder in list_folder(Path(results) / experiment):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                found.append(((folder / "record.json").stat().st_mtime, str(folder), folder))
            except PermissionError:
                found.append((0.0, str(folder), folder))
    return [folder for *_, folder in sorted(found, reverse=True)]


@contextlib.contextmanager
def reading(record: Record) -> Iterator[None]:
    """Within, whatever `record` lacks or has of another kind is one line that names it. Raises DamagedRecord: then."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, KansciError):
            raise
        path = record.folder / "record.json"
        what = f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise _corrupt(path, f"it lacks what a run of {record.experiment} has: {what}") from error


def finished_rows(record: Record, kind: type[T], name: str = "runs") -> list[T]:
    """The rows of a finished run, as dataclasses. Raises DamagedRecord: it has none, or others."""
    with reading(record):
        rows = [read(kind, row) for row in record.result[name]]
    if not rows:
        raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
    return rows


def drawn_files(record: Record) -> list[Path] | None:
    """Pictures and tables of `record`; None if drawing them did not come to its end, or one has gone since."""
    try:
        content = json.loads((record.folder / DRAWN).read_text(encoding="utf-8"))
        paths = [record.folder / name for name in content["files"]]
        whole = content["finished"] == record.finished and all(path.is_file() for path in paths)
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return paths if whole else None


def note_drawn(record: Record, paths: Sequence[Path]) -> None:
    """Keep what `drawn_files` reads: that `paths`, inside the record's folder, are all its pictures and tables."""
    names = [os.path.relpath(path, record.folder) for path in paths]
    write_json(record.folder / DRAWN, {"finished": record.finished, "files": names})


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise KansciError(f"array {name!r} holds Python objects: expected numbers, which npz stores without pickle")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its own flag comes after the arrays
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
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError) as error:
        raise _corrupt(path, str(error)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise file_failure("read", path, error) from error
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise _corrupt(path, str(error)) from error
    if not isinstance(content, dict):
        raise _corrupt(path, f"expected a JSON object, got a {type(content).__name__}")
    return content


def _corrupt(path: Path, why: str) -> DamagedRecord:
    why = " ".join(why.split())
    return DamagedRecord(f"{path} is damaged ({why}): remove the folder, or run again with --force")
