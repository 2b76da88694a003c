"""`kansciml bench layers` measures what it says: ratios that move with the work, bytes as counted by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from kansciml._files import to_jsonable
from kansciml.analysis.memory import saved_for_backward
from kansciml.benchmarks import _layer_cases as cases
from kansciml.benchmarks import _measuring, layers

SHAPE = (32, 48, 64)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 48), nn.SiLU())


class Slow(nn.Module):
    """Twenty times the work of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = mlp()

    def forward(self, x):
        return sum(self.layer(x) for _ in range(20))


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    stem = tmp_path_factory.mktemp("plot") / "layers"
    threads = torch.get_num_threads()
    document, tables = layers.run(layers.Options(shapes=("S1",), rounds=3, plot=stem), lambda line: None)
    assert torch.get_num_threads() == threads
    return document, tables, stem


def test_the_document_is_json_with_the_machine_and_every_layer(smallest):
    document, tables, _ = smallest
    assert json.loads(json.dumps(to_jsonable(document), allow_nan=False))["grid"] == 5
    assert document["machine"]["threads"] == 1 and document["machine"]["torch"] == torch.__version__
    (result,) = document["results"]
    rows = {row["layer"]: row for row in result["rows"] if "error" not in row}
    assert {cases.BASELINE, cases.TEXTBOOK, cases.TORCH, cases.TORCH + cases.UNSCALED, "RSWAFKAN", cases.FLOOR} <= set(
        rows
    )
    assert (cases.CPP in rows) == _measuring.cpp_available()
    assert rows[cases.BASELINE]["both_ratio"] == rows[cases.BASELINE]["forward_ratio"] == 1.0
    for row in rows.values():
        assert 0 < row["both_low_ms"] <= row["both_ms"] <= row["both_high_ms"]
        assert row["both_rounds"] == 3
    assert len(tables) == 3 and tables[-1].title == "Targets"
    peer = cases.EFFICIENT if cases.EFFICIENT in rows else cases.TEXTBOOK
    ratios = {name: (ratio, kept) for name, ratio, kept in tables[0].rows}
    assert tables[0].title.endswith(f"over {peer}") and set(ratios) == set(rows) and ratios[peer][0] == 1.0
    assert all(ratios[name][1] == row["saved_bytes_per_input"] for name, row in rows.items())
    assert document["stack"] is None and document["fine_grid"] is None


def test_saved_bytes_are_those_of_the_algorithms(smallest):
    rows = {row["layer"]: row for row in smallest[0]["results"][0]["rows"]}
    assert rows[cases.TORCH]["saved_bytes_per_input"] == 4.0  # x alone
    assert rows[cases.FLOOR]["saved_bytes_per_input"] == 4.0 * 9  # the whole matrix of G + S + 1 columns per input
    assert rows[cases.TEXTBOOK]["saved_bytes_per_input"] > 10 * 4
    assert rows[cases.TEXTBOOK]["saved_bytes_fixed"] >= 4 * 64 * 64 * 8  # the scaled spline weights


def test_saved_bytes_of_linear_and_silu_agree_with_a_count_by_hand():
    case = cases.Case(mlp(), torch.randn(64, 32, requires_grad=True))
    kept = saved_for_backward(case.forward, apart=case.parameters)
    assert kept == 4 * 64 * (32 + 48)  # x for the weight's gradient, the pre-activation for SiLU's
    per_input, fixed = cases.saved_per_input(case, 32)
    assert (per_input, fixed) == (4 * (32 + 48) / 32, 0)


def test_a_copy_of_the_weights_is_told_from_what_grows_with_the_batch():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.scale = (nn.Parameter(torch.randn(32, 48)) for _ in range(2))

        def forward(self, x):
            return x @ (self.weight * self.scale)

    case = cases.Case(Scaled(), torch.randn(64, 32, requires_grad=True))
    assert cases.saved_per_input(case, 32) == (4.0, 4 * 32 * 48)


def test_more_work_gives_a_larger_ratio():
    first, second = layers.measure_shape(SHAPE, {"mlp": mlp, "slow": Slow}, grid=5, rounds=5)
    assert first["both_ratio"] == 1.0
    assert second["both_ratio"] > 3 and second["forward_ratio"] > 3
    assert second["both_ms"] > first["both_ms"]


def test_a_failing_package_is_a_row_and_our_own_failure_is_an_error():
    def broken() -> nn.Module:
        raise RuntimeError("no such operator\nand more")

    rows = layers.measure_shape(SHAPE, {"mlp": mlp, "InKAN": broken}, grid=5, rounds=3)
    assert rows[-1] == {"layer": "InKAN", "error": "no such operator"}
    with pytest.raises(RuntimeError, match="no such operator"):
        layers.measure_shape(SHAPE, {"mlp": mlp, cases.TORCH: broken}, grid=5, rounds=3)


def document(over_textbook: float, speed: float, error: float = 1.0) -> dict:
    row = {"layer": cases.TORCH, "saved_bytes_per_input": 4.0, "over_textbook": over_textbook}
    rival = {"method": "lstsq", "speed_ratio": speed, "error_ratio": error}
    return {
        "grid": 5, "dtype": "float32", "results": [{"shape": "S3", "rows": [row]}], "fine_grid": None, "stack": None,
        "refit": {"samples": 1024, "rivals": [rival], "more_samples": {"samples": 4096, "rivals": [rival]}},
    }  # fmt: skip


def test_targets_are_met_missed_or_not_measured():
    def met(given: dict) -> dict:
        return {row["target"]: row["met"] for row in layers.target_rows(given)}

    ours, refit = f"{cases.TORCH} over textbook, S3", "grid refit, times faster at the same error: lstsq, 1024 samples"
    good, bad = met(document(0.1, 50.0)), met(document(0.2, 20.0))
    assert good[ours] is True and good[refit] is True
    assert bad[ours] is False and bad[refit] is False
    assert met(document(0.1, 50.0, error=2.0))[refit] is False  # fast and wrong
    assert good[f"{cases.TORCH} over textbook, S1"] is None
    assert met({**document(0.1, 50.0), "grid": 7})[ours] is None  # the targets are for G = 5


def test_the_refit_is_as_accurate_as_least_squares(smallest):
    found = smallest[0]["refit"]
    for rival in found["rivals"]:
        assert 1 - 1e-9 < rival["error_ratio"] < layers.REFIT_ERROR  # least squares is the least there is
        assert rival["speed_ratio"] == rival["ms"] / found["ms"]


def test_the_plot_is_written(smallest):
    document, _, stem = smallest
    assert document["plots"] == [f"{stem}.svg"]
    assert "textbook KAN" in Path(document["plots"][0]).read_text()
