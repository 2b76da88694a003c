"""The process of the Julia worker, without Julia."""

import sys
import time

import pytest

from kansciml.backends._julia_process import WorkerProcess

ANSWERS = """
import sys, time
from kansciml.backends._julia_frames import read_frame, write_frame
while True:
    header, _ = read_frame(sys.stdin.buffer)
    time.sleep(header["seconds"])
    write_frame(sys.stdout.buffer, {})
"""
WORKS_WHEN_ASKED = "import sys\nsys.stdin.buffer.read(1)\nsum(range(10**7))\nsys.stdin.read()"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell a process's time")
def test_processor_time_is_that_of_the_worker_alone():
    worker = WorkerProcess((sys.executable, "-S", "-c", WORKS_WHEN_ASKED))
    try:
        started = -1.0
        while worker.cpu_seconds() > started:  # until it waits
            started = worker.cpu_seconds()
            time.sleep(0.1)
        here = time.process_time()
        while time.process_time() - here < 0.05:
            pass
        assert worker.cpu_seconds() - started < 0.01
        worker.send({"do": "work"})
        deadline = time.monotonic() + 30
        while worker.cpu_seconds() - started < 0.05 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.cpu_seconds() - started >= 0.05
    finally:
        worker.close()


def test_one_long_wait_is_told_and_many_short_ones_are_not(monkeypatch):
    monkeypatch.setattr("kansciml.backends._julia_process.REPORT_EVERY_S", 0.8)
    lines = []
    worker = WorkerProcess((sys.executable, "-c", ANSWERS), lines.append)
    try:
        worker.request({"seconds": 0.0}, waiting_for="starting")
        lines.clear()
        ends = time.monotonic() + 1.4
        while time.monotonic() < ends:
            worker.request({"seconds": 0.0}, waiting_for="computing")
        assert lines == []
        worker.request({"seconds": 1.4}, waiting_for="computing")
        assert lines and all(line in ("julia: still computing, 0 s", "julia: still computing, 1 s") for line in lines)
    finally:
        worker.close()
