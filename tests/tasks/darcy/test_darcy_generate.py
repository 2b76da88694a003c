"""Generation: the same samples however they are made, resumed after any end, and never a file that is not whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kansciml import KansciError, UsageError
from kansciml.tasks.darcy import _generate
from kansciml.tasks.darcy._shards import MANIFEST, Manifest, write_shard
from kansciml.tasks.darcy.coefficient import coefficient
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.dataset import dataset_folder, generate, load
from kansciml.tasks.darcy.solver import solve_lu


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Bar:
    """A progress bar that remembers, and stops the work after so many samples."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after, self.done, self.closed = stop_after, 0, False

    def task(self, description: str, total: float) -> Bar:
        self.total = total
        return self

    def update(self, advance: int = 0, completed: int | None = None) -> None:
        self.done = self.done + advance if completed is None else completed
        if self.done >= self.stop_after:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


def test_a_sample_is_the_subsampled_solution_at_full_resolution(config, tmp_path) -> None:
    done = generate(config, dataset_folder(config, tmp_path))
    assert (done.made, done.kept) == (47, 0)
    for split in ("train", "test"):
        data = load(config, tmp_path, split)
        assert len(data) == config.count(split) and data.size == 5 and data.a.dtype == data.u.dtype == np.float32
        for i in (0, len(data) - 1):
            a = coefficient(config, split, i)
            u = solve_lu(a, config.forcing)
            np.testing.assert_array_equal(data.a[i], a[::5, ::5])
            np.testing.assert_allclose(data.u[i], u[::5, ::5], rtol=0, atol=1e-7 * u.max())
    assert not np.array_equal(load(config, tmp_path).a[:7], load(config, tmp_path, "test").a)


@pytest.mark.slow
def test_workers_make_the_same_files(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_generate, "SMALL", 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for workers in (1, 2):
        generate(config, tmp_path / str(workers), workers)
    assert files(tmp_path / "1") == files(tmp_path / "2") and len(files(tmp_path / "1")) == 4
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_samples_do_not_depend_on_how_many_there_are(config, tmp_path) -> None:
    """And a data set that grows keeps what it has; one that is asked for less stays as it is."""
    generate(config, dataset_folder(config, tmp_path))
    small = load(config, tmp_path)
    more = replace(config, n_train=70)
    assert dataset_folder(more, tmp_path) == dataset_folder(config, tmp_path)
    done = generate(more, dataset_folder(more, tmp_path))
    assert (done.made, done.kept) == (38, 39)  # the second shard was short
    grown = load(more, tmp_path)
    np.testing.assert_array_equal(grown.a[:40], small.a)
    np.testing.assert_array_equal(grown.u[:40], small.u)
    names = sorted(files(done.folder))
    assert names == [
        MANIFEST,
        "test-00000-00007.npz",
        *(f"train-000{r}.npz" for r in ("00-00032", "32-00064", "64-00070")),
    ]
    assert generate(config, done.folder).made == 0
    np.testing.assert_array_equal(load(config, tmp_path).u, small.u)
    generate(more, tmp_path / "at once")
    assert files(tmp_path / "at once") == files(done.folder)


def test_an_interrupted_generation_goes_on(config, tmp_path) -> None:
    generate(config, tmp_path / "whole")
    bar = Bar(stop_after=36)
    with pytest.raises(KeyboardInterrupt):
        generate(config, tmp_path / "part", progress=bar)
    assert bar.closed and sorted(files(tmp_path / "part")) == [MANIFEST, "train-00000-00032.npz"]
    bar = Bar()
    done = generate(config, tmp_path / "part", progress=bar)
    assert (done.made, done.kept, bar.done, bar.total) == (15, 32, 47, 47)
    assert files(tmp_path / "part") == files(tmp_path / "whole")


KILLED = """
from pathlib import Path
from kansciml.tasks.darcy.dataset import DarcyConfig, generate
if __name__ == "__main__":
    generate(DarcyConfig(resolution=61, subsample=5, n_train=40000, n_test=0), Path({folder!r}), workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")
def test_a_killed_generation_goes_on_and_leaves_no_process_behind(tmp_path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "data"
    script.write_text(KILLED.format(folder=str(folder)))
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 120
    while len(list(folder.glob("train-*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)
    config = DarcyConfig(resolution=61, subsample=5, n_train=0, n_test=0)
    config = replace(config, n_train=Manifest.read(folder, config).available("train"))
    assert config.n_train >= 32 and generate(config, folder).kept == config.n_train
    generate(replace(config, n_train=2), tmp_path / "alone")
    first = np.load(tmp_path / "alone" / "train-00000-00002.npz")
    again = np.load(folder / "train-00000-00032.npz")
    np.testing.assert_array_equal(again["u"][:2], first["u"])


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["missing", "truncated", "a flipped bit"])
def test_a_damaged_file_is_found_and_made_anew(kind, config, tmp_path) -> None:
    folder = generate(config, dataset_folder(config, tmp_path)).folder
    whole = files(folder)
    path = folder / "train-00032-00040.npz"
    damage(path, kind)
    with pytest.raises(KansciError, match="is (missing|corrupt).*: generate the data set again, which makes") as caught:
        load(config, tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    load(config, tmp_path, "test")
    lines = []
    done = generate(config, folder, log=lines.append)
    assert (done.made, done.kept) == (8, 39) and len(lines) == 1 and str(path) in lines[0]
    assert files(folder) == whole


def test_a_file_that_the_manifest_does_not_know_is_not_trusted(config, tmp_path) -> None:
    """As after a kill between writing a file and the manifest."""
    generate(config, tmp_path / "whole")
    write_shard(tmp_path / "part", "train", 0, *np.zeros((2, 32, 5, 5), np.float32))
    assert generate(config, tmp_path / "part").made == 47
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_two_processes_may_fill_one_folder(config, tmp_path) -> None:
    generate(config, tmp_path / "whole")
    first, second = (Manifest.read(tmp_path / "part", config) for _ in range(2))
    for manifest, (split, start) in ((first, ("train", 0)), (second, ("test", 0)), (first, ("train", 32))):
        shard = Manifest.read(tmp_path / "whole", config).shards[split, start]
        with np.load(tmp_path / "whole" / shard.name) as arrays:
            manifest.add(write_shard(tmp_path / "part", split, start, arrays["a"], arrays["u"]))
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_the_manifest_says_what_the_folder_holds(config, tmp_path) -> None:
    generate(config, tmp_path)
    document = json.loads((tmp_path / MANIFEST).read_text())
    assert document["settings"] == config.settings() and document["size"] == 5
    assert document["samples"] == {"train": 40, "test": 7}
    assert [entry["file"] for entry in document["shards"]] == sorted(
        (path.name for path in tmp_path.glob("*.npz")), key=lambda name: (name.startswith("test"), name)
    )
    assert document["made_with"]["numpy"] == np.__version__


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "settings": {}, "shards": [3]}'])
def test_a_broken_manifest_is_one_clear_line(text, config, tmp_path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UsageError, match="cannot be read as the manifest.*delete the folder"):
        generate(config, tmp_path)


def test_a_folder_of_other_settings_is_refused(config, tmp_path) -> None:
    generate(replace(config, n_train=1, n_test=0), tmp_path)
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"holds a Darcy data set with subsample 5, low 3.0, not the one asked for"):
        generate(replace(config, subsample=4, low=1.0), tmp_path)
    assert files(tmp_path) == before


def test_what_cannot_be_written_and_bad_numbers_of_workers(config, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KansciError, match="cannot write"):
        generate(config, tmp_path / "file")
    for workers in (0, -1):
        with pytest.raises(UsageError, match=f"got workers {workers}: expected a positive number"):
            generate(config, tmp_path, workers)
    monkeypatch.setenv("KANSCIML_WORKERS", "many")
    with pytest.raises(UsageError, match="got KANSCIML_WORKERS='many'"):
        generate(config, tmp_path)
    monkeypatch.setenv("KANSCIML_WORKERS", "3")
    assert _generate.worker_count() == 3 and _generate.worker_count(2) == 2
    monkeypatch.delenv("KANSCIML_WORKERS")
    assert _generate.worker_count() >= 1


@pytest.mark.slow
def test_a_worker_that_dies_is_one_clear_line(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_generate, "SMALL", 0)
    monkeypatch.setattr(_generate, "make_sample", _die)
    with pytest.raises(KansciError, match="a worker process died"):
        generate(config, tmp_path, workers=2)


def _die(*job) -> None:
    os._exit(3)
