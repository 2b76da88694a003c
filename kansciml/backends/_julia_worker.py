"""Main program of the Julia worker: ``python -m kansciml.backends._julia_worker``, started by `JuliaBackend`.

It answers requests on standard input with frames on standard output (see `_julia_frames`), one at a time, until the
stream ends. Never imports torch: both in one process have crashed in either order. Whatever Julia prints goes to
standard error, so it cannot fall into a frame.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from kansciml.backends._julia_frames import read_frame, write_frame
from kansciml.backends._julia_install import package_path

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


class Worker:
    """Holds the Julia module and answers requests."""

    def __init__(self, stage: Callable[[str], None]) -> None:
        stage("starting Julia")
        from juliacall import JuliaError
        from juliacall import Main as julia

        self.julia, self.julia_error = julia, JuliaError
        stage("loading KanSciML")
        if julia.seval('Base.find_package("KanSciML") === nothing'):
            julia.seval("path -> push!(LOAD_PATH, path)")(str(package_path()))
        julia.seval("import KanSciML")
        self.ask = julia.KanSciML.Bridge.answer
        self.failure = julia.KanSciML.SolveFailure

    def versions(self) -> dict[str, Any]:
        """Of Julia and the package, and where they are."""
        julia = self.julia
        return {
            "julia": str(julia.seval("string(VERSION)")),
            "bindir": str(julia.seval("Sys.BINDIR")),
            "project": str(julia.seval('something(Base.active_project(), "")')),
            "threads": int(julia.seval("Threads.nthreads()")),
        }

    def answer(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
        """The reply to one request: what Julia says, and the arrays that it was to write, ``results`` in the header, by
        name and shape. An error becomes a header with ``error`` and ``kind``."""
        try:
            if header["do"] == "load":  # a package of solvers or gradients
                self.julia.seval(f"import {header['package']}")
                return {}, {}
            results = {name: np.empty(shape) for name, shape in header.pop("results", {}).items()}
            header["arrays"] = {name: [one.ctypes.data, *one.shape] for name, one in (arrays | results).items()}
            return json.loads(self.ask(json.dumps(header))), results
        except self.julia_error as error:
            kind = "solve" if self.julia.isa(error.exception, self.failure) else "julia"
            text = str(self.julia.sprint(self.julia.showerror, error.exception))
            return {"error": text.strip().splitlines()[0] if text.strip() else "unknown error", "kind": kind}, {}


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Start Julia, then answer until `requests` ends. Frames with ``stage`` tell how far the start is."""

    def stage(text: str) -> None:
        write_frame(replies, {"stage": text})

    try:
        worker = Worker(stage)
        write_frame(replies, {"ready": worker.versions()})
    except Exception as error:  # whatever keeps Julia from starting is told to the parent in one line
        lines = str(error).strip().splitlines() or [type(error).__name__]
        write_frame(replies, {"error": lines[0], "kind": "start"})
        return
    while True:
        try:
            header, arrays = read_frame(requests)
        except EOFError:
            return
        write_frame(replies, *worker.answer(header, arrays))


def main() -> None:
    """Keep standard output for frames, ignore Ctrl-C (the parent ends this process), serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        sys.stdout = sys.stderr
        serve(requests, replies)


if __name__ == "__main__":
    main()
