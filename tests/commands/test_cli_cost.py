"""``kansciml cost`` as a user types it."""

import json

import pytest

from kansciml import cli


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = cli.main(["cost", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_papers_numbers_in_one_document(capsys):
    code, out, err = run(capsys, "--in", "64", "--out", "64", "--batch", "128", "--json")
    document = json.loads(out)
    assert code == 0 and err == ""
    assert document["equation_2"] == document["equation_1"]["printed"]["total"] == 159_680
    assert document["layers"]["textbook"]["parameters"] == 40_960
    assert document["layers"]["ours"]["saved"] == 64 * 128


def test_the_misprint_shows_where_input_and_output_differ(capsys):
    code, out, _ = run(capsys, "--in", "64", "--out", "128")
    row = next(line for line in out.splitlines() if line.startswith("extra parameters"))
    assert code == 0 and {"73664", "73600"} <= set(row.split())
    assert "I (O + 1)" in out


def test_order_and_grid_reach_the_count(capsys):
    _, out, _ = run(capsys, "--in", "3", "--out", "2", "--grid", "7", "--order", "2", "--json")
    assert json.loads(out)["layers"]["ours"]["parameters"] == 3 * 2 * (2 + 7 + 2)


def test_where_the_equation_is_negative_no_ratio_is_printed(capsys):
    """One input, many outputs: Equation (1) says that a KAN layer needs less than nothing more."""
    code, out, _ = run(capsys, "--in", "1", "--out", "100", "--batch", "1000")
    assert code == 0 and next(line for line in out.splitlines() if line.startswith("extra over")).split()[-1] == "-"


def test_help_names_the_flags(capsys):
    assert cli.main(["cost", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--in ", "--out ", "--batch ", "--grid ", "--order "))


@pytest.mark.parametrize("arguments, message", [(["--in", "0"], "got inputs 0"), (["--in", "x"], "--in")])
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1
