"""Finds the files of a data set: in a folder that the user names, in KANSCIML_DATA, or in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kansciml._errors import UsageError
from kansciml.tasks.data_folder import VARIABLE, Progress, cache_folder, named_folder

Member = tuple[str, ...]
"""The names one file may have, the first the one it is downloaded under."""


@dataclass(frozen=True)
class Source:
    """The files of one data set.

    Args:
        title: for messages.
        folders: names of the folder they are usually in, below the folder a user names; the first is used in the cache.
        archives: names of the official downloads, for a hint when one lies there still packed.
        fetch: fetch(folder, progress) downloads what is missing into a folder of the cache.
    """

    title: str
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    fetch: Callable[[Path, Progress | None], None]

    def locate(self, members: Sequence[Member], data_dir: Path | None, progress: Progress | None) -> list[Path]:
        """One path per member. A folder named by `data_dir` must hold them all; KANSCIML_DATA may lack the data set
        as a whole, since it is set once for many; what is nowhere is downloaded.

        Raises:
            UsageError: missing files; the message says which, where, and what to do.
            KansciError: the download failed.
        """
        if data_dir is not None:
            found = self._in(data_dir, members, "--data-dir")
            if found is None:
                raise self._absent(data_dir, members)
            return found
        named = named_folder()
        found = None if named is None else self._in(named, members, VARIABLE)
        if found is not None:
            return found
        folder = cache_folder() / "vision" / self.folders[0]
        if None in _paths(folder, members):
            self.fetch(folder, progress)
        return [path for path in _paths(folder, members) if path is not None]

    def _in(self, root: Path, members: Sequence[Member], origin: str) -> list[Path] | None:
        """The members below a user's folder: all of them in one folder, or None where there is none of them."""
        if not root.is_dir():
            raise UsageError(f"{origin} {root} is not a folder: expected one with the files of {self.title}")
        try:
            below = sorted(path for path in root.iterdir() if path.is_dir())
        except OSError as error:
            raise UsageError(f"{origin} {root} cannot be read: {error.strerror or error}") from error
        partial: tuple[Path, list[Path | None]] | None = None
        for folder in [root, *(root / name for name in self.folders), *below]:
            paths = _paths(folder, members)
            if None not in paths:
                return [path for path in paths if path is not None]
            if any(paths) and partial is None:
                partial = folder, paths
        if partial is None:
            return None
        missing = ", ".join(names[0] for names, path in zip(members, partial[1]) if path is None)
        raise UsageError(
            f"{partial[0]} holds {self.title} in part: {missing} missing: unpack the official archive there again"
        )

    def _absent(self, root: Path, members: Sequence[Member]) -> UsageError:
        for name in self.archives:
            if (root / name).is_file():
                return UsageError(f"--data-dir {root} holds {name} still packed: unpack it there (tar -xzf {name})")
        return UsageError(
            f"--data-dir {root} holds no {self.title}: expected {members[0][0]} there or one folder below;"
            " leave --data-dir out to download it"
        )


def _paths(folder: Path, members: Sequence[Member]) -> list[Path | None]:
    """For each member its path in `folder`, or None."""
    return [next((folder / name for name in names if (folder / name).is_file()), None) for names in members]
