"""Results on disk: whole or absent, strict JSON, and one clear line for whatever is wrong with them."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from kansciml import KansciError
from kansciml import _files as files
from kansciml.runs.records import Record, find_records, load_record, load_records, save_record


@pytest.fixture
def saved(tmp_path):
    record = Record(
        folder=tmp_path / "demo" / "abc",
        experiment="demo",
        config={"seeds": 2},
        config_hash="abc",
        status="finished",
        result={"loss": float("nan"), "n": np.int64(3), "ok": np.True_, "curve": np.array([1.0, np.inf])},
        arrays={"a.loss": np.array([1.0, np.nan]), "a.phase": np.zeros(2, dtype=np.int8)},
        seeds=(0, 1),
    )
    save_record(record)
    return record


def test_round_trip(saved):
    record = load_record(saved.folder)
    assert record.result == {"loss": None, "n": 3, "ok": True, "curve": [1.0, None]}
    np.testing.assert_array_equal(record.arrays["a.loss"], [1.0, np.nan])
    assert record.arrays["a.phase"].dtype == np.int8
    assert (record.experiment, record.config, record.seeds, record.status) == ("demo", {"seeds": 2}, (0, 1), "finished")


def test_folder_may_be_moved(saved, tmp_path):
    moved = saved.folder.rename(tmp_path / "elsewhere")
    assert load_record(moved).folder == moved and str(tmp_path) not in (moved / "record.json").read_text()


def cut(name, keep):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])

    return damage


def field(name, value):
    def damage(folder):
        content = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps({**content, name: value}))

    return damage


def other_schema(folder):
    content = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**content, "schema": 99}))


def foreign_arrays(folder):
    np.savez(folder / "arrays.npz", other=np.zeros(1))


def pickled_arrays(folder):
    np.savez(folder / "arrays.npz", **{"a.loss": np.array([{}], dtype=object), "a.phase": np.zeros(1)})


def single_array(folder):
    with open(folder / "arrays.npz", "wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "record.json").unlink(), "no record at .*run the experiment first"),
        (cut("record.json", 0.5), "record.json is damaged .*run again with --force"),
        (cut("record.json", 0.0), "record.json is damaged"),
        (lambda folder: (folder / "record.json").write_bytes(b"\xff\xfe{"), "record.json is damaged"),
        (lambda folder: (folder / "record.json").write_text("[]"), "expected a JSON object, got a list"),
        (lambda folder: (folder / "record.json").write_text('{"schema": 1}'), "damaged .no 'experiment'"),
        (field("config", None), "record.json is damaged .config: got null, expected an object"),
        (field("result", []), "result: got"),
        (field("seeds", ["0"]), "seeds.0.: got '0', expected an integer"),
        (field("wall_s", "1"), "wall_s: got"),
        (field("status", "done"), "status is"),
        (lambda folder: (folder / "record.json").write_text("[" * 100_000), "record.json is damaged"),
        (other_schema, "has schema 99: this version reads schema 1"),
        (cut("arrays.npz", 0.5), "arrays.npz is damaged"),
        (cut("arrays.npz", 0.0), "arrays.npz is damaged"),
        (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz is damaged .the file is missing"),
        (foreign_arrays, "arrays.npz is damaged .it does not hold the arrays"),
        (single_array, "arrays.npz is damaged .it is not an npz archive"),
        (pickled_arrays, "arrays.npz is damaged .*allow_pickle"),
    ],
)
def test_damage_is_one_clear_line(saved, damage, message):
    damage(saved.folder)
    with pytest.raises(KansciError, match=message) as caught:
        load_record(saved.folder)
    assert "\n" not in str(caught.value)


def test_changed_bytes_inside_the_arrays_are_noticed(saved):
    path = saved.folder / "arrays.npz"
    data = bytearray(path.read_bytes())
    data[80] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(KansciError, match=r"arrays.npz is damaged"):
        load_record(saved.folder)


class TestWriting:
    def test_full_disk_keeps_the_old_file_and_leaves_no_litter(self, tmp_path, monkeypatch):
        path = files.write_text(tmp_path / "record.json", "old")

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(KansciError, match=r"cannot write .*record.json: No space left.*: free some space"):
            files.write_text(path, "new")
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
    def test_read_only_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(KansciError, match="Permission denied: choose a results folder that you may write to"):
            files.write_text(tmp_path / "a", "text")

    def test_a_file_where_a_folder_should_be(self, tmp_path):
        (tmp_path / "results").write_text("")
        with pytest.raises(KansciError, match=r"cannot write .*: a file and a folder want the same name"):
            files.write_text(tmp_path / "results" / "demo" / "a", "text")

    def test_unknown_type_is_refused(self):
        with pytest.raises(TypeError, match="got a complex"):
            files.to_jsonable({"a": 1j})


class TestMetrics:
    def test_line_cut_short_by_a_kill_is_ended_not_glued_to_the_next(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        files.append_json_line(path, {"loss": 1.0})
        path.write_text(path.read_text() + '{"loss": 0.')
        files.append_json_line(path, {"loss": float("inf")})
        assert path.read_text().splitlines() == ['{"loss": 1.0}', '{"loss": 0.', '{"loss": null}']


def test_a_damaged_record_is_named_and_the_others_are_read(saved, tmp_path):
    save_record(Record(tmp_path / "demo" / "bad", "demo", {}, "bad", "finished"))
    field("config", None)(tmp_path / "demo" / "bad")
    told = []
    found = list(load_records(find_records(tmp_path, "demo"), told.append))
    assert [record.config_hash for record in found] == ["abc"]
    assert len(told) == 1 and told[0].startswith("left out: ") and "bad/record.json" in told[0]


def test_find_records_lists_the_newest_first(tmp_path):
    for age, name in ((30, "old"), (10, "new"), (20, "middle")):
        save_record(Record(tmp_path / "demo" / name, "demo", {}, name, "finished"))
        stamp = 1_700_000_000 - age
        os.utime(tmp_path / "demo" / name / "record.json", (stamp, stamp))
    (tmp_path / "demo" / "empty").mkdir()
    assert [path.name for path in find_records(tmp_path, "demo")] == ["new", "middle", "old"]
    assert find_records(tmp_path, "other") == []
