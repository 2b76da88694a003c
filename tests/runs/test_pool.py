"""Jobs over a pool: results in the order asked for, in JSON types, kept, and taken up again after an interruption."""

import json
import math

import pytest

from kansciml.runs.experiment import RunContext
from kansciml.runs.pool import KEPT, run_kept
from kansciml.runs.progress import Progress


def halved(number):
    if number < 0:
        raise KeyboardInterrupt
    return {"half": number / 2, "never": math.nan}


@pytest.fixture
def context(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return RunContext(tmp_path, Progress(live=False), lambda line: None)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_results_come_in_the_order_of_the_jobs_and_a_resumed_run_does_the_rest(context, monkeypatch, workers):
    monkeypatch.setenv("KANSCIML_WORKERS", workers)
    expected = {"a": {"half": 2.0, "never": None}, "b": {"half": 1.5, "never": None}}
    assert run_kept(halved, {"a": 4, "b": 3}, context) == expected
    assert list(run_kept(halved, {"b": -1, "a": -1}, context).items()) == [("b", expected["b"]), ("a", expected["a"])]


def test_what_was_finished_before_an_interruption_is_kept_and_half_a_line_is_not(context, monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    with pytest.raises(KeyboardInterrupt):
        run_kept(halved, {"a": 4, "b": -1, "c": 2}, context)
    path = context.checkpoints / KEPT
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a"]
    path.write_text(path.read_text() + '{"id": "c", "fou')
    assert run_kept(halved, {"a": -1, "c": 2}, context)["c"]["half"] == 1.0
