"""``kansciml cost --model`` as a user types it."""

import json

import pytest

from kansciml import cli


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = cli.main(["cost", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_ours_the_printed_and_the_dead_parameters(capsys):
    code, out, err = run(capsys, "--model", "deit-tiny", "--variant", "kan-spline", "--json")
    document = json.loads(out)
    (figures,) = document["variants"].values()
    assert code == 0 and err == ""
    assert (figures["parameters"], figures["printed"], figures["dead"]) == (10_833_700, 14_300_000, 3_550_464)
    assert figures["with_dead"] == 14_384_164 and figures["widths"] == [[192, 192, 192]]
    assert figures["mixing_parameters"] == 12 * 2 * 192 * 192 * 10
    assert figures["config"]["variant"] == "kan-spline"


def test_a_table_of_all_variants(capsys):
    code, out, err = run(capsys, "--model=deit-tiny")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and err == ""
    assert [row[:2] for row in rows if row and row[0] in ("mlp", "kan-spline", "kan-rswaf")] == [
        ["mlp", "5543716"],
        ["kan-spline", "10833700"],
        ["kan-rswaf", "9073636"],
    ]


def test_models_outside_table_1_have_nothing_printed(capsys):
    _, out, _ = run(capsys, "--model", "conv-mixer-256-8", "--placement", "replace", "--json")
    variants = json.loads(out)["variants"]
    assert variants["kan-spline"]["parameters"] == 5_310_730 and variants["kan-spline"]["printed"] is None
    mlp, kan = variants["mlp"], variants["kan-spline"]
    assert kan["parameters"] - mlp["parameters"] == kan["mixing_parameters"] - mlp["mixing_parameters"]
    _, out, _ = run(capsys, "--model", "deit-tiny", "--variant", "mlp", "--classes", "7", "--json")
    assert json.loads(out)["variants"]["mlp"]["printed"] is None  # another model than the table's


def test_kans_beside_the_convolutions_count_with_them(capsys):
    _, out, _ = run(capsys, "--model", "conv-mixer-128-4", "--json")
    variants = json.loads(out)["variants"]
    mlp, kan = variants["mlp"], variants["kan-spline"]
    assert kan["mixing_parameters"] == mlp["mixing_parameters"] + 4 * 128 * 128 * 10
    assert kan["parameters"] - mlp["parameters"] == 4 * 128 * 128 * 10
    assert kan["mixing_flops"] > 9 * mlp["mixing_flops"]


@pytest.mark.parametrize("by, key", [("params", "parameters"), ("flops", "mixing_flops")])
def test_matched_kans_are_as_large(capsys, by, key):
    code, out, _ = run(capsys, "--model", "deit-small", "--match", by, "--fair", "--json")
    variants = json.loads(out)["variants"]
    assert code == 0
    for variant in ("kan-spline", "kan-rswaf"):
        assert variants[variant][key] == pytest.approx(variants["mlp"][key], rel=0.01)


def test_sizes_of_the_data(capsys):
    arguments = ("--image-size", "28", "--channels", "1", "--classes", "10")
    code, out, _ = run(capsys, "--model", "mixer-nano", *arguments)
    assert code == 0 and out.startswith("mixer-nano: 28 x 28 x 1, 10 classes")
    assert "49-512-49" in out


def test_help_names_the_flags(capsys):
    assert cli.main(["cost", "--model", "deit-tiny", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--variant ", "--fair ", "--match ", "--placement ", "--image-size "))
    assert cli.main(["cost", "--help"]) == 0
    assert "--model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "deit"], "unknown model 'deit': expected one of conv-mixer-128-4"),
        (["--model", "deit-tiny", "--variant", "kan"], "unknown variant 'kan'"),
        (["--model", "deit-tiny", "--patch", "15"], "got patch 15 for images of 224 x 224"),
        (["--model", "deit-tiny", "--placement", "head"], "unknown option of deit 'placement'"),
        (["--model", "deit-tiny", "--match", "time"], "unknown measure to match 'time'"),
        (["--model", "deit-tiny", "--match", "params", "--variant", "mlp"], "expected a KAN variant"),
        (["--model", "conv-mixer-128-4", "--match", "params"], "placement 'replace'"),
        (["--model", "mixer-nano", "--in", "3"], "--in"),
        (["--model"], "--model"),
        (["--variant", "mlp"], "--variant"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1
