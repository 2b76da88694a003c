"""Progress: bars in a terminal, an occasional line elsewhere, silence for what is quick."""

from __future__ import annotations

import io

import pytest

from kansciml.runs import progress
from kansciml.runs.progress import Progress


class Clock:
    """Stands in for the `time` module: `now` is what the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_plain_lines_are_few_and_tell_the_time_left_and_quick_work_is_silent(monkeypatch):
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "time", clock)
    with Progress(stream) as bars:
        bars.task("quick", total=2).update(completed=2)
    with Progress(stream, interval_s=20) as bars, bars.task("lotka mlp", total=100) as task:
        for _ in range(50):
            clock.now += 1
            task.update(advance=1, loss=1.2345e-5)
    assert stream.getvalue().splitlines() == [
        "lotka mlp: 20 of 100, loss 1.23e-05, 20 s, about 1 min 20 s left",
        "lotka mlp: 40 of 100, loss 1.23e-05, 40 s, about 1 min 00 s left",
    ]


def test_resumed_work_does_not_count_as_speed(monkeypatch):
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "time", clock)
    task = Progress(stream, interval_s=5).task("run", total=100)
    task.update(completed=80)
    clock.now = 10
    task.update(completed=90)
    assert stream.getvalue() == "run: 90 of 100, 10 s, about 10 s left\n"


def test_terminal_shows_bar_values_and_log_lines():
    stream = io.StringIO()
    with Progress(stream, live=True) as bars, bars.task("spiral [kan]", total=10) as task:
        task.update(advance=5, loss=0.25)
        bars.log("a line [with brackets]")
        bars._bars.refresh()
    text = stream.getvalue()
    assert "spiral [kan]" in text and "loss 0.25" in text and "50%" in text and "a line [with brackets]" in text


def test_late_calls_on_a_closed_bar_are_harmless():
    with Progress(io.StringIO(), live=True) as bars:
        task = bars.task("run", total=1)
    task.update(advance=1)
    task.close()
    task.close()
    task.update(advance=1)
    bars.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.24, "8.2 s"), (59.96, "60.0 s"), (187, "3 min 07 s"), (7500, "2 h 05 min"), (3 * 3600 + 65, "3 h 01 min")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds, 1) == text
    assert progress.duration(59.7) == "1 min 00 s" and progress.duration(59.2) == "59 s"
