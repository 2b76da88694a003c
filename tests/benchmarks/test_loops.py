"""The two training loops of `kansciml bench vision` do the same: equal batches, equal steps, equal weights."""

import copy
from dataclasses import replace

import pytest
import torch

from kansciml.benchmarks import _loop_cases as loops
from kansciml.benchmarks import _step_cases as steps
from kansciml.experiments.vision.runs import SmoothedLoss


@pytest.fixture(scope="module")
def work():
    return loops.Work.make(steps.build("conv-mixer-128-4", steps.MLP, width=8, depth=1), batch_size=4, steps=5)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_both_loops_end_with_the_same_weights(work):
    ours, bare, other = (copy.deepcopy(work.network) for _ in range(3))
    inputs, labels = loops.normalised(work.batches)
    order = work.batches.order(0)
    taken = [loops.looped(ours, work.batches, work.config), loops.bare(bare, inputs, labels, order, work.config)]
    assert all(one.steps_s > 0 and one.rest_s >= 0 for one in taken)
    torch.testing.assert_close(weights(ours), weights(bare), rtol=1e-5, atol=1e-6)
    loops.bare(other, inputs, labels, order, replace(work.config, schedule="constant"))
    assert (weights(other) - weights(bare)).abs().max() > 1e-4  # so the agreement is that of the schedules too
    assert (weights(work.network) - weights(bare)).abs().max() > 1e-4  # and the first weights are kept for the next


def test_the_images_of_the_bare_loop_are_those_of_the_batches(work):
    inputs, labels = loops.normalised(work.batches)
    rows = work.batches.order(0).split(4)
    for own, batch in zip(rows, work.batches.epoch()):
        assert torch.equal(inputs[own], batch.inputs) and torch.equal(labels[own], batch.labels)


def test_the_loss_is_the_one_that_kansciml_vision_trains_with(work):
    batch = next(work.batches.epoch())
    network = copy.deepcopy(work.network).eval()
    (loss, sums), (known, theirs) = loops.classification(network, batch), SmoothedLoss(0.0)(network, batch)
    assert torch.equal(loss, known) and sums["count"] == theirs["count"] and sums["accuracy"] == theirs["accuracy"]


def test_throughput_is_images_over_seconds_in_turns(work):
    told = []
    bare, ours = loops.throughput(work, 3, told.append)
    assert told == 4 * [loops.BARE, loops.LOOP]  # each once before
    assert bare["over_bare"] == 1.0 and 0.1 < ours["over_bare"] < 3
    for row in (bare, ours):
        assert 0 < row["images_low_per_s"] <= row["images_per_s"] <= row["images_high_per_s"]
    assert ours["rest_ms"] > bare["rest_ms"]  # it writes checkpoints
