"""What is measured without data is what real steps take, and the numbers of a curve are those of its points."""

import copy
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from kansciml import UsageError
from kansciml.analysis.memory import measure, training_step
from kansciml.experiments.fig4a.experiment import measured as classifier
from kansciml.experiments.fig4b.experiment import DARCY
from kansciml.experiments.fig4b.experiment import measured as operator
from kansciml.experiments.memory.record import Reference
from kansciml.experiments.memory.steps import (
    IMAGES,
    MEASURED,
    Measured,
    MemoryConfig,
    few_blocks,
    full_batch,
    line,
    measure_curve,
    measure_fake,
)
from kansciml.layers._kernels import plain, rswaf
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN
from kansciml.models.registry import build_model

SIZES = {"image_size": 32, "width": 48, "depth": 1, "token_hidden": 72, "channel_hidden": 40}
SMALL = Measured("small", "", partial(build_model, "mixer-nano", **SIZES), {"mlp": (5.74, 2702)})
"""A mixer that is quick to run, with enough rows for several blocks of the kernels."""
RECOMPUTED = Measured("recomputed", "", partial(build_model, "fno-wt", resolution=15, iterations=2, recompute=True))


def real_step(network, problem, size, precision="32"):
    return measure(problem.step(network, size, precision), apart=network.buffers())


@pytest.mark.parametrize("variant", MEASURED)
@pytest.mark.parametrize(
    "model, problem, size",
    [
        (SMALL, IMAGES, 1),
        (SMALL, IMAGES, 85),
        (classifier("conv-mixer-128-4"), IMAGES, 2),
        (operator("ends", 21), DARCY, 3),
        (RECOMPUTED, DARCY, 2),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_step_without_data_takes_what_a_real_one_does(model, problem, size, variant):
    network = model.network(variant)
    assert measure_fake(network, problem, size) == real_step(network, problem, size)


@pytest.mark.parametrize("variant", MEASURED)
def test_under_autocast_it_is_that_but_for_statistics_of_norms(variant):
    network = SMALL.network(variant)
    real, fake = (step(network, IMAGES, 16, "bf16-mixed").peak_bytes for step in (real_step, measure_fake))
    # mean and deviation of 64 patches in each of three norms: float32, and taken for bfloat16
    assert 0 <= real - fake <= 3 * 2 * 16 * 64 * 2
    if variant in ("mlp", "textbook"):  # ours keep float32 inputs, the mlp's are narrow
        assert real < 0.95 * measure_fake(network, IMAGES, 16).peak_bytes


@pytest.mark.parametrize("variant", MEASURED)
def test_a_gpu_differs_by_the_blocks_of_our_kernels_alone(variant):
    network, asked = SMALL.network(variant), torch.is_autocast_enabled
    cpu, gpu = (measure_fake(network, IMAGES, 85, device=device) for device in ("cpu", "gpu"))
    assert gpu.saved_bytes == cpu.saved_bytes and gpu.live_bytes == cpu.live_bytes
    if variant in ("mlp", "textbook"):
        assert gpu == cpu
    else:  # 85 x 64 rows of 48 inputs with 8 splines or functions are one block there
        block = 4 * 85 * 64 * 48 * 8
        assert block < gpu.peak_bytes - cpu.peak_bytes < 8 * block
    assert torch.is_autocast_enabled is asked


@pytest.mark.parametrize("layer", ["spline", "rswaf"])
@pytest.mark.parametrize("rows", [1, 1100, 5000])
def test_blocks_left_out_take_no_memory(layer, rows):
    network, uses = KAN((40, 150, 30), layer), []
    for blocks in (nullcontext, few_blocks):
        mode = FakeTensorMode()
        with FakeCopyMode(mode):
            fake = copy.deepcopy(network)
        with mode, blocks():
            uses.append(measure(training_step(fake, torch.empty(rows, 40, requires_grad=True))))
    assert uses[0] == uses[1]


def test_few_blocks_leave_out_most_and_are_undone():
    x = torch.zeros(20 * plain.ROWS, 4)
    layer = SplineKAN(4, 3)
    count = lambda: len(list(plain.blocks(layer.spec, x, layer.cells, 3)))  # noqa: E731
    whole = count()
    with few_blocks():
        assert count() == 3
    assert count() == whole == 20
    with pytest.raises(RuntimeError), few_blocks():
        raise RuntimeError
    assert "range" not in vars(plain) and "range" not in vars(rswaf)


def test_a_line_is_found_and_the_smaller_batches_do_not_bend_it():
    batches = np.array([1, 2, 4, 8, 16, 32])
    peaks = np.maximum(3 * batches + 5, 12)
    assert line(batches, peaks) == pytest.approx((3, 5, 0), abs=1e-9)
    assert line(np.array([1, 3]), np.array([4, 10])) == pytest.approx((3, 1, 0), abs=1e-9)
    assert line(batches, batches**2)[2] > 10
    assert line(np.array([1, 2, 64]), np.array([9, 5, 67])) == pytest.approx((1, 3, 0), abs=1e-9)


@pytest.mark.parametrize("limit, expected", [(99, 31), (101, 32), (131, 42), (2, 0)])
def test_the_full_batch_is_the_last_on_the_line(limit, expected):
    batches = np.array([1, 16, 32] if limit < 101 else [1, 8, 32])
    assert full_batch(batches, 3 * batches + 4, limit) == expected


def test_a_variant_that_never_fits_gets_its_two_points_all_the_same():
    steps = []
    curve = measure_curve(SMALL, "mlp", IMAGES, MemoryConfig(batches=(1, 2, 4), limit_gb=1e-4), steps.append)
    assert list(curve.batch) == [1, 2] and sum(steps) == 3
    assert curve.full_batch == 0


def test_references_stand_only_beside_what_they_were_measured_for():
    assert SMALL.reference("mlp", MemoryConfig()) == Reference(5.74, 2702)
    assert SMALL.reference("mlp", MemoryConfig(limit_gb=8)) == Reference(5.74, None)
    assert SMALL.reference("mlp", MemoryConfig(precision="bf16-mixed")) == Reference()
    assert SMALL.reference("textbook", MemoryConfig()) == Reference()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batches": (4,)},
        {"batches": (4, 2)},
        {"batches": (0, 1)},
        {"variants": ("mlp", "mlp")},
        {"variants": ("kan",)},
        {"limit_gb": 0.0},
        {"limit_gb": float("nan")},
        {"precision": "16"},
        {"device": "cuda"},
        {"device": "gpu", "precision": "bf16-mixed"},
    ],
)
def test_bad_settings_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).removesuffix("s")):
        MemoryConfig(**wrong)
