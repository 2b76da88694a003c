"""What a colour means, in every picture: here alone colours are named.

A hue is a kind of network: blue an MLP, orange to rust a KAN of splines, green one of RSWAF, pink a refined KAN, brown
an MLP with splines for activations. Within a hue a tone, a line style and a marker tell variants apart, and so they do
in grey. A winner has the colour of its network; protocols, by which networks are made equal, have a marker and no
colour; truth and data are drawn in ink. The hues are those of Okabe and Ito (2008), told apart by the colour-blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

TRUTH = "#000000"
"""Ink: truth, data, text."""
PAPER = "#ffffff"
SHADE = "#e9e9e9"
"""Areas: the training span, what is out of memory."""
FAINT = "#6b6b6b"
"""Notes, limits, and what is undecided."""
UNDECIDED = FAINT

MLP, KAN, RSWAF, REFINED, SPLINE_MLP, TEXTBOOK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D31", "#6b6b6b"
_RUST, _CRIMSON, _BRICK, _VIOLET, _INDIGO, _FOREST, _LEAF, _SKY = (
    "#8F3B00", "#C23B5A", "#A02C2C", "#8A63A9", "#4B3F99", "#00664A", "#5B8C00", "#3E95CE",
)  # fmt: skip
NETWORKS = {
    "mlp": MLP, "kan": KAN, "spline": KAN, "rswaf": RSWAF, "kan-refined": REFINED, "spline-mlp": SPLINE_MLP,
    "textbook": TEXTBOOK,
}  # fmt: skip
"""Colour of each kind of network."""
SERIES = "#1B7F8C", "#A6761D", "#6F5BA7", "#B3446C", "#6B7F1E", "#6b6b6b"
"""Of what are no networks: trajectories, components of a state."""
SEQUENCE = "#F4A66A", "#E98A3F", "#D55E00", "#A94A00", "#7F3700", "#552500"
"""Tones of a KAN with fixed grids, from coarse to fine."""
DARK = {
    TRUTH: "#e4e6e8", PAPER: "#15181c", SHADE: "#2d333a", FAINT: "#a4abb4", MLP: "#4ba6e3", _RUST: "#ff9d57",
    _BRICK: "#e88080", _INDIGO: "#9d92e6", _FOREST: "#4fc39d", "#7F3700": "#ffc79c", "#552500": "#ffe3cd",
}  # fmt: skip
"""What these are in pictures on a dark ground; the others are read on both."""

PROTOCOL_MARKS = {"width": "s", "params": "D", "params-up": "v", "flops": "^", "flops-up": "P", "time": "o"}
"""Marker of each way to make networks equal."""


@dataclass(frozen=True)
class VariantStyle:
    """Name in legends, colour, line style, and marker of one model variant."""

    name: str
    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str

    def on(self, backend: str) -> VariantStyle:
        """The same variant on one of two backends: dotted on Julia."""
        style = replace(self, name=f"{self.name} ({backend.capitalize()})")
        return replace(style, line=(0, (1, 1)), marker="X") if backend == "julia" else style


_DASH, _DOT, _DASHDOT, _LONG, _DOTS = (
    (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
_KNOWN = {
    "mlp": VariantStyle("MLP", MLP, "-", "o"),
    "mlp-tuned": VariantStyle("MLP, tuned", _SKY, "-", "v"),
    "mlp-scratch": VariantStyle("MLP, from scratch", _SKY, (0, (3, 1.5)), "v"),
    "kan": VariantStyle("KAN", KAN, _DASH, "s"),
    "kan-tuned": VariantStyle("KAN, tuned", _BRICK, _DASH, "^"),
    "kan-width": VariantStyle("KAN, equal width", KAN, _DASH, "s"),
    "kan-params": VariantStyle("KAN, equal parameters", _RUST, _DASHDOT, "D"),
    "kan-flops": VariantStyle("KAN, equal FLOPs", _CRIMSON, _DOTS, "^"),
    "kan-unscaled": VariantStyle("KAN, unscaled state", _VIOLET, _DOT, "^"),
    "kan-tanh": VariantStyle("KAN, tanh of the state", _INDIGO, _LONG, "v"),
    "kan-refined": VariantStyle("KAN, refined", REFINED, _DASHDOT, "v"),
    "kan-spline": VariantStyle("KAN, splines", KAN, _DASH, "s"),
    "kan-spline-params": VariantStyle("KAN, splines, equal parameters", _RUST, _DOT, "^"),
    "kan-spline-flops": VariantStyle("KAN, splines, equal FLOPs", _CRIMSON, _DOTS, "P"),
    "kan-spline-replace": VariantStyle("KAN, splines, replace", _VIOLET, (0, (3, 1.5)), "P"),
    "kan-spline-head": VariantStyle("KAN, splines, head", _BRICK, (0, (7, 1.5, 1.5, 1.5)), "X"),
    "kan-spline-grouped": VariantStyle("KAN, splines, grouped", _INDIGO, _DOTS, "<"),
    "kan-rswaf": VariantStyle("KAN, RSWAF", RSWAF, _DASHDOT, "D"),
    "kan-rswaf-params": VariantStyle("KAN, RSWAF, equal parameters", _FOREST, _LONG, "v"),
    "kan-rswaf-flops": VariantStyle("KAN, RSWAF, equal FLOPs", _LEAF, (0, (7, 1.5, 1.5, 1.5)), "X"),
    "spline-mlp": VariantStyle("spline MLP", SPLINE_MLP, (0, (3, 1.5)), "P"),
    "textbook": VariantStyle("KAN, textbook recursion", TEXTBOOK, _DOTS, "^"),
}
_OTHERS = (
    (SERIES[0], (0, (3, 1.5)), "P"),
    (SERIES[1], (0, (7, 1.5, 1.5, 1.5)), "X"),
    (SERIES[2], _DOTS, "<"),
    (SERIES[3], (0, (2, 2.5)), ">"),
)


def variant_styles(variants: Iterable[str]) -> Mapping[str, VariantStyle]:
    """A style for each of `variants`, in their order: the known ones always look the same, others take what is left."""
    others = iter(_OTHERS * 8)
    return {one: _KNOWN[one] if one in _KNOWN else VariantStyle(one, *next(others)) for one in dict.fromkeys(variants)}


def dark_css(scope: str = "") -> str:
    """Rules that turn pictures (SVG, as `save_figure` writes them) dark where the reader's screen is.

    Args:
        scope: what stands before each selector, such as ``.plate`` and a blank (default: the picture's own file).
    """
    rules = [f"{scope}svg {{ fill: {DARK[TRUTH]} }}"]  # a black fill is not written out
    for light, dark in DARK.items():
        for what in ("fill", "stroke"):
            rules.append(f'{scope}[style*="{what}: {light.lower()}"] {{ {what}: {dark} !important }}')
    return "@media screen and (prefers-color-scheme: dark) { " + " ".join(rules) + " }"
