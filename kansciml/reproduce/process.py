"""One experiment in a process of its own: its peak memory is its own, and so is its end, even for lack of memory.

The process is spared Ctrl-C, which a terminal sends to all; its parent passes one interrupt on, waits for the state to
be saved, and kills it at a second one. If the parent is killed, it interrupts itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError
from kansciml._workers import ending, spared_interrupts


def run_in_own_process(name: str, preset: str, results: Path) -> None:
    """Run or resume preset `preset` of experiment `name` in the folder `results`, and draw its pictures.

    Raises:
        KansciError: why it failed, or that its process ended without a word.
        KeyboardInterrupt: after the run has saved its state.
    """
    spawn = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads can hang
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(name, preset, results, theirs), name=f"kansciml {name}")
    try:
        with spared_interrupts():
            process.start()
        theirs.close()
        process.join()
        failure = ours.recv() if ours.poll() else f"its process ended without a word ({ending(process.exitcode)})"
    except EOFError:
        failure = f"its process ended without a word ({ending(process.exitcode)})"
    except KeyboardInterrupt:
        _stop(process)
        raise
    finally:
        ours.close()
    if failure:
        raise KansciError(failure)


def _stop(process: Any) -> None:
    """Ask the process to save its state and end; a second interrupt ends it at once."""
    if process.pid is None:
        return
    try:
        process.terminate()
        process.join()
    except KeyboardInterrupt:
        process.kill()
        process.join()
        raise


class _Stopped(KeyboardInterrupt):
    """The parent asked this process to stop, or is gone."""


def _child(name: str, preset: str, results: Path, answer: Connection) -> None:
    from kansciml.runs.registry import get_experiment
    from kansciml.runs.runner import run_experiment

    def stop(number: int, frame: object) -> None:
        raise _Stopped

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_follow_parent, daemon=True).start()
    failure = ""
    try:
        experiment = get_experiment(name)
        record = run_experiment(experiment, experiment.preset(preset), results=results)
        experiment.draw(record)
    except _Stopped:
        failure = "interrupted"
    except KansciError as error:
        failure = str(error)
    except Exception as error:  # whatever an experiment can raise: the others go on, and the page says it
        failure = f"{type(error).__name__}: {error}"
    finally:
        _close_backends()
    with contextlib.suppress(OSError):  # the parent is gone
        answer.send(failure)


def _close_backends() -> None:
    from kansciml.experiments.ode.runs import close_backends

    close_backends()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
