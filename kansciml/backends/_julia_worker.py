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
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np

from kansciml.backends._julia_frames import read_header, read_into, unfolded, write_frame
from kansciml.backends._julia_install import package_path

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


REPEATED, MOST_KEPT = "value_and_grad", 64


class Request:
    """A request that was read: in a training the same one comes again and again, with other numbers in its arrays."""

    def __init__(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.arrays, self.do = arrays, header["do"]
        self.results = {name: np.empty(shape) for name, shape in header.pop("results", {}).items()}
        self.header = header

    @cached_property
    def message(self) -> str:
        """What Julia is told, with the addresses of all arrays."""
        places = {name: [one.ctypes.data, *one.shape] for name, one in (self.arrays | self.results).items()}
        return json.dumps(self.header | {"arrays": places})


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

    def answer(self, request: Request) -> Answer:
        """The reply to one request: what Julia says, and the arrays that it was to write, ``results`` in the header, by
        name and shape. An error becomes a header with ``error`` and ``kind``."""
        try:
            if request.do == "load":  # a package of solvers or gradients
                self.julia.seval(f"import {request.header['package']}")
                return {}, {}
            return json.loads(self.ask(request.message)), request.results
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
    kept: dict[bytes, Request] = {}
    while True:
        try:
            text = read_header(requests)
        except EOFError:
            return
        request = kept.get(text) or Request(*unfolded(text))
        if request.do == REPEATED:
            if text not in kept and len(kept) >= MOST_KEPT:
                kept.clear()
            kept[text] = request
        read_into(request.arrays, requests)
        write_frame(replies, *worker.answer(request))


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
