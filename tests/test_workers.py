"""Processes that work for a command: whenever that is ended, they save their state, and none outlives it."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from support.sweep_samples import FOLDER, alive, wait_for

from kansciml import _workers

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
CODES = {signal.SIGINT: (130, "interrupted\n"), signal.SIGTERM: (143, "terminated\n"), signal.SIGKILL: (-9, "")}


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("what, working, count", [("pool", False, 2), ("pool", True, 2), ("call", True, 1)])
@pytest.mark.parametrize("to", ["all", "the command alone"])
def test_whatever_ends_a_command_ends_its_workers(tmp_path, number, what, working, count, to):
    """As a terminal sends Ctrl-C and a batch system SIGTERM, to all, while they start and while they work."""
    command = [sys.executable, "-m", "support.pool_program", what, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": FOLDER}
    process = psutil.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    wait_for(lambda: len(list(tmp_path.glob("*.began" if working else "asked"))) == (count if working else 1))
    children = [child.pid for child in process.children()]
    assert len(children) == count + (what == "pool")  # which has one that tracks what is shared
    (os.killpg if to == "all" else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    code, word = CODES[number]
    assert process.returncode == code and err.endswith(word) and "Traceback" not in err
    wait_for(lambda: not alive(children), 20)
    if working and not (what == "pool" and to == "all" and number == signal.SIGKILL):
        assert len(list(tmp_path.glob("*.saved"))) == count


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_process_starts_counts_once_it_has(number):
    """Whichever thread takes it: a process that is started by halves would end in a traceback."""
    started = []

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    sleeper = threading.Thread(target=time.sleep, args=(0.3,))
    try:
        sleeper.start()
        with pytest.raises(KeyboardInterrupt), _workers.spared_interrupts():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            started.append(number)
        assert started == [number] and signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
        sleeper.join()
