"""What the README shows is what the records in examples/results say."""

import json

import pytest
from support import evidence

MOST_MB = 10.0
TEXT = (evidence.ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = json.loads(evidence.SOURCES.read_text())


@pytest.mark.parametrize("mark", evidence.MARK.findall(TEXT), ids=lambda mark: f"{mark[0]}: {mark[1]}")
def test_a_table_of_the_readme_is_that_of_its_record(mark):
    name, title, columns, shown = mark
    assert shown == evidence.excerpt(name, title, columns)


@pytest.mark.parametrize("name", SOURCES)
def test_a_picture_is_of_the_record_that_is_there(name):
    source = SOURCES[name]
    assert evidence.digest(evidence.PICTURES / name) == source["sha256"]
    assert evidence.digest(evidence.RESULTS / f"{source['record']}.zip") == source["record_sha256"]


def test_a_stale_number_would_be_noticed():
    (match, table), *_ = evidence.marked(TEXT)
    stale = TEXT.replace(match[4], match[4].replace("1", "2", 1))
    assert stale != TEXT and evidence.written(stale) == TEXT and table == match[4]


def test_records_are_small_enough_to_be_kept():
    assert sum(path.stat().st_size for path in evidence.RESULTS.iterdir()) < MOST_MB * 1e6
