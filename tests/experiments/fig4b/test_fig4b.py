"""Figure 4b: what is measured of the network is what it has there, and the numbers known from elsewhere are met."""

import pytest
import torch

from kansciml import UsageError
from kansciml.experiments.fig4b.experiment import DARCY, EXPERIMENT, REFERENCES, Fig4bConfig, measured
from kansciml.experiments.memory.record import GB, MemoryRecord, Reference
from kansciml.experiments.memory.steps import measure_fake
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.models.registry import build_model
from kansciml.runs.runner import run_experiment

CONFIG = Fig4bConfig(
    variants=("mlp", "kan-spline"), batches=(1, 4), resolutions=(15, 16), parts=("ends",), limit_gb=0.1
)


def test_recomputing_keeps_and_takes_less():
    whole, again = (measure_fake(measured(part, 15).network("kan-spline"), DARCY, 2) for part in ("whole", "recompute"))
    assert again.saved_bytes < 0.2 * whole.saved_bytes and again.peak_bytes < whole.peak_bytes


def test_lift_and_projection_are_those_of_the_network():
    whole, ends = measured("whole", 15).network("textbook"), measured("ends", 15).network("textbook")
    assert [type(module) for module in ends.modules()].count(TextbookKAN) == 3
    assert sum(p.numel() for p in ends.parameters()) == 43_200
    assert sum(p.numel() for p in measured("ends", 15).network("mlp").parameters()) == 4_481
    a, _ = DARCY.batch(whole, 2)
    assert ends(a).shape == whole(a).shape == (2, 1, 15, 15) and torch.isfinite(ends(a)).all()
    assert whole.config.resolution == 15 and not whole.config.recompute
    assert build_model("fno-wt").config.iterations == whole.config.iterations == 12


@pytest.mark.parametrize(
    "variant, tolerance",
    [("mlp", 0.02), ("textbook", 0.07)],  # the recursion takes 6 % more here
)
@pytest.mark.parametrize("resolution", [85, 421])
def test_lift_and_projection_take_what_was_measured_independently(variant, tolerance, resolution):
    network = measured("ends", resolution).network(variant)
    low, high = (measure_fake(network, DARCY, size).peak_bytes for size in (1, 3))
    assert (high - low) / 2 / 1e6 == pytest.approx(REFERENCES["ends", resolution][variant][0], rel=tolerance)


@pytest.mark.parametrize("variant", ["mlp", "kan-spline"])
def test_on_a_gpu_the_blocks_of_our_kernels_alone_differ(variant):
    network = measured("ends", 85).network(variant)
    cpu, gpu = (measure_fake(network, DARCY, 4, device=device) for device in ("cpu", "gpu"))
    assert gpu.saved_bytes == cpu.saved_bytes
    assert gpu.peak_bytes == cpu.peak_bytes if variant == "mlp" else gpu.peak_bytes > cpu.peak_bytes


def test_the_record_holds_a_curve_per_part_resolution_and_variant(tmp_path):
    record = run_experiment(EXPERIMENT, CONFIG, results=tmp_path, log=lambda line: None)
    memory = MemoryRecord.read(record)
    assert [(curve.model, curve.variant) for curve in memory.curves] == [
        ("ends-15", "mlp"), ("ends-15", "kan-spline"), ("ends-16", "mlp"), ("ends-16", "kan-spline")
    ]  # fmt: skip
    assert memory.titles["ends-15"] == "lift and projection: 15 x 15"
    for curve in memory.curves:
        assert (
            curve.input_bytes == 2 * 4 * memory.whole_sizes[curve.model.replace("ends", "whole")] ** 2
            and curve.reference == Reference()
        )
        assert curve.full_batch >= 4 or curve.total[-1] > CONFIG.limit_gb * GB
    names = {path.name for path in EXPERIMENT.render(record, tmp_path / "shown")}
    assert names == {"memory.svg", "tables.md", "tables.json"}
    table, *points = EXPERIMENT.tables(record)
    assert len(table.rows) == 4 and len(points) == 2


def test_references_are_of_lift_and_projection_alone():
    assert measured("ends", 85).reference("textbook", Fig4bConfig()) == Reference(409.5, 37)
    assert measured("whole", 85).references == {}


@pytest.mark.parametrize(
    "wrong",
    [{"resolutions": ()}, {"resolutions": (85, 85)}, {"resolutions": (14,)}, {"parts": ("end",)}, {"parts": ()},
     {"batches": (4,)}],
)  # fmt: skip
def test_bad_settings_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).removesuffix("s")):
        Fig4bConfig(**wrong)


def test_the_coarsest_resolution_that_is_allowed_has_the_modes():
    network = measured("whole", 15).network("mlp")
    assert torch.isfinite(network(DARCY.batch(network, 1)[0])).all()
