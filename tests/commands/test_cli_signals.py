"""SIGTERM is exit code 143 and Ctrl-C 130, whatever a command is doing; nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.command_line import training_workers

from kansciml import cli
from kansciml._errors import Terminated
from kansciml.training._signals import StopSignals

CODES = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize("number, code, word", CODES)
@pytest.mark.parametrize("becomes", [None, ImportError("initialisation failed"), RuntimeError("in a callback")])
def test_a_signal_counts_whatever_becomes_of_its_exception(monkeypatch, capsys, number, code, word, becomes):
    def run(arguments, out):
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.5)
        except KeyboardInterrupt:
            if becomes is not None:
                raise becomes from None
            raise

    monkeypatch.setattr(cli, "run", run)
    before = signal.getsignal(number)
    assert cli.main(["list"]) == code and capsys.readouterr().err == f"{word}\n"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number, code, word", CODES)
def test_a_signal_during_an_import_waits_for_its_end(monkeypatch, capsys, tmp_path, number, code, word):
    """A compiled module that an exception meets in its midst aborts the process."""
    (tmp_path / "slow_to_import.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.2)\nDONE = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def run(arguments, out):
        import slow_to_import  # noqa: F401

        time.sleep(0.5)

    monkeypatch.setattr(cli, "run", run)
    assert cli.main(["list"]) == code and capsys.readouterr().err == f"{word}\n"
    assert sys.modules.pop("slow_to_import").DONE


def test_the_training_loop_tells_them_apart():
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
            assert stop.wanted
            with pytest.raises(KeyboardInterrupt) as caught:
                stop.stop()
        assert caught.type is kind


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds processes through /proc")
@pytest.mark.parametrize("number, code, word", CODES)
def test_workers_that_get_the_signal_too_leave_a_run_that_can_be_resumed(tmp_path, number, code, word):
    """As a terminal sends Ctrl-C, and a batch system SIGTERM: to all processes of the job, at whatever moment."""
    command = [sys.executable, "-m", "kansciml", "ode", "--model", "mlp", "--backend", "torch", "--seeds", "2"]
    command += ["--adam-steps", "100000", "--lbfgs-steps", "5", "--workers", "2", "--results", str(tmp_path)]
    for training in (False, True):  # while the workers import what they need, and while they train
        process = psutil.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while len(mine := members(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        if training:
            training_workers(process)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in err and err.endswith(f"{word}\n")
        while members(process.pid) and time.monotonic() < deadline + 10:
            time.sleep(0.1)
        assert len(mine) >= 3 and not members(process.pid)
    assert "resuming the run in" in err and "the same command resumes it" in err


def members(group: int) -> list[str]:
    """Processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(own) == group and state != "Z":
            found.append(path.parent.name)
    return found
