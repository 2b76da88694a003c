"""The process of the Julia worker, without Julia."""

import sys
import time

import pytest

from kansciml.backends._julia_process import WorkerProcess

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
