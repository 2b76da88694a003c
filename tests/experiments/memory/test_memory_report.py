"""Report of Figure 4: tables and picture hold the record's numbers, and the verdict follows the ratios."""

import json

import numpy as np
import pytest
from support.fig4_records import make

from kansciml import KansciError
from kansciml.experiments.memory.record import GB, MB, MemoryRecord
from kansciml.experiments.memory.report import memory_figure, render, summary, variant_styles, verdict
from kansciml.reporting.style import publication_style


def test_the_table_holds_the_curves_and_their_ratios(tmp_path):
    table = summary(make(tmp_path))[0].to_json()
    assert len(table["rows"]) == 8
    mlp, textbook = table["rows"][:2]
    assert (mlp["MB per sample"], mlp["over MLP"], mlp["reference MB"], mlp["reference batch"]) == (4, 1, 3.9, 4038)
    assert (textbook["MB per sample"], textbook["over MLP"], textbook["batch in 16 GB"]) == (140, 35, 114)
    assert textbook["reference MB"] is None
    assert mlp["weights + AdamW MB"] == 0.012
    above = [line["above MLP up to batch"] for line in table["rows"][:4]]
    assert above == [None, 128, None, 8192]  # the textbook's curve ends at 128


def test_the_points_are_there_as_measured_and_absent_where_they_were_not(tmp_path):
    table = summary(make(tmp_path))[1].to_json()
    assert [line["batch size"] for line in table["rows"]] == [1, 64, 128, 8192]
    last = table["rows"][-1]
    assert last["MLP [GB]"] == pytest.approx((4 * MB * 8192 + 12_000 + 100 * 8192) / GB)
    assert last["KAN, textbook recursion [GB]"] is None


def said(tmp_path, slopes, model="one", **changed):
    """The verdict on a model, of a record with these MB per sample; `changed` are fields of its last curve."""
    record = make(tmp_path, slopes=slopes)
    record.result["curves"][len(slopes) - 1] |= changed
    return verdict(MemoryRecord.read(record), model)


@pytest.mark.parametrize(
    "slope, words",
    [
        (8.0, "significantly higher, as the paper says"),
        (7.9, "higher, but not by much"),
        (4.3, "higher, but not by much"),
        (4.2, "(not higher"),
        (2.0, "(not higher"),
    ],
)
def test_the_verdict_follows_the_ratio(tmp_path, slope, words):
    found = said(tmp_path, {"mlp": 4.0, "kan-spline": slope})
    assert words in found and f"SplineKAN {slope / 4:.3g} times" in found and "RSWAF" not in found


def test_the_verdict_tells_where_small_batches_take_more(tmp_path):
    record = make(tmp_path, slopes={"mlp": 4.0, "kan-spline": 3.0, "textbook": 140.0})
    assert "more in all" not in verdict(MemoryRecord.read(record), "one")
    record.arrays["one.kan-spline.total"][:2] += 10**9
    found = verdict(MemoryRecord.read(record), "one")
    assert "not higher, but more in all up to batch 64" in found and "128" not in found


def test_no_verdict_without_a_baseline_or_from_small_batches(tmp_path):
    assert "no verdict" in said(tmp_path, {"textbook": 40.0})
    assert "no KAN was measured" in said(tmp_path, {"mlp": 4.0})
    found = said(tmp_path, {"mlp": 4.0, "kan-spline": 1.0}, kept_bytes=2e6)
    assert "too small to tell" in found and "not higher" not in found


def test_points_out_of_memory_are_hollow_and_all_are_drawn(tmp_path):
    record = make(tmp_path)
    with publication_style():
        figure = memory_figure(MemoryRecord.read(record))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["one\nwidths 1-2-3", "two\nwidths 1-2-3"]
    marks = [line for line in panels[0].lines if line.get_marker() not in ("None", None, "")]
    hollow = [line for line in marks if line.get_markerfacecolor() == "white"]
    filled = [line for line in marks if line.get_markerfacecolor() != "white"]
    drawn = np.concatenate([line.get_ydata() for line in hollow])
    assert len(drawn) == 4 and (drawn > 16).all()  # the last point of each curve
    assert (np.concatenate([line.get_ydata() for line in filled]) <= 16).all()
    everything = np.concatenate([values for name, values in record.arrays.items() if name.endswith("total")]) / GB
    assert sum(len(line.get_ydata()) for line in marks) == len(everything) / 2
    low, high = panels[0].get_ylim()
    assert low < everything.min() and everything.max() < high
    curve = next(line for line in panels[0].lines if len(line.get_xdata()) == 200)
    x, y = curve.get_data()
    assert np.allclose(y, ((4 * MB + 100) * x + 12_000) / GB)  # straight in the batch size


@pytest.mark.parametrize("models", [("one",), ("one", "two", "three", "four")])
def test_any_number_of_models_has_its_panels(tmp_path, models):
    with publication_style():
        figure = memory_figure(MemoryRecord.read(make(tmp_path, models)))
        figure.canvas.draw()  # its layout is worked out, and warnings are errors
    assert sum(axes.get_visible() for axes in figure.axes) == len(models)


def test_pictures_and_tables_are_written(tmp_path):
    paths = render(make(tmp_path), tmp_path)
    assert {path.name for path in paths} == {"tables.md", "tables.json", "memory.svg"}
    picture = (tmp_path / "memory.svg").read_text()
    assert "16 GB" in picture and "out of memory" in picture and "MB per sample" in picture and "140" in picture
    assert len(json.loads((tmp_path / "tables.json").read_text())) == 3


def test_variants_look_apart():
    styles = variant_styles(["mlp", "textbook", "kan-spline", "kan-rswaf", "other"])
    for what in ("name", "colour", "line", "marker"):
        assert len({getattr(style, what) for style in styles.values()}) == 5


@pytest.mark.parametrize(
    "name, value, words", [("precision", "bf16-mixed", "bfloat16"), ("device", "gpu", "suit a GPU")]
)
def test_what_is_particular_is_said(tmp_path, name, value, words):
    record = make(tmp_path)
    assert words not in " ".join(summary(record)[0].notes)
    record.config[name] = value
    assert words in " ".join(summary(record)[0].notes)


@pytest.mark.parametrize("changes", [{"experiment": "fig1"}, {"arrays": {}}, {"result": {}}])
def test_another_record_is_refused(tmp_path, changes):
    with pytest.raises(KansciError, match="no finished run of figure 4"):
        summary(make(tmp_path, **changes))
