"""Speed of layers on a GPU: what the model expects, and what is refused where there is none."""

import pytest
import torch

from kansciml._errors import KansciError, UsageError
from kansciml.benchmarks import layers
from kansciml.benchmarks._cuda.roofline import DEVICES, FLOOR, PEER, TYPES, expected

LARGE = (192, 768, 25_000)


def times(shape, grid, device, kind):
    return {row["layer"].removeprefix("SplineKAN, Triton "): row for row in expected(shape, grid, 3, device, kind)}


def test_the_products_of_a_large_layer_take_their_operations_over_what_a_library_reaches_of_the_peak():
    floor = times(LARGE, 5, "H200", "float32")[FLOOR]
    flops = 3 * 2 * 25_000 * 192 * 768 * 9
    assert floor["both_ms"] == pytest.approx(1e3 * (flops / (0.7 * 67e12) + 3 * 4e-6), rel=1e-9)
    assert floor["gflop"] == pytest.approx(flops / 1e9)
    assert times(LARGE, 5, "H200", "bfloat16")[PEER]["launches"] == 74


@pytest.mark.parametrize("device, kind", [(device, kind) for device in DEVICES for kind in TYPES])
def test_no_layer_is_faster_than_its_products_and_all_grow_with_the_batch(device, kind):
    if kind not in DEVICES[device].products:
        pytest.skip(f"the {device} has no {kind}")
    small, large = (times((*LARGE[:2], rows), 5, device, kind) for rows in (1000, 25_000))
    for name in ("dense", "fused", PEER):
        assert small[name]["both_ms"] < large[name]["both_ms"] and large[name]["over_floor"] >= 1
    assert large["dense"]["both_ms"] < 0.6 * large[PEER]["both_ms"]


def test_only_the_sparse_way_does_not_grow_with_the_grid_and_pays_where_the_layer_takes_it():
    for kind, splines in (("float32", 96), ("bfloat16", 512)):
        coarse, fine = (times(LARGE, grid, "H200", kind) for grid in (5, 2 * splines))
        assert fine["sparse"]["both_ms"] < 1.1 * coarse["sparse"]["both_ms"]
        assert (
            fine["sparse"]["both_ms"] < fine["dense"]["both_ms"]
            and coarse["dense"]["both_ms"] < coarse["sparse"]["both_ms"]
        )


def test_the_command_prints_the_model_and_says_what_is_missing():
    document, tables = layers.run(layers.Options(device="cuda", model_only=True, shapes=("S3",)), print)
    assert document["results"][0]["rows"] and "expected, not measured" in tables[0].title
    with pytest.raises(UsageError, match="got model-only on the CPU"):
        layers.run(layers.Options(model_only=True), print)
    with pytest.raises(UsageError, match="unknown shape 'S9'"):
        layers.run(layers.Options(device="cuda", model_only=True, shapes=("S9",)), print)
    if not torch.cuda.is_available():
        with pytest.raises(KansciError, match="got no CUDA device"):
            layers.run(layers.Options(device="cuda"), print)
