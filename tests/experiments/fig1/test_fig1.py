"""Figure 1: the maps hold the equations and what is measured, and the verdict says what the ratios say."""

import numpy as np
import pytest

from kansciml import KansciError, UsageError
from kansciml.analysis.cost import Sizes, linear_layer, textbook_layer
from kansciml.experiments.fig1.experiment import EXPERIMENT, measured_bytes
from kansciml.experiments.fig1.record import Fig1Config, Maps, Spread
from kansciml.experiments.fig1.report import render, summary, verdict
from kansciml.runs.records import Record
from kansciml.runs.runner import run_experiment

CONFIG = Fig1Config(widths=(4, 64), batches=(8, 128), batch=128)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return run_experiment(EXPERIMENT, CONFIG, results=tmp_path_factory.mktemp("results"), log=lambda line: None)


def test_equation_2_is_the_papers(record):
    assert record.arrays["size.equation_2"][1, 1] == 4 * 159_680
    assert record.arrays["batch.equation_2"][1, 1] == 4 * 159_680
    i, o, b = 4, 64, 128  # rows are inputs
    assert record.arrays["size.equation_2"][0, 1] == 4 * (i * (2 * 8 * b + 9 * o - 1) - o * b)


def test_the_textbook_map_is_the_count(record):
    for place, sizes in {(0, 1): Sizes(4, 64, 128), (1, 1): Sizes(64, 64, 128)}.items():
        extra = textbook_layer(sizes).footprint - linear_layer(sizes).footprint
        assert record.arrays["size.textbook"][place] == 4 * extra
    linear = linear_layer(sizes)
    assert measured_bytes("linear", sizes) == (4 * linear.footprint, 4 * linear.saved)


def test_what_is_kept_is_the_count(record):
    kept, per_input = record.result["kept_per_input"], 64 * 128
    assert kept["linear"] == 2.0  # its input and what goes into the SiLU
    assert kept["textbook"] == textbook_layer(Sizes(64, 64, 128)).saved / per_input
    assert kept["ours"] == 1.0
    assert [row[1] for row in summary(record)[1].rows] == list(kept.values())


def test_both_maps_agree_where_they_meet(record):
    for kind in ("equation_2", "corrected", "textbook", "ours"):
        assert record.arrays[f"size.{kind}"][1, 1] == record.arrays[f"batch.{kind}"][1, 1]


def test_statistics_are_those_of_the_maps(record):
    for kind in ("textbook", "ours"):
        ratios = np.concatenate(
            [(record.arrays[f"{m}.{kind}"] / record.arrays[f"{m}.equation_2"]).ravel() for m in ("size", "batch")]
        )
        expected = {"min": ratios.min(), "median": np.median(ratios), "max": ratios.max()}
        assert record.result["ratio_to_equation_2"][kind] == vars(Maps.read(record).spread(kind))
        assert record.result["ratio_to_equation_2"][kind] == pytest.approx(expected)


def test_the_textbook_layer_needs_several_times_the_equation(record):
    ratio = record.arrays["batch.textbook"][1, 1] / record.arrays["batch.equation_2"][1, 1]
    assert 5 < ratio < 10


def test_pictures_and_tables_are_written(record, tmp_path):
    names = {path.name for path in render(record, tmp_path)}
    assert names == {"tables.md", "tables.json", "extra_memory.svg"}
    picture = (tmp_path / "extra_memory.svg").read_text()
    assert "Equation (2), as printed" in picture and "MiB" in picture
    assert len(summary(record)[0].rows) == 6


@pytest.mark.parametrize(
    "ratio, words",
    [((2, 3, 4), "too low for"), ((0.1, 0.2, 0.3), "too high for"), ((0.5, 1, 2), "too low at some sizes")],
)
def test_the_verdict_follows_the_ratios(ratio, words):
    assert words in verdict("ours", Spread(*ratio))


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (8, 4)}, {"batches": (0, 1)}, {"grid": 0}])
def test_bad_settings_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Fig1Config(**wrong)


def test_sizes_without_a_ratio_are_refused():
    EXPERIMENT.check(Fig1Config())
    with pytest.raises(UsageError, match="O = 1000, B = 1000: Equation"):
        EXPERIMENT.check(Fig1Config(widths=(1, 1000), batch=1000))


def test_a_foreign_record_is_refused(tmp_path):
    with pytest.raises(KansciError, match="lacks what a run of fig2 has"):
        summary(Record(tmp_path, "fig2", {}, "0", "finished"))
