"""What README and guide show is what the records in examples/results say."""

import json

import pytest
from support import evidence

from kansciml import KansciError
from kansciml.runs.registry import trained_models

MOST_MB = 10.0
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in evidence.TEXTS}
MARKS = [
    pytest.param(*mark, id=f"{name}: {mark[1]}") for name, text in TEXTS.items() for mark in evidence.MARK.findall(text)
]
SOURCES = json.loads(evidence.SOURCES.read_text())


@pytest.mark.parametrize(("name", "title", "columns", "rows", "shown"), MARKS)
def test_a_table_is_that_of_its_record(name, title, columns, rows, shown):
    assert shown.count("\n") > 2 and shown == evidence.excerpt(name, title, columns, rows)


@pytest.mark.parametrize("name", TEXTS)
def test_every_mark_is_read(name):
    assert TEXTS[name].count("<!-- from") == len(evidence.MARK.findall(TEXTS[name]))


def test_neural_odes_of_a_packed_record_can_be_studied_but_for_those_of_many_parameters():
    record = next(one for name, one in evidence.records().items() if one.config.get("backend") == "julia")
    models = {model.name: model for model in trained_models(record)}
    one = models["lotka.mlp.julia.0"]
    loaded = one.load()
    assert loaded.loss(loaded.module, loaded.batches).item() == pytest.approx(one.loss, rel=1e-3)
    with pytest.raises(KansciError, match="lacks the parameters of pleiades.kan-width.julia.0"):
        models["pleiades.kan-width.julia.0"].load()


def test_rows_that_a_table_does_not_have_are_told():
    table = evidence.tables("bench-ode")["One loss + gradient"]
    first, other = (row[0] for row in table.cells()[:2])
    shown = evidence.excerpt("bench-ode", table.title, "*", f"{other} | {first}").splitlines()
    assert [line.split(" | ")[0] for line in shown[2:]] == [f"| {other}", f"| {first}"]
    with pytest.raises(AssertionError, match="no rows \\['none'\\]"):
        evidence.excerpt("bench-ode", table.title, "*", f"{first} | none")


@pytest.mark.parametrize("name", SOURCES)
def test_a_picture_is_of_the_records_that_are_there(name):
    source = SOURCES[name]
    assert evidence.digest(evidence.PICTURES / name) == source["sha256"]
    assert {one: evidence.digest(evidence.archive(one)) for one in evidence.sources_of(source)} == source["records"]


def test_a_stale_number_would_be_noticed():
    text = TEXTS["README.md"]
    (match, table), *_ = evidence.marked(text)
    stale = text.replace(match[5], match[5].replace("1", "2", 1))
    assert stale != text and evidence.written(stale) == text and table == match[5]


def test_records_are_small_enough_to_be_kept():
    assert sum(path.stat().st_size for path in evidence.RESULTS.iterdir()) < MOST_MB * 1e6
