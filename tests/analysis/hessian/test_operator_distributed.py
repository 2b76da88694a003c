"""Processes that share the data get the Hessian of all of it, and fail together."""

import socket
import subprocess
import sys

import pytest
import torch

PROGRAM = r"""
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from kansciml._errors import KansciError
from kansciml.analysis.hessian import HessianOperator, supervised

rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
loss = supervised(F.cross_entropy)

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, vectors = torch.randn(20, 4, dtype=torch.float64), torch.randn(43, 2, dtype=torch.float64)
    return net, x, torch.randint(3, (20,)), vectors

dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
net, x, y, vectors = build()
share = slice(0, 7) if rank == 0 else slice(7, 20)
operator = HessianOperator(net, loss, (x[share], y[share]), micro_batch=4 + rank, distributed=True)
found = [operator.matvec(vectors), operator.matvec(vectors[:, 0]), operator.gradient()]
whole = HessianOperator(net, loss, (x, y))
truth = [whole.matvec(vectors), whole.matvec(vectors[:, 0]), whole.gradient()]
worst = max(float((a - b).norm() / b.norm()) for a, b in zip(found, truth))
same_loss = abs(operator.loss_value() - whole.loss_value()) < 1e-14
prints = operator.fingerprint

def message(fn):
    try:
        fn()
    except KansciError as error:
        return str(error)
    return "nothing"

other = message(lambda: operator.matvec(vectors[:, rank]))
bad = x[share] if rank == 0 else x[share] / 0
failed = message(lambda: HessianOperator(net, loss, (bad, y[share]), distributed=True))
dropout = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train(rank == 0)
random = message(lambda: HessianOperator(dropout, loss, (x[share], y[share]), distributed=True))
open(out, "w").write("\n".join([f"{worst:.3e}", str(same_loss), prints, other, failed, random]))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed")
def test_two_processes_equal_one_and_fail_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = [tmp_path / f"{rank}.txt" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(port), str(file)], stderr=subprocess.PIPE, text=True
        )
        for rank, file in enumerate(files)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(file.exists() for file in files), errors
    first, second = (file.read_text().splitlines() for file in files)
    for worst, same_loss, *_ in (first, second):
        assert float(worst) <= 1e-12 and same_loss == "True"
    assert first[2] == second[2] and len(first[2]) == 64  # one fingerprint
    assert first[3] == second[3] and "different vectors" in first[3]
    assert "another process failed" in first[4] and "the loss is nan" in second[4]
    assert "evaluated twice" in first[5] and second[5] != "nothing"
