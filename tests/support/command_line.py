"""What a user types, and what comes back; for the tests of commands."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from kansciml import cli
from kansciml.runs.records import load_record
from support.sweep_samples import wait_for


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def losses(results: Path) -> dict[tuple[int, int], float]:
    """Final losses in a results folder, by grid and seed."""
    records = [load_record(path.parent) for path in (results / "ode").glob("*/record.json")]
    return {(one.config["grid"], one.seeds[0]): one.result["runs"][0]["final_loss"] for one in records}


def training_workers(process: psutil.Popen) -> list[psutil.Process]:
    """The two workers of a command, as soon as both train."""

    def busy() -> list[psutil.Process]:
        loaded = []
        for one in process.children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):  # helpers that have just ended
                if (
                    "spawn_main" in " ".join(one.cmdline())
                    and b"libtorch" in Path(f"/proc/{one.pid}/maps").read_bytes()
                ):
                    loaded.append(one)
        return loaded if len(loaded) == 2 else []

    wait_for(busy)
    time.sleep(1.5)  # what is loaded after PyTorch
    return busy()
