"""Processes that change the grid together get the grid of all their inputs."""

import pytest
import torch
from support.torchrun import pair

PROGRAM = r"""
import copy, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from kansciml import KAN

rank, out = int(sys.argv[1]), f"{sys.argv[2]}/{sys.argv[1]}"
torch.manual_seed(0)
start, x = KAN((3, 4, 2), dtype=torch.float64), torch.randn(101, 3, dtype=torch.float64)
changes = {"update": lambda net, x: net.update_grid(x), "extend": lambda net, x: net.extend_grid(7, x)}
alone = {name: copy.deepcopy(start) for name in changes}
errors = {name: change(alone[name], x) for name, change in changes.items()}
dist.init_process_group("gloo")
single = [dist.new_group([0]), dist.new_group([1])][rank]
lines = []

def compare(name, net, truth, found=()):
    near = max(float((a - b).abs().max()) for a, b in zip(net.state_dict().values(), truth.state_dict().values()))
    told = max((abs(a.max_abs - b.max_abs) for a, b in zip(found, errors.get(name, ()))), default=0.0)
    others = [None, None]
    dist.all_gather_object(others, {key: value.numpy().tobytes() for key, value in net.state_dict().items()})
    lines.append(f"{name} {near < 1e-10 and told < 1e-10} {others[0] == others[1]}")

def message(fn):
    try:
        fn()
    except ValueError as error:
        return str(error)
    return "nothing"

for name, change in changes.items():
    for share in (x[:60] if rank == 0 else x[60:], x[: 101 * rank]):  # uneven, and none on one of them
        net = copy.deepcopy(start)
        compare(name, net, alone[name], change(net, share))
own = copy.deepcopy(start)
own.update_grid(x, group=single)
compare("single", own, alone["update"])
lines.append(message(lambda: own.update_grid(x if rank else x / 0)))
wrapped = DistributedDataParallel(own)
lines.append(message(lambda: own.extend_grid(10)))
del wrapped
own.extend_grid(10)
wrapped = DistributedDataParallel(own)
wrapped(x[rank::2]).sum().backward()
grads = [torch.empty_like(own.layers[0].spline_weight) for _ in range(2)]
dist.all_gather(grads, own.layers[0].spline_weight.grad)
lines.append(str(torch.equal(*grads)))
with open(out, "w") as file:
    file.write("\n".join(lines))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed")
def test_two_processes_get_the_knots_and_coefficients_of_one_with_all_inputs(tmp_path):
    pair(PROGRAM, tmp_path)
    for rank in (0, 1):
        lines = (tmp_path / str(rank)).read_text().splitlines()
        names = ["update"] * 2 + ["extend"] * 2 + ["single"]
        assert lines[:5] == [f"{name} True True" for name in names]
        assert "samples that are NaN or infinite" in lines[5]
        assert "that a DistributedDataParallel (or a loss of an earlier step) holds" in lines[6]
        assert lines[7] == "True"
