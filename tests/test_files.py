"""Names of files that file systems take, and one line for whatever they do not."""

import errno
import os

import pytest

from kansciml import KansciError, UsageError
from kansciml._errors import check_seed, printable
from kansciml._files import failure_of, list_folder, short_name, write_bytes, write_text
from kansciml._workers import worker_count


@pytest.mark.parametrize("name", ["lotka", "my data", "caf\u00e9", "x" * 100])
def test_a_name_that_fits_stays_as_it_is(name):
    assert short_name(name) == name


@pytest.mark.parametrize("name", ["x" * 101, "\u00e9" * 51, "a/b", "a\nb", "a\udcffb", ".csv", "a\\b"])
def test_any_other_becomes_one_that_fits_and_is_told_from_its_like(name):
    made, other = short_name(name), short_name(f"{name}.")
    assert made != other and len(os.fsencode(made)) <= 100 and made.isprintable()
    assert not set("/\\") & set(made) and not made.startswith(".") and short_name(made) == made


def test_the_longest_name_of_a_file_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".csv")
    assert write_text(path, "text \udcff").read_bytes() == rb"text \udcff"
    with pytest.raises(UsageError, match="longer than the file system takes: choose a shorter one"):
        write_text(tmp_path / ("x" * 256), "text")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(tmp_path / "pipe", b"data")
    assert os.read(reader, 10) == b"data" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.parametrize(
    "number, kind, remedy",
    [
        (errno.ENAMETOOLONG, UsageError, "choose a shorter one"),
        (errno.EISDIR, UsageError, "it is a folder: expected a file"),
        (errno.ENOTDIR, UsageError, "want the same name"),
        (errno.EACCES, KansciError, "check its permissions"),
        (errno.ENOSPC, KansciError, "free some space"),
        (errno.EROFS, KansciError, "check its permissions"),
    ],
)
def test_a_name_that_is_wrong_is_the_request_s_fault_and_all_else_the_machine_s(number, kind, remedy):
    found = failure_of(OSError(number, os.strerror(number), "some/file"))
    assert type(found) is kind and "some/file" in str(found) and remedy in str(found)


def test_a_folder_is_listed_and_a_file_in_its_place_is_one_line(tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert [path.name for path in list_folder(tmp_path)] == ["a", "b"] and list_folder(tmp_path / "none") == []
    with pytest.raises(UsageError, match="is a file: expected a folder"):
        list_folder(tmp_path / "a")


def test_a_line_is_one_line():
    assert printable("a\nb\udcff\x1b[1m \u00e9") == "a\\nb\\udcff\\x1b[1m \u00e9"


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None, True])
def test_a_seed_that_no_generator_takes_is_one_line(seed):
    with pytest.raises(UsageError, match="expected an integer from 0 on"):
        check_seed(seed)


@pytest.mark.parametrize("text", ["", " ", "0", "-1", "many", "\u00b2", "1.5"])
def test_a_number_of_workers_that_is_none_is_one_line(monkeypatch, text):
    monkeypatch.setenv("KANSCIML_WORKERS", text)
    with pytest.raises(UsageError, match=f"got KANSCIML_WORKERS={text!r}: expected a positive number"):
        worker_count()
