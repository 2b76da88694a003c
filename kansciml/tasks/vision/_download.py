"""Downloads files with a published checksum, and unpacks archives file by file, each whole or absent."""

from __future__ import annotations

import logging
import posixpath
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from kansciml._errors import KansciError
from kansciml._files import write_bytes
from kansciml.tasks.data_folder import Bar, Progress

TIMEOUT_S = 30


def download(urls: Sequence[str], md5: str, path: Path, title: str, progress: Progress | None) -> None:
    """Download `path` from the first of the mirrors `urls` that gives the file with this checksum.

    A file already at `path` with the right checksum is kept. pooch writes beside it and renames, so that `path` is
    always whole.

    Raises:
        KansciError: no mirror could be reached or all gave something else; or the folder cannot be written.
    """
    import pooch

    logger = pooch.get_logger()
    level, failures = logger.level, []
    logger.setLevel(logging.WARNING)  # its announcements would tear the bar
    make_cache(path.parent)
    try:
        for url in urls:
            bar = None if progress is None else _Bar(progress, f"{title}: {path.name}")
            downloader = pooch.HTTPDownloader(progressbar=bar or False, timeout=TIMEOUT_S, chunk_size=1 << 16)
            try:
                pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader)
                return
            except ValueError as error:
                if "hash" not in str(error):
                    raise
                failures.append(f"{url} gave a file with another checksum, truncated or changed")
            except OSError as error:  # requests' errors are among these
                if error.errno is not None and not _is_network(error):
                    raise cache_failure(path, error) from error
                failures.append(f"{url} {_reason(error)}")
            finally:
                if bar is not None:
                    bar.close()
    finally:
        logger.setLevel(level)
    raise KansciError(
        f"cannot download {title}: {'; '.join(failures)}: try again later, or unpack the official archive into a folder"
        " and name it with --data-dir"
    )


def unpack(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Write the named members of a tar archive, and nothing else of it, into `folder`.

    A member is found by its path in the archive and written under its last name, so that no path in the archive can
    lead out of the folder.

    Raises:
        KansciError: a damaged archive, a missing member, or a folder that cannot be written.
    """
    make_cache(folder)
    written = set()
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                name = posixpath.normpath(entry.name)
                stream = tar.extractfile(entry) if name in members and entry.isfile() else None
                if stream is not None:
                    write_bytes(folder / posixpath.basename(name), stream.read())
                    written.add(name)
        missing = [name for name in members if name not in written]
        if missing:
            raise tarfile.TarError(f"it has no file {missing[0]}")
    except KansciError as error:
        assert isinstance(error.__cause__, OSError)  # as `write_bytes` has it
        raise cache_failure(folder, error.__cause__) from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip's errors are OSErrors without a number
            raise cache_failure(folder, error) from error
        text = " ".join(str(error).split())
        raise KansciError(f"{archive} cannot be unpacked: {text}: delete it, so that it is downloaded again") from error


def make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cache_failure(folder, error) from error


def cache_failure(path: Path, error: OSError) -> KansciError:
    return KansciError(
        f"cannot write {path}: {error.strerror or error}: make room or the folder writable, or unpack the official"
        " archive elsewhere and name that folder with --data-dir"
    )


class _Bar:
    """What pooch asks of a progress bar: `total` is set before the first `update`; `reset` comes before the last."""

    def __init__(self, progress: Progress, description: str) -> None:
        self.total = 0
        self._progress, self._description = progress, description
        self._bar: Bar | None = None
        self._closed = False

    def update(self, size: int) -> None:
        if self._closed:
            return
        if self._bar is None:
            self._bar = self._progress.task(self._description, self.total)
        self._bar.update(advance=size)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._closed = True

    reset = close  # pooch starts over to draw a full bar at the end; the bar is full already


def _is_network(error: OSError) -> bool:
    import requests

    return isinstance(error, (requests.RequestException, ConnectionError, TimeoutError))


def _reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"answered {response.status_code}"
    return "did not answer in time" if "timed out" in str(error).lower() else "cannot be reached"
