"""Speed on a GPU: what the model expects, what is refused where there is none, and the measurement, rehearsed."""

import pytest
import torch

from kansciml._errors import KansciError, UsageError
from kansciml.benchmarks import layers, vision
from kansciml.benchmarks._cuda import timing
from kansciml.benchmarks._cuda import vision as steps_on_cuda
from kansciml.benchmarks._cuda.roofline import DEVICES, FLOOR, PEER, TYPES, expected
from kansciml.benchmarks._layer_cases import SHAPES, make_case
from kansciml.layers._kernels._triton import library

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
    with pytest.raises(UsageError, match="got dtype or plot with --device cuda"):
        layers.run(layers.Options(device="cuda", model_only=True, dtype="float64"), print)
    for shapes, count in ((None, 6), (tuple(SHAPES), 5)):  # all that are named are all, without S6
        assert len(layers.run(layers.Options(device="cuda", model_only=True, shapes=shapes), print)[1]) == count
    if not torch.cuda.is_available():
        for bench in (layers, vision):
            with pytest.raises(KansciError, match="got no CUDA device"):
                bench.run(bench.Options(device="cuda"), print)
    for bench, options in ((layers, {"rehearse": True}), (vision, {"rehearse": True}), (vision, {"image_size": 64})):
        with pytest.raises(UsageError, match="on the CPU: .* add --device cuda"):
            bench.run(bench.Options(**options), print)


def test_a_rehearsal_measures_every_layer_and_tells_which_failed(monkeypatch):
    monkeypatch.setitem(timing.SHAPES, "S1", (6, 5, 16))
    monkeypatch.setattr(timing, "TYPES", ("float32",))
    monkeypatch.setattr(library, "available", lambda: True)
    monkeypatch.setattr(library, "runs", lambda *problem: False)
    document, tables = layers.run(layers.Options(device="cuda", rehearse=True, shapes=("S1",), rounds=3), print)
    rows = {row["layer"]: row for row in document["results"][0]["rows"]}
    own = rows[timing.PLAIN]
    assert own["both_ms"] > 0 and own["saved_bytes_per_input"] == 4 and own["peak_bytes"] > 0
    told = [name for name, row in rows.items() if "backend 'triton' cannot run" in row.get("error", "")]
    assert told == [timing.TRITON, *(f"{timing.TRITON} {way}" for way in timing.WAYS)]
    assert document["machine"]["device"]["name"] == "CPU, a rehearsal" and tables
    assert not any(row["met"] for row in document["targets"])  # of shapes that were left out


def test_a_case_is_made_and_first_called_where_it_is_measured():
    seen = []

    class Layer(torch.nn.Linear):
        def forward(self, x):
            seen.append(x.device.type)
            return super().forward(x)

    case = make_case("one", lambda: Layer(6, 5), (6, 5, 16), 5, torch.float32, "meta")
    case.both()
    assert seen == ["meta", "meta"] and case.cotangent.is_meta


def test_steps_of_a_classifier_are_rehearsed_too(monkeypatch):
    monkeypatch.setattr(library, "runs", lambda *problem: False)
    monkeypatch.setattr(steps_on_cuda, "KINDS", ("bfloat16",))
    options = vision.Options(device="cuda", rehearse=True, models=("conv-mixer-128-4",), image_size=16, rounds=3)
    document, tables = vision.run(options, print)
    rows = {row["layer"]: row for row in document["results"][0]["rows"]}
    assert "cannot run this layer" in rows.pop(steps_on_cuda.TRITON)["error"]
    assert set(rows) == {"MLP", "textbook KAN", "SplineKAN, torch", "RSWAFKAN"}
    assert rows["textbook KAN"]["peak_over_mlp"] > 2 > 0.5 > rows["SplineKAN, torch"]["peak_over_textbook"] > 0
    assert all(row["steps_per_s"] > 0 for row in rows.values()) and "16 x 16" in tables[0].title


def test_targets_are_read_from_the_shapes_that_state_them():
    def row(dtype, **values):
        return {"layer": timing.TRITON, "dtype": dtype, **values}

    reached = row("bfloat16", over_textbook=0.09, over_floor=1.6, saved_bytes_per_input=2.0)
    found = timing.target_rows([{"shape": "S6", "rows": [reached, {"layer": timing.PLAIN, "dtype": "float32"}]}])
    assert [one["met"] for one in found if one["target"].startswith(f"{timing.TRITON}, S6, bfloat16")] == [
        True, False, True
    ]  # fmt: skip
    assert {one["met"] for one in found if "S3" in one["target"] or "float32" in one["target"]} == {None}
