"""Every edge of a small network has its panel and lines; a large one shows its strongest edges and counts the rest."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from kansciml import KAN, UsageError
from kansciml.layers.reading.picture import edge_functions_figure
from kansciml.reporting.style import save_figure


def network(*widths, seed=0):
    rng = np.random.default_rng(seed)
    layers = []
    for i, o in zip(widths, widths[1:]):
        x = np.linspace(-1, 1, 40)[:, None].repeat(i, 1)
        layers.append((x, rng.uniform(0.1, 1, (i, o)) * np.sin(x[:, :, None] * rng.normal(2, 1, (i, o)))))
    return layers


def opacities(axes):
    return [one.lines[0].get_alpha() for one in axes]


def test_a_small_network_has_a_panel_two_lines_and_its_own_curve_per_edge():
    curves = network(2, 5, 1)
    figure = edge_functions_figure(curves, inputs=["prey", "predator"], outputs=[1])
    plane, *panels = figure.axes
    assert [axes.get_label() for axes in panels[:6]] == [f"layer 1: 1 to {o}" for o in range(1, 6)] + [
        "layer 1: 2 to 1"
    ]
    drawn = [axes.lines[0].get_xydata() for axes in panels]
    expected = [np.stack([x[:, i], y[:, i, o]], 1) for x, y in curves for i, o in np.ndindex(y.shape[1:])]
    np.testing.assert_array_equal(drawn, expected)
    nodes = [line for line in plane.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in nodes] == [2, 5, 1]
    assert len(plane.lines) - len(nodes) == 2 * len(panels)
    assert [text.get_text() for text in plane.texts] == ["prey", "predator", "1"]


def test_lines_of_the_diagram_meet_the_nodes_that_the_edge_joins():
    plane = edge_functions_figure(network(2, 3)).axes[0]
    left, right = (line.get_xydata() for line in plane.lines if line.get_marker() == "o")
    edges = [line.get_xydata() for line in plane.lines if line.get_marker() != "o"]
    for index, (i, o) in enumerate(np.ndindex(2, 3)):
        np.testing.assert_allclose(edges[2 * index][0], left[i])
        np.testing.assert_allclose(edges[2 * index + 1][1], right[o])


def test_panels_lie_inside_the_picture_and_do_not_overlap():
    figure = edge_functions_figure(network(4, 5, 2, 1))
    boxes = [axes.get_position() for axes in figure.axes[1:]]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_opacity_follows_the_norm_and_a_zero_edge_stays_visible():
    curves = network(1, 3)
    curves[0][1][:, 0, 2] = 0.0
    panels = edge_functions_figure(curves, norms=[np.array([[2.0, 1.0, 0.0]])]).axes[1:]
    first, second, zero = opacities(panels)
    assert first == 1 and first > second > zero > 0.1
    by_default = edge_functions_figure(curves)
    assert list(np.argsort(opacities(by_default.axes[1:]))) == list(np.argsort(np.abs(curves[0][1]).mean(0)[0]))
    assert all(np.isfinite(axes.get_ylim()).all() for axes in by_default.axes)


def test_a_large_network_shows_the_strongest_edges_and_counts_the_others():
    curves = network(2, 50, 2)
    norms = [np.ones((2, 50)), np.ones((50, 2))]
    norms[0][1, 30] = 9.0
    figure = edge_functions_figure(curves, norms, max_panels=20)
    titles = [axes.get_title() for axes in figure.axes if axes.lines]
    assert len(titles) == 20 and "1: x2 → 31" in titles
    assert figure.get_supxlabel() == "180 of 200 edges left out: those of smallest norm"
    everything = edge_functions_figure(network(3, 8))
    assert sum(bool(axes.lines) for axes in everything.axes) == 24 and not everything.get_supxlabel()


def test_pictures_are_written_the_same_twice(tmp_path):
    for name, widths in (("small", (2, 2)), ("large", (2, 30))):
        pictures = (edge_functions_figure(network(*widths), max_panels=5) for _ in range(2))
        first, second = (save_figure(one, tmp_path / folder, name) for one, folder in zip(pictures, "ab"))
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_network_is_drawn_over_what_reaches_its_edges():
    net = KAN((2, 3, 1), outside="linear", dtype=torch.float64)
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 - 1
    panels = net.plot(x, outputs=["z"]).axes[1:]
    hidden = net.layers[0](x).detach()
    for axes, seen in zip(panels, [*x.T[[0, 0, 0, 1, 1, 1]], *hidden.T]):
        at = axes.lines[0].get_xdata()
        np.testing.assert_allclose([at[0], at[-1]], [seen.min(), seen.max()])
    first = net.layers[0]
    one_input = [first(torch.stack([a, x[0, 1]])) for a in (x[0, 0], x[1, 0])]  # only the edges of input 1 differ
    drawn = [[np.interp(float(a), *axes.lines[0].get_data()) for axes in panels[:3]] for a in (x[0, 0], x[1, 0])]
    np.testing.assert_allclose(np.subtract(*drawn), (one_input[0] - one_input[1]).detach(), atol=1e-3)
    lone = KAN((1, 2), dtype=torch.float64)
    seen = x[:, :1] / 2
    means = [layer(seen).detach().abs().mean(0) for layer in lone.layers]  # of one input, a layer's output is its edges
    found = opacities(lone.plot(seen).axes[1:])
    np.testing.assert_allclose((np.array(found) - 0.15) / 0.85, means[0] / means[0].max())
    assert opacities(lone.plot().axes[1:]) != found


def test_a_picture_is_written_in_the_format_of_its_ending(tmp_path):
    net = KAN((2, 2, 1))
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        net.plot(path=tmp_path / "new" / f"kan.{ending}")
        assert (tmp_path / "new" / f"kan.{ending}").read_bytes().startswith(start)
    with pytest.raises(UsageError, match=r"got path 'kan.doc': expected an ending among .*\.pdf"):
        net.plot(path="kan.doc")


def test_what_cannot_be_drawn_is_one_clear_line():
    bad = torch.tensor([[0.1, float("nan")]])
    for network_, x, message in (
        (KAN((2, 2)), bad, "inputs of layer 1 .*finite"),
        (KAN((2, 2)), torch.rand(0, 2), "at least one row"),
        (KAN((2, 2)), torch.rand(4, 3), r"expected \(\.\.\., 2\)"),
        (KAN((3, 2), layer="rswaf"), None, "expected SplineKAN"),
    ):
        with pytest.raises(ValueError, match=message):
            network_.plot(x)


def test_bad_curves_are_one_clear_line():
    x, y = network(2, 3)[0]
    bad = [
        (([],), "got no layers"),
        ((KAN((2, 3)),), "got KAN: expected a pair x, y of each layer, as KAN.edge_curves"),
        (((x, y),), "got tuple: expected a pair x, y of each layer"),
        (([(x, y[:, :1])],), "layer 1"),
        (([(x, y), (x, y)],), "2 inputs in layer 2: expected 3"),
        (([(x, np.where(y > 0, np.nan, y))],), "NaN or infinite"),
        (([(x, y)], [np.ones((3, 2))]), "norms of shapes"),
        (([(x, y)], [-np.ones((2, 3))]), "at least 0"),
        (([(x, y)], None, ["only one"]), "1 names of inputs: expected 2"),
        (([(x, y)], None, None, None, 0), "max_panels 0"),
    ]
    for arguments, message in bad:
        with pytest.raises(UsageError, match=message) as error:
            edge_functions_figure(*arguments)
        assert "\n" not in str(error.value)


def test_only_drawing_loads_matplotlib():
    code = "import sys, kansciml.layers.reading.picture; print({'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
