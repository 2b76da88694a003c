"""Jobs over a pool: results in the order asked for, in JSON types, kept, and taken up again after an interruption."""

import json
import math
import time

import pytest

from kansciml._workers import tell
from kansciml.runs.experiment import RunContext
from kansciml.runs.pool import KEPT, each, run_kept
from kansciml.runs.progress import Progress


def halved(number):
    if number < 0:
        raise KeyboardInterrupt
    return {"half": number / 2, "never": math.nan}


def telling(number):
    tell(("at", number))
    time.sleep(0.2)  # what a job told is sent by a thread of its own
    return number


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


def test_a_pool_starts_the_dearest_first_and_hears_what_jobs_tell(monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "2")
    heard = []
    jobs = {str(number): number for number in (1, 3, 2)}
    assert dict(each(telling, jobs, told=heard.append, cost=float)) == jobs
    assert sorted(heard) == [("at", 1), ("at", 2), ("at", 3)]


def test_one_process_does_the_jobs_here_in_their_order(monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    assert list(each(telling, {"a": 1, "b": 2}, cost=float, alone=lambda number: -number)) == [("a", -1), ("b", -2)]
