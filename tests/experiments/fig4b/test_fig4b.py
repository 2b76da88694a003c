"""Figure 4b: what is measured without data is what real steps take, and the numbers known from elsewhere are met."""

import pytest
import torch

from kansciml._errors import UsageError
from kansciml.analysis.memory import measure
from kansciml.experiments.fig4b.experiment import (
    EXPERIMENT,
    REFERENCE,
    Fig4bConfig,
    build_part,
    fake_fields,
    field_step,
    reference,
)
from kansciml.experiments.memory.steps import GB, VARIANTS, measure_fake
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.models.registry import build_model
from kansciml.runs.runner import run_experiment

CONFIG = Fig4bConfig(
    variants=("mlp", "kan-spline"), batches=(1, 4), resolutions=(15,), parts=("ends", "recompute"), limit_gb=0.1
)


def fake_step(network, batch, device="cpu"):
    return measure_fake(network, fake_fields, field_step, batch, device=device)


def real_step(network, batch):
    return measure(field_step(network, *fake_fields(network, batch)), apart=network.buffers())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("part", ["ends", "recompute"])
def test_a_step_without_data_takes_what_a_real_one_does(part, variant):
    network = build_part(part, 21, variant)
    assert fake_step(network, 3) == real_step(network, 3)


def test_a_whole_network_takes_what_a_real_one_does_and_recomputing_less():
    network = build_part("whole", 15, "kan-spline")
    whole = fake_step(network, 2)
    assert whole == real_step(network, 2)
    again = fake_step(build_part("recompute", 15, "kan-spline"), 2)
    assert again.saved_bytes < 0.2 * whole.saved_bytes and again.peak_bytes < whole.peak_bytes


def test_lift_and_projection_are_those_of_the_network():
    whole, ends = build_part("whole", 15, "textbook"), build_part("ends", 15, "textbook")
    kinds = [type(module) for module in ends.modules()]
    assert kinds.count(TextbookKAN) == 3
    assert sum(p.numel() for p in ends.parameters()) == 43_200
    assert sum(p.numel() for p in build_part("ends", 15, "mlp").parameters()) == 4_481
    a, _ = fake_fields(whole, 2)
    assert ends(a).shape == whole(a).shape == (2, 1, 15, 15)
    torch.testing.assert_close(ends(a), whole(a) * 0 + ends(a))  # finite
    assert whole.config.resolution == 15 and not whole.config.recompute
    assert build_model("fno-wt").config.iterations == whole.config.iterations == 12


@pytest.mark.parametrize(
    "variant, tolerance",
    [("mlp", 0.02), ("textbook", 0.07)],  # the recursion takes 6 % more here
)
@pytest.mark.parametrize("resolution", [85, 421])
def test_lift_and_projection_take_what_was_measured_independently(variant, tolerance, resolution):
    network = build_part("ends", resolution, variant)
    low, high = (fake_step(network, batch).peak_bytes for batch in (1, 3))
    assert (high - low) / 2 / 1e6 == pytest.approx(REFERENCE["ends", resolution, variant][0], rel=tolerance)


def test_on_a_gpu_the_blocks_of_our_kernels_alone_differ():
    for variant in ("mlp", "kan-spline"):
        network = build_part("ends", 85, variant)
        cpu, gpu = fake_step(network, 4), fake_step(network, 4, "gpu")
        assert gpu.saved_bytes == cpu.saved_bytes
        assert gpu.peak_bytes == cpu.peak_bytes if variant == "mlp" else gpu.peak_bytes > cpu.peak_bytes


def test_the_record_holds_a_curve_per_part_resolution_and_variant(tmp_path):
    record = run_experiment(EXPERIMENT, CONFIG, results=tmp_path, log=lambda line: None)
    curves = record.result["curves"]
    assert [(row["model"], row["variant"]) for row in curves] == [
        ("ends-15", "mlp"), ("ends-15", "kan-spline"), ("recompute-15", "mlp"), ("recompute-15", "kan-spline")
    ]  # fmt: skip
    assert record.result["titles"]["ends-15"] == "lift and projection: 15 x 15"
    for row in curves:
        assert row["input_bytes"] == 2 * 4 * 15**2 and row["reference"] == {}
        totals = record.arrays[f"{row['model']}.{row['variant']}.total"]
        assert row["full_batch"] >= 4 or totals[-1] > CONFIG.limit_gb * GB
    names = {path.name for path in EXPERIMENT.render(record, tmp_path / "shown")}
    assert names == {"memory.svg", "memory.png", "memory.pdf", "tables.md", "tables.json"}
    table, *points = EXPERIMENT.tables(record)
    assert len(table.rows) == 4 and len(points) == 2


def test_references_stand_only_beside_what_they_were_measured_for():
    config = Fig4bConfig()
    assert reference("ends", 85, "textbook", config) == {"mb_per_sample": 409.5, "full_batch": 37}
    assert reference("whole", 85, "textbook", config) == reference("ends", 85, "kan-spline", config) == {}
    assert reference("ends", 85, "mlp", Fig4bConfig(limit_gb=8)) == {"mb_per_sample": 12.0}
    assert reference("ends", 85, "mlp", Fig4bConfig(precision="bf16-mixed")) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"batches": (4,)}, {"resolutions": ()}, {"resolutions": (85, 85)}, {"resolutions": (14,)}, {"parts": ("end",)},
     {"parts": ()}, {"variants": ("kan",)}, {"limit_gb": -1.0}],
)  # fmt: skip
def test_bad_settings_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).removesuffix("s")):
        Fig4bConfig(**wrong)


def test_the_coarsest_resolution_that_is_allowed_has_the_modes():
    network = build_part("whole", 15, "mlp")
    assert torch.isfinite(network(fake_fields(network, 1)[0])).all()
