"""SIGTERM is exit code 143 and Ctrl-C 130, whatever a command is doing."""

import os
import signal
import sys
import threading
import time

import pytest

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
            threading.Event().wait(0.5)
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

        threading.Event().wait(20)

    monkeypatch.setattr(cli, "run", run)
    began = time.monotonic()
    assert cli.main(["list"]) == code and capsys.readouterr().err == f"{word}\n"
    assert sys.modules.pop("slow_to_import").DONE and time.monotonic() - began < 10


def test_the_training_loop_tells_them_apart():
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
            assert stop.wanted
            with pytest.raises(KeyboardInterrupt) as caught:
                stop.stop()
        assert caught.type is kind
