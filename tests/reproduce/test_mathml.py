"""Formulas in plain text: found, told from what only looks like one, and typeset."""

from __future__ import annotations

import re

import pytest

from kansciml.reproduce.page.mathml import with_formulas
from kansciml.reproduce.page.words import prose

SIGNS = {"\u2212": "-", "\u00d7": "*", "\u00b1": "+-", "\u2265": ">="}


def shown(text: str) -> str:
    """What is typeset between bars, without its tags, in plain signs."""
    found = re.sub("<[^>]*>", "", re.sub("</?math>", "|", str(with_formulas(text))))
    return found.translate(str.maketrans(SIGNS))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("I O (2 + G + S) - I (O + 1)", "|IO(2+G+S)||-I(O+1)|"),  # two, so that a line can break
        ("I [2 (G + S) B + (G + S + 1) O - 1] - O B", "|I[2(G+S)B||+(G+S+1)O||-1]||-OB|"),
        ("at I = O = 64, G = 5 (S = 3).", "at |I=O=64|, |G=5| (|S=3|)."),
        ("10^-10; k^2 edges, P^-a with a = 2.1, O(G^2), 10^9 bytes", "|10-10|; |k2| edges, |P-a| with |a=2.1|, |O(G2)|,"
         " |109| bytes"),
        ("MLP 5.59e-6 (1e-07 to `2e-7`)", "MLP |5.59*10-6| (|10-7| to `|2*10-7|`)"),
        ("3e-7 +- 1e-8, 0.3 +- 0.1", "|3*10-7+-10-8|, 0.3 +- 0.1"),
        ("n >= 2 & p < 0.05", "|n>=2| &amp; |p&lt;0.05|"),
        ("I (O + 1", "I (|O+1|"),
    ],
)  # fmt: skip
def test_formulas_are_found(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    ["Equation (2) allows [3] (section 3.2) 5 (4 of 5)", "a KAN 2-50-2, a 2 layer, B-spline, L-BFGS, a-e-3",
     "-240 to 240", "MLP - KAN, Table 1, G, the model's 3", "1,024 of 16 GB", ""],
)  # fmt: skip
def test_other_text_stays_as_it_is(text):
    assert "<math>" not in with_formulas(text) and shown(text).replace("&#39;", "'") == text


def test_a_power_is_one_and_a_sign_before_it_is_its_own():
    assert "<msup><mi>P</mi><mrow><mo>\u2212</mo><mi>a</mi></mrow></msup>" in with_formulas("error ~ P^-a")
    assert "<msup><mrow><mo>(</mo><mi>G</mi><mo>+</mo><mi>S</mi><mo>)</mo></mrow><mrow><mn>2</mn></mrow></msup>" in (
        with_formulas("(G + S)^2")
    )


def test_times_is_a_sign_and_no_letter():
    assert with_formulas("29 x 29 points, 36.3 x; x is") == "29 \u00d7 29 points, 36.3 \u00d7; x is"


def test_no_line_breaks_between_a_formula_and_what_ends_it_and_code_is_no_formula():
    assert str(with_formulas("G = 5, so")).startswith('<span class="whole"><math>')
    assert str(with_formulas("a KAN (G = 5)")).endswith("</math>)</span>")
    assert prose("as `I = O` <b>") == "as <code>I = O</code> &lt;b&gt;"
