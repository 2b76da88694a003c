"""Reading the official binary layouts, wherever they lie, and refusing what is damaged."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.vision import _cifar_binary
from kansciml.tasks.vision._cifar_binary import fingerprint


def read_error(files, root: Path, split: str = "train") -> str:
    with pytest.raises(UsageError) as caught:
        files.read(root, split, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_cifar_records_are_read_as_they_were_written(chunk: int, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cifar_binary, "CHUNK", chunk)
    for split in ("train", "test"):
        data = tiny.files().read(tiny.folder, split, None)
        np.testing.assert_array_equal(data.labels, tiny.rows[split][:, 1])
        np.testing.assert_array_equal(data.images.reshape(len(data), -1), tiny.rows[split][:, 2:])
        assert data.images.shape[1:] == (3, 32, 32) and data.images.flags.writeable


def test_fingerprint_does_not_depend_on_order_but_on_every_byte_and_on_pairing() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    assert fingerprint(rows[::-1]) == fingerprint(rows)
    changed = rows.copy()
    changed[17, 33] ^= 1
    swapped = rows.copy()
    swapped[[3, 4], 0] = swapped[[4, 3], 0]
    assert len({fingerprint(rows), fingerprint(changed), fingerprint(swapped)}) == 3


def test_records_in_another_order_are_the_same_data_set(tiny) -> None:
    rows = tiny.rows["train"][np.random.default_rng(1).permutation(60)]
    rows[:30].tofile(tiny.folder / "a.bin")
    rows[30:].tofile(tiny.folder / "b.bin")
    np.testing.assert_array_equal(tiny.files().read(tiny.folder, "train", None).labels, rows[:, 1])


def test_one_flipped_bit_is_noticed(tiny) -> None:
    rows = tiny.rows["train"][:30].copy()
    rows[5, 1000] ^= 1
    rows.tofile(tiny.folder / "a.bin")
    message = read_error(tiny.files(), tiny.folder)
    assert "not the official ones, a file is corrupt" in message and str(tiny.folder) in message
    tiny.files(checked=False).read(tiny.folder, "train", None)
    tiny.files().read(tiny.folder, "test", None)


def test_truncated_cifar_file(tiny) -> None:
    path = tiny.folder / "b.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} has {30 * 3074 - 1} bytes, expected {30 * 3074}: truncated" in read_error(tiny.files(), tiny.folder)


@pytest.mark.parametrize("place", [".", "tiny-bin", "elsewhere"])
def test_folder_itself_and_one_level_below(place: str, tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "root" / place)
    assert len(tiny.files().read(tmp_path / "root", "train", None)) == 60


def test_named_folder_without_the_files(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named by the user holds the data or is an error: another place is not taken silently."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("KANSCIML_DATA", str(tiny.folder))
    assert len(tiny.files().read(None, "test", None)) == 12
    assert "holds no Tiny: expected a.bin there or one folder below" in read_error(tiny.files(), empty)
    (empty / "tiny.tar.gz").write_bytes(tiny.archive())
    assert "holds tiny.tar.gz still packed: unpack it there (tar -xzf" in read_error(tiny.files(), empty)
    assert "absent is not a folder" in read_error(tiny.files(), tmp_path / "absent")


def test_half_a_data_set_names_what_is_missing(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.folder / "b.bin").unlink()
    assert "holds Tiny in part: b.bin missing" in read_error(tiny.files(), tiny.folder.parent)
    monkeypatch.setenv("KANSCIML_DATA", str(tiny.folder))
    with pytest.raises(UsageError, match="b.bin missing"):
        tiny.files().read(None, "train", None)
    assert len(tiny.files().read(None, "test", None)) == 12


def test_variable_that_names_no_folder(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANSCIML_DATA", str(tiny.folder / "t.bin"))
    with pytest.raises(UsageError, match=r"KANSCIML_DATA .*t.bin is not a folder"):
        tiny.files().read(None, "test", None)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("place", [".", "tiny", "TINY/raw", "elsewhere"])
def test_idx_files_in_every_layout(packed: bool, dotted: bool, place: str, tiny_idx) -> None:
    tiny_idx.write(tiny_idx.folder / place, packed, dotted)
    data = tiny_idx.files().read(tiny_idx.folder, "test", None)
    np.testing.assert_array_equal(data.images, tiny_idx.images[:, None])
    np.testing.assert_array_equal(data.labels, tiny_idx.labels)
    assert data.labels.dtype == np.int64 and data.images.flags.writeable


def test_another_data_set_of_the_same_names_beside_it_is_not_taken(tiny_idx) -> None:
    """Fashion-MNIST's files have the names of MNIST's: the usual folder comes before any other."""
    files = tiny_idx.files()
    tiny_idx.write(tiny_idx.folder / "tiny", packed=False)
    tiny_idx.content = {name: content[:-1] + b"\0" for name, content in tiny_idx.content.items()}
    tiny_idx.write(tiny_idx.folder / "a-fashion", packed=False)
    np.testing.assert_array_equal(files.read(tiny_idx.folder, "test", None).images[:, 0], tiny_idx.images)
    shutil.rmtree(tiny_idx.folder / "tiny")
    assert "of another data set: its SHA-256" in read_error(files, tiny_idx.folder, "test")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"<html>not found"],
)
def test_damaged_idx_file(damage, packed: bool, tiny_idx) -> None:
    files = tiny_idx.files()
    name = "x-images-idx3-ubyte"
    tiny_idx.content[name] = damage(tiny_idx.content[name])
    tiny_idx.write(tiny_idx.folder, packed)
    message = read_error(files, tiny_idx.folder, "test")
    assert "corrupt or of another data set" in message
    assert name in message and message.endswith("delete it and fetch it again")


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-10], lambda c: b"\0" + c[1:], lambda c: c[:30] + b"\xff" * 20 + c[50:]]
)
def test_damaged_gzip_of_an_idx_file(damage, tiny_idx) -> None:
    tiny_idx.write(tiny_idx.folder, packed=True)
    path = tiny_idx.folder / "x-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(tiny_idx.content["x-images-idx3-ubyte"])))
    assert f"{path} cannot be read" in read_error(tiny_idx.files(), tiny_idx.folder, "test")
