"""Probes saved, resumed, extended, and split over processes: always the same bits as in one go."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from kansciml._errors import KansciError, UsageError
from kansciml.analysis.hessian.spectrum import spectral_density
from kansciml.analysis.hessian.symmetric import MatrixOperator

SETTINGS = {"steps": 20, "probes": 4, "seed": 3, "deflate": 3}


def operator(seed=0, fails_after=None):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    made = MatrixOperator(matrix + matrix.T)
    if fails_after is not None:
        product, left = made.matvec, [fails_after]

        def matvec(vector):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return product(vector)

        made.matvec = matvec
    return made


def same(a, b):
    return all(np.array_equal(value, b.to_arrays()[name]) for name, value in a.to_arrays().items())


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    path = tmp_path / "folder" / "probes.npz"
    whole = spectral_density(operator(), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        spectral_density(operator(fails_after=80), checkpoint=path, **SETTINGS)
    assert [p.name for p in path.parent.iterdir()] == ["probes.npz"]
    seen = []
    resumed = spectral_density(operator(), checkpoint=path, progress=lambda *at: seen.append(at), **SETTINGS)
    assert 0 < seen[0][0] < 4 and seen[-1] == (4, 4)
    assert same(whole, resumed)


def test_more_probes_continue_a_saved_run_and_fewer_read_it(tmp_path):
    path = tmp_path / "probes.npz"
    spectral_density(operator(), checkpoint=path, **SETTINGS)
    seen = []
    more = spectral_density(
        operator(), checkpoint=path, progress=lambda *at: seen.append(at), **{**SETTINGS, "probes": 6}
    )
    assert seen == [(4, 6), (5, 6), (6, 6)]
    assert same(more, spectral_density(operator(), **{**SETTINGS, "probes": 6}))
    before = path.read_bytes()
    fewer = spectral_density(operator(), checkpoint=path, **{**SETTINGS, "probes": 2})
    assert np.array_equal(fewer.alpha, more.alpha[:2]) and path.read_bytes() == before


@pytest.mark.parametrize("change", [{"steps": 21}, {"seed": 4}, {"deflate": 2}])
def test_other_settings_are_refused_in_one_line(tmp_path, change):
    spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **SETTINGS)
    with pytest.raises(UsageError, match=f"saved with {next(iter(change))} = ") as caught:
        spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **{**SETTINGS, **change})
    assert "\n" not in str(caught.value)


def test_another_operator_is_refused_in_one_line(tmp_path):
    spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **SETTINGS)
    with pytest.raises(UsageError, match="saved with fingerprint"):
        spectral_density(operator(seed=1), checkpoint=tmp_path / "probes.npz", **SETTINGS)


@pytest.mark.parametrize("content", [b"", b"not a zip file", "pickle", "arrays"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "probes.npz"
    if content == "pickle":
        np.savez(path, format=np.array([object()]))
    elif content == "arrays":
        np.savez(path, table=np.ones(3))
    else:
        path.write_bytes(content)
    with pytest.raises(KansciError, match="not a saved spectrum"):
        spectral_density(operator(), checkpoint=path, **SETTINGS)


def test_each_probe_depends_on_seed_and_index_alone():
    few, many = (spectral_density(operator(), **{**SETTINGS, "probes": count}) for count in (2, 5))
    other = spectral_density(operator(), **{**SETTINGS, "seed": 4})
    assert np.array_equal(few.alpha, many.alpha[:2])
    assert not np.array_equal(many.alpha[:4], other.alpha)
    assert len({row.tobytes() for row in many.alpha}) == 5


PROGRAM = r"""
import json, sys
import numpy as np
import torch, torch.distributed as dist
from kansciml._errors import KansciError
from kansciml.analysis.hessian.spectrum import spectral_density
from kansciml.analysis.hessian.symmetric import MatrixOperator

rank, port, folder, settings = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
torch.set_num_threads(1)
matrix = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
operator, products = MatrixOperator(matrix + matrix.T), [0]
product = operator.matvec
def matvec(vector):
    products[0] += 1
    return product(vector)
operator.matvec = matvec
seen = []
# the file of the other process does not exist: only the first reads and writes
found = spectral_density(
    operator, checkpoint=f"{folder}/rank{rank}.npz", progress=lambda *at: seen.append(at), **settings
)
np.savez(f"{folder}/found{rank}.npz", **found.to_arrays())
message = ""
try:
    spectral_density(operator, checkpoint=f"{folder}/rank{rank}.npz", **{**settings, "seed": 9})
except KansciError as error:
    message = str(error)
failed = ""
operator.matvec = lambda vector: vector * (float("nan") if rank else 1.0)
try:
    spectral_density(operator, **{**settings, "deflate": 0})
except KansciError as error:
    failed = str(error)
json.dump([products[0], seen, message, failed], open(f"{folder}/said{rank}.json", "w"))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed")
def test_two_processes_split_the_probes_and_equal_one(tmp_path):
    settings = {**SETTINGS, "probes": 5}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", PROGRAM]
    running = [
        subprocess.Popen([*command, str(rank), port, str(tmp_path), json.dumps(settings)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = spectral_density(operator(), **settings).to_arrays()
    torch.set_num_threads(threads)
    said = [json.loads((tmp_path / f"said{rank}.json").read_text()) for rank in range(2)]
    for rank in range(2):
        with np.load(tmp_path / f"found{rank}.npz") as found:
            assert all(np.array_equal(found[name], value) for name, value in alone.items())
    assert said[0][0] - said[1][0] == settings["steps"]  # three probes and two
    assert said[0][1] == [[0, 5], [2, 5], [4, 5], [5, 5]] and said[1][1] == []
    assert "saved with seed" in said[0][2] and "process 0" in said[1][2]
    assert "failed in process 1" in said[0][3] and "NaN" in said[1][3]
    assert not (tmp_path / "rank1.npz").exists()
