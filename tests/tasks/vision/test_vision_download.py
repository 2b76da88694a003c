"""Downloads from a server on this machine: verified, whole or absent, from the next mirror where one fails."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from kansciml import KansciError, UsageError
from kansciml.tasks.vision import _download


class Bars:
    """Remembers what a download shows."""

    def __init__(self) -> None:
        self.log: list[tuple] = []

    def task(self, description: str, total: float) -> Bars:
        self.log.append(("task", description, total))
        return self

    def update(self, advance: float) -> None:
        self.log.append(("update", advance))

    def close(self) -> None:
        self.log.append(("close",))


def serve_archive(tiny, server, content: bytes | None = None):
    """`tiny` as it is downloaded, with the checksum of the true archive whatever is served."""
    true = tiny.archive()
    (server.folder / "tiny.tar.gz").write_bytes(true if content is None else content)
    return tiny.files((f"{server.url}tiny.tar.gz",), hashlib.md5(true).hexdigest())


def test_missing_files_are_downloaded_once_and_only_the_named_ones_kept(tiny, server, no_data_of_this_machine) -> None:
    content = tiny.archive(extra=("tiny-bin/readme.html", "../outside", "/absolute", "tiny-bin/../../a.bin"))
    (server.folder / "tiny.tar.gz").write_bytes(content)
    files = tiny.files((f"{server.url}tiny.tar.gz",), hashlib.md5(content).hexdigest())
    bars = Bars()
    train = files.read(None, "train", bars)
    np.testing.assert_array_equal(train.labels, tiny.rows["train"][:, 1])
    np.testing.assert_array_equal(files.read(None, "test", None).labels, tiny.rows["test"][:, 1])
    assert server.asked == ["/tiny.tar.gz"]
    folder = no_data_of_this_machine / "tiny-bin"
    assert sorted(os.listdir(folder)) == ["a.bin", "b.bin", "t.bin"]
    assert os.listdir(no_data_of_this_machine) == ["tiny-bin"]
    assert bars.log[0] == ("task", "Tiny: tiny.tar.gz", len(content)) and bars.log[-1] == ("close",)
    assert sum(entry[1] for entry in bars.log if entry[0] == "update") >= len(content)


def test_a_file_of_the_cache_that_changed_is_noticed(tiny, server, no_data_of_this_machine) -> None:
    files = serve_archive(tiny, server)
    files.read(None, "train", None)
    path = no_data_of_this_machine / "tiny-bin" / "a.bin"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises(UsageError, match=r"a file is corrupt: delete the folder, to download it again"):
        files.read(None, "train", None)
    path.unlink()
    assert len(files.read(None, "train", None)) == 60
    assert len(server.asked) == 2


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: c[:-1] + b"\0"], ids=["truncated", "changed"])
def test_download_with_another_checksum_leaves_nothing(damage, tiny, server, no_data_of_this_machine) -> None:
    files = serve_archive(tiny, server, damage(tiny.archive() + b"x"))
    with pytest.raises(KansciError, match="another checksum, truncated or changed: try again later, or unpack") as e:
        files.read(None, "train", None)
    assert "\n" not in str(e.value) and not list(no_data_of_this_machine.iterdir())


def test_next_mirror_is_asked_and_all_failures_are_named(tiny_idx, server, no_data_of_this_machine) -> None:
    folder = server.folder / "good"
    folder.mkdir()
    for name, content in tiny_idx.content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    closed = "http://127.0.0.1:9/"  # the discard port: refused where nothing listens
    files = tiny_idx.files((f"{server.url}bad/", closed, f"{server.url}good/"))
    np.testing.assert_array_equal(files.read(None, "test", None).images[:, 0], tiny_idx.images)
    assert sorted(os.listdir(no_data_of_this_machine / "tiny")) == [f"{name}.gz" for name in tiny_idx.content]
    for path in (no_data_of_this_machine / "tiny").iterdir():
        path.unlink()
    with pytest.raises(KansciError) as caught:
        tiny_idx.files((f"{server.url}bad/", closed)).read(None, "test", None)
    assert "answered 404" in str(caught.value) and "127.0.0.1:9" in str(caught.value)
    assert "cannot be reached" in str(caught.value) and "--data-dir" in str(caught.value)


def test_interrupted_download_is_completed(tiny_idx, server, no_data_of_this_machine) -> None:
    """Of two files one is there already: only the other one is fetched."""
    for name, content in tiny_idx.content.items():
        (server.folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    files = tiny_idx.files((server.url,))
    files.read(None, "test", None)
    (no_data_of_this_machine / "tiny" / "x-labels-idx1-ubyte.gz").unlink()
    files.read(None, "test", None)
    assert server.asked[2:] == ["/x-labels-idx1-ubyte.gz"]


def test_archive_that_lacks_a_file_or_is_none(tiny, tmp_path: Path) -> None:
    archive = tmp_path / "tiny.tar.gz"
    members = ["tiny-bin/a.bin", "tiny-bin/t.bin"]
    whole = tiny.archive()
    for content, reason in (
        (tiny.archive(drop="t.bin"), "it has no file tiny-bin/t.bin"),
        (whole[: len(whole) // 2], "ended before"),
        (b"<html>", "could not be opened"),
    ):
        archive.write_bytes(content)
        with pytest.raises(KansciError, match=f"cannot be unpacked: .*{reason}.*: delete it") as caught:
            _download.unpack(archive, members, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]


def test_cache_that_cannot_be_made(tiny, server, no_data_of_this_machine) -> None:
    no_data_of_this_machine.parent.write_text("a file where the folder should be")
    with pytest.raises(KansciError, match="cannot write .*cache.*: .*--data-dir"):
        serve_archive(tiny, server).read(None, "train", None)


def test_poochs_logger_is_left_as_it_was(tiny, server, capfd: pytest.CaptureFixture[str]) -> None:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(17)
    try:
        serve_archive(tiny, server).read(None, "train", None)
        assert logger.level == 17
    finally:
        logger.setLevel(level)
    assert capfd.readouterr() == ("", "")
