"""The report of neural operators from made-up records: numbers in tables, verdicts, pictures that hold their text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.fig5_records import EPOCHS, GROUPS, make
from support.pictures import assert_text_fits, rows_of

from kansciml import KansciError
from kansciml.experiments.fig5.experiment import EXPERIMENT as fig5
from kansciml.experiments.fno import report as fno
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.report import curves_by_residual, draw_curves, prediction_maps
from kansciml.reporting.style import publication_style
from kansciml.runs.archive import without_arrays
from kansciml.runs.records import Record


def test_tables_hold_the_numbers_of_the_record(tmp_path):
    claims, error, resolution, cost = fig5.summary(make(tmp_path))
    found = rows_of(error)
    assert [row["Model"] for row in found] == [
        "MLP", "KAN, splines (G=5, S=3)", "MLP, residual", "KAN, splines (G=5, S=3), residual"
    ]  # fmt: skip
    assert found[0]["Parameters"] == 2_376_449 and found[0]["Seeds"] == 7
    assert found[0]["Test error"] == pytest.approx(0.00618) and found[1]["max"] == pytest.approx(0.00954)
    assert rows_of(resolution)[1]["17 x 17"] == pytest.approx(2 * rows_of(resolution)[1]["9 x 9"])
    costs = rows_of(cost)
    assert [row["time over MLP"] for row in costs] == pytest.approx([1, 1.3, 1, 120 / 110])
    assert costs[1]["over MLP"] == pytest.approx(2_415_168 / 2_376_449)
    assert [table.title for table in fno.summary(make(tmp_path))] == [
        error.title, resolution.title, cost.title, claims.title
    ]  # fmt: skip


def test_the_papers_claims_are_judged_by_seeds(tmp_path):
    without, with_, *helps = rows_of(fig5.summary(make(tmp_path))[0])
    assert without["Claim"] == "MLP lower, without residual" and without["Verdict"] == "supported"
    assert without["Error over other"] == pytest.approx(1.5) and without["p"] == 2 / 128
    assert with_["Claim"] == "KAN lower, with residual" and with_["Verdict"] == "supported"
    assert with_["Error over other"] == pytest.approx(50 / 59)
    assert [(row["Paper"], row["Verdict"]) for row in helps] == [(None, "supported"), ("yes", "supported")]
    assert without["After Holm"] == "supported" and without["p after Holm"] == 2 * 2 / 128
    assert [without[name] for name in ("from", "to")] == pytest.approx([1.5, 1.5])
    bad = tuple(("kan-spline-residual", seed) for seed in range(7))
    refuted = rows_of(fig5.summary(make(tmp_path, diverged=bad))[0])[1]
    assert refuted["Verdict"] == refuted["After Holm"] == "refuted" and math.isinf(refuted["Error over other"])
    few = rows_of(fig5.summary(make(tmp_path, seeds=3))[0])
    assert {row["Verdict"] for row in few} == {"undecided"} and "claim of 2 takes 7 seeds" in few[0]["Why"]


def test_one_kind_of_network_has_no_claims_and_one_resolution_no_table(tmp_path):
    record = make(tmp_path, groups=(("kan-spline", False),), others=())
    assert [table.title for table in fig5.summary(record)] == ["Error", "Cost of training"]
    assert rows_of(fig5.summary(record)[1])[0]["time over MLP"] is None


def test_curves_are_medians_in_a_column_without_and_one_with_residual(tmp_path):
    record = FnoRecord.read(make(tmp_path))
    with publication_style():
        figure = curves_by_residual(record, "darcy9-fno-wt")
        over_time = draw_curves(record, "darcy9-fno-wt")
    loss, other, error, residual = figure.axes
    assert (loss.get_title(), other.get_title()) == ("without residual", "with residual")
    assert loss.get_yscale() == "log" and len(error.lines) == len(residual.lines) == 2
    mlp, kan = error.lines
    assert mlp.get_color() == "#0072B2" and mlp.get_ydata()[-1] == pytest.approx(0.00618, rel=0.01)
    assert residual.lines[1].get_ydata()[-1] < residual.lines[0].get_ydata()[-1] < kan.get_ydata()[-1]
    assert len(error.collections) == 2  # a band each
    assert over_time.axes[1].lines[0].get_xdata()[-1] == pytest.approx(EPOCHS * 10)
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["MLP", "KAN, splines (G=5, S=3)"]


def test_maps_share_their_colour_scales_and_show_the_errors(tmp_path):
    made = make(tmp_path)
    record = FnoRecord.read(made)
    with publication_style():
        figure = prediction_maps(record, "darcy9-fno-wt", 1)
        assert prediction_maps(record, "darcy9-fno-wt", 3) is None
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]
    top, bottom = images[:5], images[5:]
    assert len({image.get_clim() for image in top}) == 1 and len({image.get_clim() for image in bottom[1:]}) == 1
    u = made.arrays["darcy9.u"][1]
    np.testing.assert_allclose(top[0].get_array(), u.T)
    np.testing.assert_allclose(bottom[2].get_array(), 0.009 * u.T)  # KAN without residual, seed 0
    assert bottom[2].get_clim() == (0.0, pytest.approx(0.009 * u.max()))  # it has the largest error
    assert "relative 0.009" in bottom[2].axes.get_title()


def test_text_stays_inside_the_figure_and_titles_do_not_overlap(tmp_path):
    record = FnoRecord.read(make(tmp_path, epochs=4))
    for draw in (draw_curves, curves_by_residual, lambda *of: prediction_maps(*of, 0)):
        with publication_style():
            figure = draw(record, "darcy9-fno-wt")
            figure.draw_without_rendering()
            assert_text_fits(figure)
            titled = [axes for axes in figure.axes if axes.get_title()]
            boxes = [axes.title.get_window_extent() for axes in titled]
            for i, one in enumerate(boxes):
                assert not any(one.overlaps(two) for two in boxes[i + 1 :])


def test_pictures_and_tables_are_written_and_the_diverged_left_out(tmp_path):
    record = make(tmp_path, diverged=(("mlp", 0),))
    unshown = fno.unshown(record)
    assert len(unshown) == len([name for name in record.arrays if name.endswith(".prediction")]) - len(GROUPS)
    names = {path.name for path in fig5.render(without_arrays(record, unshown), tmp_path)}
    stems = ("curves", "prediction_1", "prediction_2", "prediction_3")
    assert names == {"tables.md", "tables.json", *(f"{stem}.svg" for stem in stems)}
    assert "fno-wt on Darcy flow, 9 x 9" in (tmp_path / "curves.svg").read_text()
    assert any("MLP: 1 of 7 seeds diverged" in note for table in fno.summary(record) for note in table.notes)
    everything = tuple((f"{variant}{'-residual' * residual}", 0) for variant, residual in GROUPS)
    names = {path.name for path in fno.render(make(tmp_path, seeds=1, diverged=everything), tmp_path / "none")}
    assert "curves.svg" in names and "prediction_1.svg" not in names


def test_another_record_is_one_line(tmp_path):
    other = Record(tmp_path, "ode", {}, "0" * 12, "finished", result={"runs": [{"status": "finished"}]})
    with pytest.raises(KansciError, match="without trained neural operators"):
        fig5.summary(other)
    empty = Record(tmp_path, "fno", {}, "0" * 12, "finished", result={"runs": [], "data": {}})
    with pytest.raises(KansciError, match="without trained neural operators"):
        fno.render(empty, tmp_path)
