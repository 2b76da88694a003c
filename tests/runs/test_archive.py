"""Packed records: small, complete, equal wherever they are made, and never written over a run."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from kansciml import KansciError
from kansciml._files import write_json
from kansciml.runs.archive import CURVE, FALL, HISTORY, pack, unpack, with_parts
from kansciml.runs.records import Record, load_record, save_record

LENGTH = 5000


@pytest.fixture
def record(tmp_path):
    steps = np.arange(LENGTH)
    phase = (steps >= 1234).astype(np.int8)
    arrays = {
        "m.0.iteration": steps, "m.0.loss": np.exp(-steps / 700.0), "m.0.phase": phase,
        "m.0.params": np.full(3, 1 / 3), "m.0.line": np.stack([steps, steps], axis=1),
        "m.line_t": steps, "m.linear.0.params": 1.0 * steps,
    }  # fmt: skip
    made = Record(
        tmp_path / "results" / "demo" / "0123456789ab", "demo", {"seeds": 2, "run": str(tmp_path / "a" / "b")},
        "0123456789ab", "finished",
        result={"loss": 1 / 3}, arrays=arrays, machine={"platform": "Linux-6.1-x86_64", "cores": 2},
    )  # fmt: skip
    save_record(made)
    write_json(made.folder / "config.json", made.config)
    return load_record(made.folder)


def test_numbers_return_and_histories_keep_their_turning_points(record, tmp_path):
    path = pack(record, tmp_path / "packed")
    (folder,) = unpack(path.parent, tmp_path / "other")
    found = load_record(folder)
    assert folder == tmp_path / "other" / "demo" / "0123456789ab"
    assert (found.result, found.config, found.status) == (record.result, {"seeds": 2, "run": "a/b"}, "finished")
    assert str(tmp_path).encode() not in zipfile.ZipFile(path).read("config.json")
    assert found.machine == {"platform": "Linux", "cores": 2}
    kept = found.arrays["m.0.iteration"]
    assert len(kept) <= HISTORY + 4 + LENGTH / 700 / FALL
    assert {0, 1233, 1234, LENGTH - 1} <= {*kept.tolist()}
    np.testing.assert_allclose(found.arrays["m.0.loss"], record.arrays["m.0.loss"][kept], rtol=1e-7)
    np.testing.assert_array_equal(found.arrays["m.0.phase"], record.arrays["m.0.phase"][kept])
    np.testing.assert_allclose(found.arrays["m.0.params"], record.arrays["m.0.params"], rtol=1e-7)
    assert len(found.arrays["m.linear.0.params"]) == LENGTH  # of a network whose name begins like a curve's
    times = found.arrays["m.line_t"]
    assert len(times) <= CURVE + 1 and times[-1] == LENGTH - 1 and len({*np.diff(times[:-1]).tolist()}) == 1
    np.testing.assert_array_equal(found.arrays["m.0.line"], np.stack([times, times], axis=1))
    assert (folder / "config.json").exists()


def test_eigenvalues_keep_three_digits_losses_nine_and_others_seven(record, tmp_path):
    values = np.array([np.pi, -2e-30, 7e37, 0.0, -1.0, np.nan, np.inf, 0.1])
    arrays = {"m.0.eigenvalues": values, "m.0.params": values, "m.0.loss": values / 3}
    save_record(replace(record, arrays=arrays | {"scale": np.float32(np.pi), "curves": np.float32(np.pi)}))
    (folder,) = unpack(pack(load_record(record.folder), tmp_path / "packed").parent, tmp_path / "other")
    found = load_record(folder).arrays
    np.testing.assert_allclose(found["m.0.eigenvalues"], values, rtol=2.0**-11)
    np.testing.assert_array_equal(found["m.0.params"], values.astype(np.float32))
    np.testing.assert_allclose(found["m.0.loss"], values / 3, rtol=2.0**-31)
    assert found["scale"] == np.float32(np.pi) != found["m.0.eigenvalues"][0] == found["curves"]
    assert found["scale"].shape == found["curves"].shape == ()


def test_the_least_loss_so_far_is_known_at_every_row(record, tmp_path):
    loss = np.exp(-np.arange(LENGTH) / 300.0 + np.random.default_rng(0).normal(size=LENGTH))
    loss[[10, 4000]] = np.nan, np.inf
    save_record(replace(record, arrays={**record.arrays, "m.0.loss": loss}))
    (folder,) = unpack(pack(load_record(record.folder), tmp_path / "packed").parent, tmp_path / "other")
    found = load_record(folder).arrays
    kept, phase = found["m.0.iteration"], record.arrays["m.0.phase"]
    for own in (0, 1):
        whole = np.fmin.accumulate(loss[phase == own])
        rows = kept[phase[kept] == own]
        least = np.fmin.accumulate(found["m.0.loss"][phase[kept] == own])
        at = np.searchsorted(rows, np.flatnonzero(phase == own), side="right") - 1
        assert (at >= 0).all() and (least[at] <= whole / (1 - FALL) * (1 + 1e-6)).all()


def test_what_an_experiment_does_not_show_is_left_out(record, tmp_path):
    unshown = with_parts("line", "phase")(record)
    (folder,) = unpack(pack(record, tmp_path / "packed", unshown).parent, tmp_path / "other")
    assert set(load_record(folder).arrays) == set(record.arrays) - {"m.0.line", "m.0.phase"}


def test_equal_records_give_equal_files(record, tmp_path):
    assert pack(record, tmp_path / "a").read_bytes() == pack(record, tmp_path / "b").read_bytes()


def test_a_run_that_is_there_is_left_as_it_is(record, tmp_path):
    path = pack(record, tmp_path / "packed")
    save_record(replace(record, result={"loss": 2.0}))
    unpack(path.parent, tmp_path / "results")
    assert load_record(record.folder).result == {"loss": 2.0}


def test_a_run_that_is_not_finished_is_refused(record, tmp_path):
    with pytest.raises(KansciError, match="only finished runs"):
        pack(replace(record, status="interrupted"), tmp_path)


@pytest.mark.parametrize("place", [0.2, 0.6])
def test_a_file_that_was_damaged_is_one_line(record, tmp_path, place):
    path = pack(record, tmp_path / "packed")
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(KansciError, match="is no packed record"):
        unpack(path.parent, tmp_path / "other")


def test_what_is_no_packed_record_is_one_line(tmp_path):
    with pytest.raises(KansciError, match="no packed records"):
        unpack(tmp_path / "nothing", tmp_path)
    (tmp_path / "fig2-abc.zip").write_bytes(b"PK no")
    with pytest.raises(KansciError, match=r"fig2-abc\.zip is no packed record"):
        unpack(tmp_path, tmp_path)
    with zipfile.ZipFile(tmp_path / "fig2-abc.zip", "w") as archive:
        archive.writestr("../record.json", "{}")
    with pytest.raises(KansciError, match="lacks record"):
        unpack(tmp_path, tmp_path / "out")
