"""Figure 4a: what is measured without data is what real steps take, and the numbers are those of the points."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from kansciml._errors import UsageError
from kansciml.analysis.memory import measure, training_step
from kansciml.experiments.fig4a.experiment import (
    EXPERIMENT,
    GB,
    VARIANTS,
    Fig4aConfig,
    build_variant,
    curve,
    few_blocks,
    full_batch,
    line,
    reference,
    to_textbook,
)
from kansciml.experiments.memory.steps import fake_images, image_step, measure_step
from kansciml.layers._kernels import plain, rswaf
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.models.registry import build_model
from kansciml.runs.runner import run_experiment

MODEL = "conv-mixer-128-4"
CONFIG = Fig4aConfig(models=(MODEL,), variants=("mlp", "textbook"), batches=(1, 2, 4, 8, 16), limit_gb=0.25)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return run_experiment(EXPERIMENT, CONFIG, results=tmp_path_factory.mktemp("results"), log=lambda line: None)


def small(variant):
    """A mixer that is quick to run, with enough rows for several blocks of the kernels."""
    config = {"image_size": 32, "width": 48, "depth": 1, "token_hidden": 72, "channel_hidden": 40}
    network = build_model("mixer-nano", "kan-spline" if variant == "textbook" else variant, **config)
    for module in network.modules():
        if isinstance(module, SplineKAN):
            module.backend = "torch"
    return to_textbook(network) if variant == "textbook" else network


def real_step(network, batch, precision="32"):
    return measure(image_step(network, *fake_images(network, batch), precision), apart=network.buffers())


def fake_step(network, batch, precision="32", device="cpu"):
    return measure_step(network, lambda fake: fake_images(fake, batch), precision, device)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch", [1, 85])
def test_a_step_without_data_takes_what_a_real_one_does(variant, batch):
    network = small(variant)
    assert fake_step(network, batch) == real_step(network, batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_model_takes_what_a_real_one_does(variant):
    network = build_variant(MODEL, variant)
    assert fake_step(network, 2) == real_step(network, 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_under_autocast_it_is_that_but_for_statistics_of_norms(variant):
    network = small(variant)
    real, fake = (step(network, 16, "bf16-mixed").peak_bytes for step in (real_step, fake_step))
    # mean and deviation of 64 patches in each of three norms: float32, and taken for bfloat16
    assert 0 <= real - fake <= 3 * 2 * 16 * 64 * 2
    if variant in ("mlp", "textbook"):  # ours keep float32 inputs, the mlp's are narrow
        assert real < 0.95 * fake_step(network, 16).peak_bytes


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_differs_by_the_blocks_of_our_kernels_alone(variant):
    network, asked = small(variant), torch.is_autocast_enabled
    cpu, gpu = (fake_step(network, 85, device=device) for device in ("cpu", "gpu"))
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


@pytest.mark.parametrize("name", ["mixer-nano", "conv-mixer-128-4"])
def test_textbook_layers_give_the_same_scores_by_the_same_weights(name):
    ours = build_model(name, "kan-spline", depth=1, grid_range=(-2.0, 2.0)).double()
    textbook = to_textbook(copy.deepcopy(ours))
    kinds = [type(module) for module in textbook.modules()]
    assert SplineKAN not in kinds
    assert kinds.count(TextbookKAN) == sum(isinstance(module, SplineKAN) for module in ours.modules())
    assert sum(p.numel() for p in textbook.parameters()) == sum(p.numel() for p in ours.parameters())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(textbook.eval()(images), ours.eval()(images), rtol=1e-9, atol=1e-10)
    with torch.no_grad():  # every weight was taken over, so that a changed one shows
        for module in ours.modules():
            if isinstance(module, SplineKAN):
                module.spline_scale.mul_(1.1)
    assert not torch.allclose(textbook(images), ours(images), rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"bias": True}, {"base_activation": "gelu"}, {"outside": "linear"}, {"spline_order": 0}]
)
def test_layers_without_a_textbook_form_are_refused(options):
    with pytest.raises(UsageError, match="got a SplineKAN with base_activation"):
        to_textbook(KAN((3, 2), "spline", **options))


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


@pytest.mark.parametrize(
    "name, variant, expected, tolerance",
    [
        ("mixer-nano-c512", "mlp", 3.84, 2e-3),
        ("mixer-nano", "mlp", 5.74, 2e-3),
        ("mixer-nano", "textbook", 205.3, 1.5e-2),
    ],
)
def test_the_papers_mixers_take_what_was_measured_independently(name, variant, expected, tolerance):
    network = build_variant(name, variant)
    low, high = (fake_step(network, batch).peak_bytes for batch in (32, 64))
    assert (high - low) / 32 / 1e6 == pytest.approx(expected, rel=tolerance)


def test_a_curve_ends_with_its_first_point_out_of_memory(record):
    limit = CONFIG.limit_gb * GB
    totals = record.arrays[f"{MODEL}.textbook.total"]
    assert (totals[:-1] <= limit).all() and totals[-1] > limit
    assert list(record.arrays[f"{MODEL}.mlp.batch"]) == list(CONFIG.batches)


def test_the_full_batch_fits_and_one_more_does_not(record):
    row = next(row for row in record.result["curves"] if row["variant"] == "textbook")
    network = build_variant(MODEL, "textbook")
    fixed = row["resident_bytes"] + row["optimiser_bytes"]
    assert fixed == sum(3 * p.nbytes for p in network.parameters()) + sum(b.nbytes for b in network.buffers())
    totals = []
    for batch in (row["full_batch"], row["full_batch"] + 1):
        given = batch * (4 * 3 * 32 * 32 + 8)  # pixels and a label
        totals.append(fixed + given + fake_step(network, batch).peak_bytes)
    assert totals[0] <= CONFIG.limit_gb * GB < totals[1]


def test_a_variant_that_never_fits_gets_its_two_points_all_the_same():
    network = build_variant(MODEL, "mlp")
    steps = []
    numbers, points = curve(network, Fig4aConfig(models=(MODEL,), batches=(1, 2, 4), limit_gb=1e-4), steps.append)
    assert list(points["batch"]) == [1, 2] and sum(steps) == 3
    assert numbers["full_batch"] == 0


def test_references_stand_only_beside_what_they_were_measured_for(record):
    assert [row["reference"] for row in record.result["curves"]] == [{}, {}]
    assert reference("mixer-nano", "mlp", Fig4aConfig()) == {"mb_per_sample": 5.74, "full_batch": 2702}
    assert reference("mixer-nano", "mlp", Fig4aConfig(limit_gb=8)) == {"mb_per_sample": 5.74}
    assert reference("mixer-nano", "mlp", Fig4aConfig(precision="bf16-mixed")) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"batches": (4,)},
        {"batches": (4, 2)},
        {"batches": (0, 1)},
        {"models": ()},
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
        Fig4aConfig(**wrong)


def test_an_unknown_model_is_refused_before_anything_is_measured():
    with pytest.raises(UsageError, match="unknown model 'mixer'.*mixer-nano"):
        EXPERIMENT.check(Fig4aConfig(models=("mixer",)))
    EXPERIMENT.check(Fig4aConfig())


def test_titles_tell_the_sizes_of_the_mlps(record):
    assert record.result["titles"] == {MODEL: f"{MODEL}: channels (append) 128-128"}
