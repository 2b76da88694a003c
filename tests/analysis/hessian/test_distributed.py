"""Two processes that share the data get the Hessian of all of it; others share out probes; they fail together."""

import json

import numpy as np
import pytest
import torch
from support.hessians import operator_with
from support.torchrun import pair

from kansciml.analysis.hessian import matrix_of, spectral_density

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed"),
]
SETTINGS = {"steps": 20, "probes": 5, "seed": 3, "deflate": 3}
PROGRAM = r"""
import json, sys
import numpy as np
import torch, torch.distributed as dist
from support.hessians import F64, classes, cross_entropy, operator_with, perceptron
from torch import nn
from kansciml import KansciError
from kansciml.analysis.hessian import HessianOperator, matrix_of, spectral_density

rank, folder, settings = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo")
torch.set_num_threads(1)

def message(fn):
    try:
        fn()
    except KansciError as error:
        return str(error)
    return ""

# the processes share the data
torch.manual_seed(0)
net, (x, y), vectors = perceptron().double(), classes(20, dtype=F64), torch.randn(43, 2, dtype=F64)
share = slice(0, 7) if rank == 0 else slice(7, 20)
operator = HessianOperator(net, cross_entropy, (x[share], y[share]), micro_batch=4 + rank, distributed=True)
found = [operator.matvec(vectors), operator.matvec(vectors[:, 0]), operator.gradient()]
whole = HessianOperator(net, cross_entropy, (x, y))
truth = [whole.matvec(vectors), whole.matvec(vectors[:, 0]), whole.gradient()]
said = {"worst": max(float((a - b).norm() / b.norm()) for a, b in zip(found, truth))}
said["same_loss"] = abs(operator.loss_value() - whole.loss_value()) < 1e-14
said["fingerprint"] = operator.fingerprint
said["other_vectors"] = message(lambda: operator.matvec(vectors[:, rank]))
bad = x[share] if rank == 0 else x[share] / 0
said["bad"] = message(lambda: HessianOperator(net, cross_entropy, (bad, y[share]), distributed=True))
dropout = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train(rank == 0)
said["random"] = message(lambda: HessianOperator(dropout, cross_entropy, (x[share], y[share]), distributed=True))

# the processes share out probes and columns
operator, products = operator_with(range(60)), [0]
product = operator.matvec
def matvec(vector):
    products[0] += 1
    return product(vector)
operator.matvec = matvec
said["progress"] = []
def probes(**changed):  # the file of the other process does not exist: only the first reads and writes
    return spectral_density(operator, checkpoint=f"{folder}/rank{rank}.npz", **{**settings, **changed})
found = probes(progress=lambda *at: said["progress"].append(at))
np.savez(f"{folder}/found{rank}.npz", **found.to_arrays())
said["products"] = products[0]
said["matrix"] = matrix_of(operator).tolist()
said["other_seed"] = message(lambda: probes(seed=9))
operator.matvec = lambda vector: vector * (float("nan") if rank else 1.0)
said["failed"] = message(lambda: spectral_density(operator, **{**settings, "deflate": 0}))
with open(f"{folder}/said{rank}.json", "w") as file:
    json.dump(said, file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes wrote down."""
    folder = tmp_path_factory.mktemp("distributed")
    pair(PROGRAM, folder, json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def said(folder):
    return [json.loads((folder / f"said{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_that_share_the_data_equal_one_and_fail_together(said):
    first, second = said
    for one in said:
        assert one["worst"] <= 1e-12 and one["same_loss"]
    assert first["fingerprint"] == second["fingerprint"] and len(first["fingerprint"]) == 64
    assert first["other_vectors"] == second["other_vectors"] and "different vectors" in first["other_vectors"]
    assert "another process failed" in first["bad"] and "the loss is nan" in second["bad"]
    assert "evaluated twice" in first["random"] and second["random"]


def test_two_processes_split_the_probes_and_equal_one(folder, said):
    alone = spectral_density(operator_with(range(60)), **SETTINGS).to_arrays()
    for rank in range(2):
        with np.load(folder / f"found{rank}.npz") as found:
            assert all(np.array_equal(found[name], value) for name, value in alone.items())
    assert said[0]["products"] - said[1]["products"] == SETTINGS["steps"]  # three probes and two
    assert said[0]["progress"] == [[0, 5], [2, 5], [4, 5], [5, 5]] and said[1]["progress"] == []
    assert "saved with seed" in said[0]["other_seed"] and "process 0" in said[1]["other_seed"]
    assert "failed in process 1" in said[0]["failed"] and "NaN" in said[1]["failed"]
    assert not (folder / "rank1.npz").exists()


def test_two_processes_form_one_matrix(said):
    alone = matrix_of(operator_with(range(60)))
    assert all(torch.equal(torch.tensor(one["matrix"], dtype=torch.float64), alone) for one in said)
