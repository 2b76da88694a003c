"""``kansciml cost`` as a user types it: of a layer, and of a model."""

import json

import pytest
from support.command_line import run


def test_the_papers_numbers_in_one_document(capsys):
    code, out, err = run(capsys, "cost", "--in", "64", "--out", "64", "--batch", "128", "--json")
    document = json.loads(out)
    assert code == 0 and err == ""
    assert document["equation_2"] == document["equation_1"]["printed"]["total"] == 159_680
    assert document["layers"]["textbook"]["parameters"] == 40_960
    assert document["layers"]["ours"]["saved"] == 64 * 128


def test_the_misprint_shows_where_input_and_output_differ(capsys):
    code, out, _ = run(capsys, "cost", "--in", "64", "--out", "128")
    row = next(line for line in out.splitlines() if line.startswith("extra parameters"))
    assert code == 0 and {"73664", "73600"} <= set(row.split())
    assert "I (O + 1)" in out


def test_order_and_grid_reach_the_count(capsys):
    _, out, _ = run(capsys, "cost", "--in", "3", "--out", "2", "--grid", "7", "--order", "2", "--json")
    assert json.loads(out)["layers"]["ours"]["parameters"] == 3 * 2 * (2 + 7 + 2)


def test_where_the_equation_is_negative_no_ratio_is_printed(capsys):
    """One input, many outputs: Equation (1) says that a KAN layer needs less than nothing more."""
    code, out, _ = run(capsys, "cost", "--in", "1", "--out", "100", "--batch", "1000")
    assert code == 0 and next(line for line in out.splitlines() if line.startswith("extra over")).split()[-1] == "-"


# ---- of a model ------------------------------------------------------------------------------------------------------


def test_ours_the_printed_and_the_dead_parameters(capsys):
    code, out, err = run(capsys, "cost", "--model", "deit-tiny", "--variant", "kan-spline", "--json")
    document = json.loads(out)
    (figures,) = document["variants"].values()
    assert code == 0 and err == ""
    assert (figures["parameters"], figures["printed"], figures["dead"]) == (10_833_700, 14_300_000, 3_550_464)
    assert figures["with_dead"] == 14_384_164 and figures["widths"] == [[192, 192, 192]]
    assert figures["mixing_parameters"] == 12 * 2 * 192 * 192 * 10
    assert figures["config"]["variant"] == "kan-spline"


def test_a_table_of_all_variants(capsys):
    code, out, err = run(capsys, "cost", "--model=deit-tiny")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and err == ""
    assert [row[:2] for row in rows if row and row[0] in ("mlp", "kan-spline", "kan-rswaf")] == [
        ["mlp", "5543716"],
        ["kan-spline", "10833700"],
        ["kan-rswaf", "9073636"],
    ]


def test_models_outside_table_1_have_nothing_printed(capsys):
    _, out, _ = run(capsys, "cost", "--model", "conv-mixer-256-8", "--placement", "replace", "--json")
    variants = json.loads(out)["variants"]
    assert variants["kan-spline"]["parameters"] == 5_310_730 and variants["kan-spline"]["printed"] is None
    mlp, kan = variants["mlp"], variants["kan-spline"]
    assert kan["parameters"] - mlp["parameters"] == kan["mixing_parameters"] - mlp["mixing_parameters"]
    _, out, _ = run(capsys, "cost", "--model", "deit-tiny", "--variant", "mlp", "--classes", "7", "--json")
    assert json.loads(out)["variants"]["mlp"]["printed"] is None  # another model than the table's


def test_kans_beside_the_convolutions_count_with_them(capsys):
    _, out, _ = run(capsys, "cost", "--model", "conv-mixer-128-4", "--json")
    variants = json.loads(out)["variants"]
    mlp, kan = variants["mlp"], variants["kan-spline"]
    assert kan["mixing_parameters"] == mlp["mixing_parameters"] + 4 * 128 * 128 * 10
    assert kan["parameters"] - mlp["parameters"] == 4 * 128 * 128 * 10
    assert kan["mixing_flops"] > 9 * mlp["mixing_flops"]


@pytest.mark.parametrize("by, key", [("params", "parameters"), ("flops", "mixing_flops")])
def test_matched_kans_are_as_large(capsys, by, key):
    code, out, _ = run(capsys, "cost", "--model", "deit-small", "--match", by, "--fair", "--json")
    variants = json.loads(out)["variants"]
    assert code == 0
    for variant in ("kan-spline", "kan-rswaf"):
        assert variants[variant][key] == pytest.approx(variants["mlp"][key], rel=0.01)


def test_sizes_of_the_data(capsys):
    arguments = ("--image-size", "28", "--channels", "1", "--classes", "10")
    code, out, _ = run(capsys, "cost", "--model", "mixer-nano", *arguments)
    assert code == 0 and out.startswith("mixer-nano: 28 x 28 x 1, 10 classes")
    assert "49-512-49" in out
