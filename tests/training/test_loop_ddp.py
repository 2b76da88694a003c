"""Two processes compute what one does: the same loss, weights and running statistics for the same global batch."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.torchrun import pair
from torch import nn
from torch.nn import functional as F

from kansciml.training._sync_norm import synchronised
from kansciml.training.loop import MEASURED, LoopConfig, train

CONFIG = LoopConfig(epochs=3, batch_size=16, learning_rate=0.02, warmup=1, ema=0.9, log_every=2, accelerator="cpu")
STEPS = 5
PROGRAM = """
import runpy, sys
from pathlib import Path
runpy.run_path(sys.argv[2])["main"](Path(sys.argv[3]))
"""


class Images:
    def __init__(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return STEPS

    def __iter__(self):
        for place in range(STEPS):
            generator = torch.Generator().manual_seed(100 * self.epoch + place)
            # unlike halves: statistics of one half would show
            x = torch.randn(16, 3, 6, 6, generator=generator) + torch.linspace(-2, 2, 16).view(16, 1, 1, 1)
            yield {"x": x, "y": (x.mean((1, 2, 3)) > 0).long()}


def net():
    torch.manual_seed(5)
    # no bias before a normalisation: its gradient is rounding alone, which AdamW scales up to whole steps
    first = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten()
    second = nn.Linear(96, 8, bias=False), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 2)
    return nn.Sequential(*first, *second)


def loss(module, batch):
    y = module(batch["x"])
    return F.cross_entropy(y, batch["y"]), {"count": len(y), "accuracy": (y.argmax(1) == batch["y"]).sum()}


def evaluate(module):
    batch = next(iter(Images(99)))
    return {"loss": F.cross_entropy(module(batch["x"]), batch["y"])}


def run(folder):
    return train(net(), CONFIG, batches=Images, loss=loss, evaluate=evaluate, folder=folder)


def assert_near(history, expected):
    assert len(history) == len(expected) == 3
    for row, other in zip(history, expected):
        assert set(row) == set(other)
        for name in set(row) - set(MEASURED):
            assert row[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder and outcome of one process."""
    folder = tmp_path_factory.mktemp("one")
    return folder, run(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folder of two processes over the loopback that ran `main`."""
    folder = tmp_path_factory.mktemp("two")
    pair(PROGRAM, __file__, folder)
    return folder


def found(folder, what):
    """What each process found in one of its trainings."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"rank-*-{what}.json"))]
    assert [(one["world"], one["status"]) for one in results] == [(2, "finished")] * 2
    return results


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(alone, both):
    for result in found(both, "Whole"):
        assert_near(result["history"], alone[1].history)
    one, two = (load_file(sorted((f / "checkpoints").iterdir())[-1]) for f in (alone[0], both / "Whole"))
    assert set(one) == set(two)
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-4, atol=1e-5), name


@pytest.mark.slow
def test_processes_stop_together_and_go_on_together(alone, both):
    """One process alone is asked to stop; both do at the next row of the log, and the rest is what it would be."""
    for result in found(both, "Stopped"):
        assert result["stopped"] == "step-0000000008"  # asked to in step 7
        assert_near(result["history"], alone[1].history)


def test_one_process_leaves_batch_normalisation_as_it_is():
    model = net()
    with synchronised(model, 1):
        assert "forward" not in vars(model[1])
    with synchronised(model, 2):
        assert "forward" in vars(model[1]) and "forward" in vars(model[5])
        model.eval()
        x = torch.randn(4, 3, 6, 6)
        inside = model(x)
    assert "forward" not in vars(model[1]) and torch.equal(model(x), inside)


def main(folder):
    rank = int(os.environ["RANK"])

    def stopping(module, batch):
        stopping.calls += 1
        if stopping.calls == 7 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return loss(module, batch)

    stopping.calls = 0
    for name in ("Whole", "Stopped"):
        more = {}
        if name == "Stopped":
            with pytest.raises(KeyboardInterrupt):
                options = {"batches": Images, "loss": stopping, "evaluate": evaluate, "folder": folder / name}
                train(net(), replace(CONFIG, log_every=4), **options)
            torch.distributed.barrier()  # the first process alone writes
            more["stopped"] = sorted((folder / name / "checkpoints").iterdir())[-1].stem
            torch.distributed.barrier()
        result = run(folder / name)
        more |= {"history": result.history, "status": result.status, "world": torch.distributed.get_world_size()}
        (folder / f"rank-{rank}-{name}.json").write_text(json.dumps(more))
