"""Memory of training steps on a CUDA device against the count of steps without data; rehearsed, on a CPU."""

from functools import partial

import pytest
from support import gpu_memory
from support.device import DEVICE, GPU, NOT_REHEARSED, REHEARSED

from kansciml.experiments.memory.steps import IMAGES, MEASURED, Measured, MemoryConfig, measure_curve
from kansciml.models.registry import build_model

pytestmark = GPU
SIZES = {"image_size": 32, "width": 48, "depth": 1, "token_hidden": 72, "channel_hidden": 40}
MODEL = Measured("small", "", partial(build_model, "mixer-nano", **SIZES))


@pytest.mark.parametrize("variant", MEASURED)
def test_a_step_takes_what_is_counted_but_for_rounding_and_workspace(variant):
    real, counted = gpu_memory.pair(MODEL, variant, 8 if REHEARSED else 512, DEVICE)
    assert real == pytest.approx(counted, rel=0.05)


@NOT_REHEARSED
@pytest.mark.parametrize("variant", ["mlp", "textbook"])
def test_a_device_runs_out_of_memory_where_it_is_counted_to(variant):
    config = MemoryConfig(batches=(64, 512, 1024), limit_gb=1.0, device="gpu")
    counted = measure_curve(MODEL, variant, IMAGES, config, lambda done: None).full_batch
    assert gpu_memory.largest_batch(MODEL, variant, 1.0, counted) == pytest.approx(counted, rel=0.15)
