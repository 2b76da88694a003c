"""A colour means one thing: networks are told apart on light and dark ground, by the colour-blind, and in grey."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from kansciml.reporting.palette import (
    DARK,
    FAINT,
    NETWORKS,
    PAPER,
    PROTOCOL_MARKS,
    SERIES,
    TRUTH,
    dark_css,
    variant_styles,
)  # fmt: skip
from kansciml.reporting.style import new_figure, publication_style, save_figure

HUES = sorted({colour for colour in NETWORKS.values() if colour != FAINT})
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
"""On linear RGB, after Machado, Oliveira & Fernandes (2009)."""


def linear(colour):
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    low, high = sorted(float(linear(one) @ [0.2126, 0.7152, 0.0722]) for one in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_networks_are_told_apart(sight):
    seen = {colour: lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in HUES}
    for a, b in itertools.combinations(HUES, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 15, (a, b)


def test_every_colour_is_seen_on_paper_and_on_a_dark_ground():
    every = [style.colour for style in variant_styles(["mlp", "kan-params", "kan-tuned", "kan-rswaf-params"]).values()]
    for colour in [*HUES, *SERIES, *every, TRUTH, FAINT]:
        assert contrast(colour, PAPER) > 3, colour
        assert contrast(DARK.get(colour, colour), DARK[PAPER]) > 3, colour


def test_a_winner_s_colour_is_its_network_s_and_no_protocol_has_one():
    assert NETWORKS["kan"] == variant_styles(["kan-width"])["kan-width"].colour != NETWORKS["mlp"]
    assert len(set(PROTOCOL_MARKS.values())) == len(PROTOCOL_MARKS)
    assert not set(SERIES) - {FAINT} & set(NETWORKS.values())


def test_every_variant_looks_different_and_known_ones_always_the_same():
    names = ["mlp", "kan-width", "kan-params", "kan-unscaled", "rswaf", "wavelet"]
    styles = variant_styles(names)
    assert list(styles) == names
    for attribute in ("colour", "line", "marker", "name"):
        assert len({getattr(style, attribute) for style in styles.values()}) == len(names)
    assert variant_styles(["rswaf", "mlp"])["mlp"] == styles["mlp"]


def test_a_picture_s_file_turns_dark_with_the_screen(tmp_path):
    with publication_style():
        figure = new_figure(2.0)
        figure.subplots().axvspan(0, 1, color=TRUTH)
    text = save_figure(figure, tmp_path, "a")[0].read_text()
    assert dark_css() in "".join(ET.fromstring(text).itertext())
    for what in (f"fill: {PAPER}", f"stroke: {TRUTH}"):  # the rules match what is written
        assert f'[style*="{what}"]' in text and what in text.split("</style>")[1]
    assert ".plate svg {" in dark_css(".plate ")
