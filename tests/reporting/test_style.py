"""Pictures are repeatable to the byte, keep their text as text, and leave the user's matplotlib settings alone."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from matplotlib.lines import Line2D

from kansciml import KansciError
from kansciml.reporting.legends import place_legend, uniform_ticks
from kansciml.reporting.style import new_figure, publication_style, save_figure


def draw():
    with publication_style():
        figure = new_figure(2.0)
        axes = figure.subplots()
        axes.plot([1, 2, 3], [1, 10, 100])
        axes.fill_between([1, 2], [1, 2], [2, 3], alpha=0.3)
        axes.set_title("a title")
    return figure


def test_files_are_the_same_twice_and_the_svg_holds_text(tmp_path, every_format):
    first, *others = save_figure(draw(), tmp_path / "a", "figure")
    again = save_figure(draw(), tmp_path / "b", "figure")
    assert [path.read_bytes() for path in (first, *others)] == [path.read_bytes() for path in again]
    texts = [element.text for element in ET.parse(first).iter("{http://www.w3.org/2000/svg}text")]
    assert "a title" in texts
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.pdf", "figure.png", "figure.svg"]


def test_the_users_settings_neither_matter_nor_change(tmp_path):
    import matplotlib

    plain = save_figure(draw(), tmp_path / "a", "figure")[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert save_figure(draw(), tmp_path / "b", "figure")[0].read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30 and matplotlib.rcParams["axes.grid"]


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KansciError, match="cannot write"):
        save_figure(draw(), tmp_path / "file", "figure")


def test_only_drawing_loads_matplotlib():
    code = (
        "import sys; import kansciml.experiments.ode.report, kansciml.reporting.style, kansciml.runs.records;"
        "print([name for name in ('torch', 'matplotlib', 'juliacall') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("label", ["MLP", "KAN, splines (G=5, S=3)", "KAN, splines (G=5, S=3), equal parameters, fair"])
def test_a_legend_below_takes_as_many_columns_as_fit(label):
    with publication_style():
        figure = new_figure(3.0)
        figure.subplots(1, 2)
        place_legend(figure, [Line2D([], [], label=label) for _ in range(5)], "line: median")
        figure.set_dpi(200)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.width and legend.get_title().get_text() == "line: median"
    lefts = {round(text.get_window_extent().x0) for text in legend.get_texts()}
    assert len(lefts) == (5 if len(label) < 10 else 3 if len(label) < 40 else 2)


@pytest.mark.parametrize("size", [(2.3, 3.2), (2.0, 7.0), (8.0, 7.0)])
@pytest.mark.parametrize("count, note", [(2, "mark: one seed"), (6, ""), (0, "a long note " * 20)])
def test_a_legend_takes_less_than_a_third_and_the_panels_keep_their_size(size, count, note):
    with publication_style():
        figure = new_figure(*size)
        axes = figure.subplots()
        figure.draw_without_rendering()
        before = axes.get_window_extent()
        place_legend(figure, [Line2D([], [], label="KAN, equal parameters") for _ in range(count)], note)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box, after = legend.get_window_extent(), axes.get_window_extent()
    assert box.width * box.height < figure.bbox.width * figure.bbox.height / 3
    assert not box.overlaps(axes.get_tightbbox()) and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert after.width == pytest.approx(before.width, rel=0.05) and after.height == pytest.approx(
        before.height, rel=0.05
    )


def test_logarithmic_axes_have_the_same_kind_of_ticks():
    def shown(*spans):
        with publication_style():
            panels = (figure := new_figure(2.0)).subplots(1, len(spans), squeeze=False)[0]
            for ends, axes in zip(spans, panels):
                axes.set(yscale="log", ylim=ends)
            uniform_ticks(figure)
            assert not any(len(axes.yaxis.get_minorticklocs()) for axes in panels)
            return [{text.get_text() for text in axes.get_yticklabels()} for axes in panels]

    few, narrow, many = shown((0.5, 12), (0.08, 0.11), (20, 9000))
    assert {"0.5", "1", "2", "5", "10"} <= few and {"0.09", "0.1"} <= narrow and {"100", "1000"} <= many
    wide, beside = shown((2e-9, 3), (0.02, 12))  # one panel in powers of ten, all in powers of ten
    assert "$10^{-6}$" in wide and {"$10^{-1}$", "$10^{1}$"} <= beside


def test_evenly_spaced_ticks_that_begin_at_zero_leave_a_logarithmic_axis_drawable():
    with publication_style():
        figure = new_figure(2.0)
        axes = figure.subplots()
        axes.set(yscale="log", ylim=(0.9e-5, 4.4e-5))
        uniform_ticks(figure)
        figure.draw_without_rendering()
    assert r"$2\times10^{-5}$" in [text.get_text() for text in axes.get_yticklabels()]


@pytest.mark.parametrize("backend", ["nonsense", "module://none.such"])
def test_the_environment_s_backend_does_not_matter(tmp_path, backend):
    code = (
        "import os\nfrom pathlib import Path\nfrom kansciml.reporting.style import *\n"
        "with publication_style():\n    figure = new_figure(1.0)\n"
        f"print(len(save_figure(figure, Path({str(tmp_path)!r}), 'figure')), os.environ['MPLBACKEND'])\n"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", backend], done.stderr
