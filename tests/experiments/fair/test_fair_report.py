"""Report of the comparisons on equal terms, from a record alone: the table, the picture, and what must not go wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kansciml import KansciError
from kansciml._files import to_jsonable
from kansciml.experiments.fair.comparisons import comparisons
from kansciml.experiments.fair.findings import CLAIMS, findings
from kansciml.experiments.fair.record import Comparison, FairRecord, Side, StepTimes, judged
from kansciml.experiments.fair.report import render, summary
from kansciml.reporting.ratios import limits
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from kansciml.runs.records import Record

TITLES = {
    "lotka": "Lotka-Volterra",
    "pleiades": "Pleiades",
    "images": "Digits, MLP-Mixer",
    "darcy": "Darcy flow, 29 x 29, fno-wt",
}


def side(name, factor, seconds, losses):
    label, lost = f"{name.upper()} 2-{factor}-2", losses.count(None)
    return Side(name, label, 80 * factor, 200.0 * factor, steps=1000, seconds=seconds, n_diverged=lost)


def row(task, protocol, kan, mlp, primary=True, layer="spline"):
    metric = ("train_mse", "training MSE") if primary else ("test_mse", "MSE beyond training")
    return Comparison(
        task=task, title=TITLES[task], kind={"images": "images", "darcy": "darcy"}.get(task, "ode"), layer=layer,
        protocol=protocol, adapted="KAN shrunk", metric=metric[0], metric_title=metric[1], primary=primary,
        kan=side("kan", 6, 40.0, kan), mlp=side("mlp", 50, 10.0, mlp), seeds=tuple(range(len(kan))),
        kan_losses=tuple(kan), mlp_losses=tuple(mlp),
    )  # fmt: skip


def record_of(rows, folder, layers=("spline",)):
    tasks = tuple(dict.fromkeys(one.task for one in rows))
    times = (StepTimes(0.004, 0.001, 3, 2, "process", "lotka", "spline"),) if "lotka" in tasks else ()
    result = FairRecord(0.05, tasks, layers, judged(rows, 0.05), times, ()).result().result
    return Record(folder, "fair", {}, "0" * 12, "finished", result=to_jsonable(result))


@pytest.fixture
def record(tmp_path):
    """Twelve seeds: a clear win of each side, a narrow one, none, a diverged KAN, and one without any error."""
    rng = np.random.default_rng(0)
    rows = []
    for place, task in enumerate(TITLES):
        for index, protocol in enumerate(("time", "flops", "width", "params")):
            mlp = np.exp(rng.normal(-8, 1, 12))
            kan = mlp * np.exp(rng.normal([-3, 2, 0, 1][place] * (1 - 0.2 * index), [0.4, 1.0, 0.8, 1.2][place], 12))
            rows.append(row(task, protocol, kan.tolist(), mlp.tolist()))
    ones = [1.0] * 12
    rows[3] = row("lotka", "params", [None] * 12, ones)
    rows[7] = row("pleiades", "params", [None] * 5 + [0.5] * 7, ones)
    rows[11] = row("images", "params", [0.0] * 12, ones)
    rows.append(row("lotka", "width", [2.0] * 12, ones, primary=False))
    return record_of(rows, tmp_path)


def test_one_table_answers_the_question(record):
    answer, detail, models, times = summary(record)
    assert answer.title.startswith("When is a KAN worth it?")
    assert list(answer.columns) == [
        "task", "error", "equal width", "equal parameters (KAN shrunk)", "equal FLOPs (KAN shrunk)", "equal time"
    ]  # fmt: skip
    assert [one[0] for one in answer.rows] == list(TITLES.values())
    fair = FairRecord.read(record)
    for line, task in zip(answer.rows, TITLES):
        for cell, protocol in zip(line[2:], ("width", "params", "flops", "time")):
            own = fair.of(task, "spline", protocol)
            assert cell.endswith(own.verdict + (" *" if own.confirmed else ""))
    assert answer.rows[0][3] == "inf (inf to inf) MLP better *"
    assert answer.rows[2][3] == "0 (0 to 0) KAN better *"
    assert "KAN better *" in answer.rows[0][5] and "undecided" in answer.rows[1][3]
    wins = sum(one.verdict == "KAN better" for one in fair.rows)
    assert f"Of 16 comparisons over 12 seeds the KAN is better in {wins}" in answer.notes[0]
    assert "at least 10 seeds" in answer.notes[2]
    assert len(detail.rows) == 17 and detail.rows[-1][2] == "MSE beyond training" and len(models.rows) == 16
    assert models.rows[1][3] == "KAN 2-6-2; 12 diverged" and models.rows[1][5:9] == [480, 4000, 1200.0, 10000.0]
    assert times.rows == [["Lotka-Volterra", 0.004, 0.001, 4.0, "process", 1.0, 4.0]]
    for table in (answer, detail, models, times):  # in a file every column has a name of its own
        assert len(set(table.columns)) == len(table.columns)


def test_the_tables_numbers_are_those_of_the_comparison(record):
    detail = summary(record)[1]
    (line,) = (one for one in detail.rows if one[:2] == ["Pleiades", "equal width"])
    own = FairRecord.read(record).of("pleiades", "spline", "width")
    assert line[3] == pytest.approx(np.median(own.kan_losses)) and line[4] == np.median(own.mlp_losses)
    told = own.outcome
    assert line[5:10] == [own.ratio, told.low, told.high, told.p_value, told.adjusted_p]


def test_statistics_are_made_of_the_losses_whatever_the_record_says(record):
    """Also of a record of before, whose rows have other names for them."""
    fair = FairRecord.read(record)
    said = [{**row, "verdict": "MLP better", "p_value": 0.5, "least_p": 0.1} for row in record.result["comparisons"]]
    old = FairRecord.read(replace(record, result=record.result | {"comparisons": said}))
    assert [row.outcome for row in old.comparisons] == [row.outcome for row in fair.comparisons]
    again = {(row["task"], row["protocol"], row["metric"]): row for row in record.result["comparisons"]}
    for row in fair.comparisons:
        told = again[row.task, row.protocol, row.metric]
        assert (told["verdict"], told["confirmed"]) == (row.verdict, row.confirmed)
        assert told["p_value"] == row.outcome.p_value and row.outcome.family == (16 if row.primary else 1)


def test_findings_are_verdicts_on_what_is_said_in_general(record):
    found = findings(record)
    by = {(one.claim, one.case): one for one in found}
    assert len(found) == len(by) == 2 * 4 + 1
    fair = FairRecord.read(record)
    for protocol, claim in CLAIMS.items():
        for task, title in TITLES.items():
            row, one = fair.of(task, "spline", protocol), by[claim, title]
            words = {"KAN better": NOT_REPRODUCED, "MLP better": REPRODUCED}
            known = row.confirmed and task in ("lotka", "pleiades")  # of neural ODEs: the others' sizes are not known
            assert one.verdict == (words[row.verdict] if known else UNDECIDED), title
    (longer,) = (one for one in found if one.item == "Section 3")
    assert longer.verdict == REPRODUCED and longer.measured.startswith("KAN / MLP 4.00; parameters 0.120 times")


def test_comparisons_are_the_rows_with_their_verdicts(record):
    found = {(one.task, one.equal): one for one in comparisons(record)}
    rows = FairRecord.read(record).rows
    assert len(found) == len(rows) and all(found[one.title, one.protocol].outcome == one.outcome for one in rows)


def test_pictures_and_tables_are_written_and_say_who_wins(record, tmp_path):
    written = {path.name for path in render(record, tmp_path)}
    assert written == {"fair.svg", "tables.md", "tables.json"}
    text = (tmp_path / "fair.svg").read_text()
    shown = ["KAN better", "MLP better", "Lotka-Volterra", "equal time", "undecided", "KAN diverged", "over 12 seeds"]
    assert all(word in text for word in [*shown, "error of the KAN / error of the MLP"])
    before = (tmp_path / "fair.svg").read_bytes()
    render(record, tmp_path)
    assert (tmp_path / "fair.svg").read_bytes() == before


def test_several_layers_and_two_seeds(tmp_path):
    rows = [row("images", "width", [2.0, 3.0], [1.0, 1.0], layer=layer) for layer in ("spline", "rswaf")]
    record = record_of(rows, tmp_path, ("spline", "rswaf"))
    answer = summary(record)[0]
    assert [one[0] for one in answer.rows] == ["Digits, MLP-Mixer, splines", "Digits, MLP-Mixer, RSWAF"]
    assert all("(0 to inf) undecided" in one[2] for one in answer.rows)
    low, high = limits([row.outcome for row in FairRecord.read(record).rows])
    assert 0 < low < 1 and 2 < high < math.inf
    assert (tmp_path / "fair.svg") in render(record, tmp_path)


def test_nothing_to_compare(tmp_path):
    record = record_of([row("lotka", "width", [None] * 6, [None] * 6)], tmp_path)
    assert summary(record)[0].rows[0][2] == "both diverged"
    assert render(record, tmp_path)
    for result in ({}, {"runs": []}, {"comparisons": [{"task": "lotka"}]}):
        with pytest.raises(KansciError, match="lacks what a run of fair has"):
            summary(replace(record, result=result))
    with pytest.raises(KansciError, match="holds no finished run"):
        summary(replace(record, result=record.result | {"comparisons": []}))
