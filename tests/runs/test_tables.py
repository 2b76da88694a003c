"""One set of rows, three forms; numbers formatted in one place."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from kansciml.runs.tables import Table, format_number, save_tables

TABLE = Table(
    "Final loss",
    ["System", "Model | kind", "Parameters", "MSE (squared state units)"],
    [["Lotka-Volterra", "MLP", 252, 1.23456e-6], ["Spiral", "KAN of equal parameters", 24000, None]],
    ["A note."],
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (252, "252"), (1_234_567, "1234567"), (np.int64(7), "7"), (1.23456e-6, "1.23e-6"),
        (-1.23456e-6, "-1.23e-6"), (0.00123456, "0.00123"), (0.00099996, "0.00100"), (0.000994, "9.94e-4"),
        (0.0123, "0.0123"), (12.345, "12.3"), (99.96, "100"), (12345.6, "12300"), (99999.0, "1.00e5"),
        (1e300, "1.00e300"), (np.float32(0.5), "0.500"), (math.nan, "-"), (None, "-"), (math.inf, "inf"),
        (-math.inf, "-inf"), (True, "yes"), (np.False_, "no"), ("text", "text"),
    ],
)  # fmt: skip
def test_format_number(value, text):
    assert format_number(value) == text


def test_text_is_aligned():
    title, *head, rule, first, second, note = TABLE.text().splitlines()
    assert title == "Final loss" and note == "A note."
    assert set(rule) == {"─"} and len(rule) >= len(first)
    # Text is flush left under its heading, numbers flush right under each other.
    assert first.index("MLP") == second.index("KAN") == head[-1].index("Model | kind")
    assert first.index("252") + 3 == second.index("24000") + 5
    assert first.index("1.23e-6") + 7 == len(second.rstrip()) == second.rindex("-") + 1


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_narrow_text_breaks_words_but_never_numbers_and_fits_where_it_can(width):
    text = TABLE.text(width)
    for shown in ("252", "24000", "1.23e-6", "Lotka-Volterra", "parameters"):
        assert shown in text
    assert "…" not in text
    if width >= 60:
        assert max(map(len, text.splitlines())) <= width and max(map(len, TABLE.text().splitlines())) > 60


def test_print_has_no_colour_codes_outside_a_terminal_and_leaves_markup_alone():
    stream = io.StringIO()
    Table("[t]", ["a"], [["[bold]"]]).print(stream)
    assert "\x1b" not in stream.getvalue() and "[bold]" in stream.getvalue() and "[t]" in stream.getvalue()


def test_markdown():
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "### Final loss"
    assert lines[2] == "| System | Model \\| kind | Parameters | MSE (squared state units) |"
    assert lines[3] == "| --- | --- | ---: | ---: |"
    assert lines[4] == "| Lotka-Volterra | MLP | 252 | 1.23e-6 |" and lines[-1] == "A note."


def test_json_keeps_every_digit(tmp_path):
    assert TABLE.to_json()["rows"][0]["MSE (squared state units)"] == 1.23456e-6
    markdown, path = save_tables([TABLE, TABLE], tmp_path, "tables")
    assert json.loads(path.read_text()) == [TABLE.to_json()] * 2 and markdown.read_text().count("###") == 2
    assert Table("t", ["a"], [[math.inf]]).to_json()["rows"] == [{"a": None}]


def test_row_of_another_length():
    with pytest.raises(ValueError, match="got a row of 1 values, expected 2"):
        Table("t", ["a", "b"], [[1]])
