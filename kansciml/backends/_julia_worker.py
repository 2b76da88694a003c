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

Answer = tuple[dict[str, Any], list[np.ndarray]]


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
        self.calls = julia.KanSciML.Addresses
        self.failure = julia.KanSciML.SolveFailure
        self.sizes: dict[int, int] = {}

    def versions(self) -> dict[str, Any]:
        """Of Julia and the package, and where they are."""
        julia = self.julia
        return {
            "julia": str(julia.seval("string(VERSION)")),
            "bindir": str(julia.seval("Sys.BINDIR")),
            "project": str(julia.seval('something(Base.active_project(), "")')),
            "threads": int(julia.seval("Threads.nthreads()")),
        }

    def answer(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """The reply to one request; an error becomes a header with ``error`` and ``kind``."""
        operation = getattr(self, "do_" + str(header.get("do")), None)
        if operation is None:
            return {"error": f"unknown request {header.get('do')!r}", "kind": "julia"}, []
        try:
            return operation(header, arrays)
        except self.julia_error as error:
            kind = "solve" if self.julia.isa(error.exception, self.failure) else "julia"
            text = str(self.julia.sprint(self.julia.showerror, error.exception))
            return {"error": text.strip().splitlines()[0] if text.strip() else "unknown error", "kind": kind}, []

    def do_load(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Load a package of solvers or gradients."""
        self.julia.seval(f"import {header['package']}")
        return {}, []

    def do_setup(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: the packed series (see `julia.packed`), data, weights, follows (K,), loss_scale."""
        *pieces, data, weights, follows, loss_scale = arrays
        problem = self.calls.setup(
            json.dumps(header["field"]),
            header["solver"],
            len(follows),
            *(array.ctypes.data for array in (*pieces, data, weights, follows, loss_scale)),
            float(header["continuity"]),
            float(header["rtol"]),
            float(header["atol"]),
            int(header["max_steps"]),
        )
        self.sizes[problem] = len(loss_scale)
        return {"problem": problem}, []

    def do_release(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Forget a problem."""
        self.sizes.pop(header["problem"], None)
        self.calls.release(header["problem"])
        return {}, []

    def do_rhs(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: x (B, widths[0]), params (P,) -> du/dt (B, n)."""
        x, params = arrays
        out = np.empty((len(x), self.sizes[header["problem"]]))
        self.calls.rhs(header["problem"], len(x), x.ctypes.data, params.ctypes.data, out.ctypes.data)
        return {}, [out]

    def do_states(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: params (P,), packed pieces -> their states (T, n), one after the other."""
        params, starts, t0s, counts, saveat, *inputs = arrays
        out = np.empty((len(saveat), starts.shape[1]))
        self.calls.states(
            header["problem"],
            params.ctypes.data,
            len(starts),
            *(array.ctypes.data for array in (starts, t0s, counts, saveat, *inputs)),
            float(header["rtol"]),
            float(header["atol"]),
            header["sensealg"],
            out.ctypes.data,
        )
        return {}, [out]

    def do_pull(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: params (P,), cotangents (T, n) of the last states -> gradients by parameters and starts."""
        params, cotangents = arrays
        by_params, by_starts = np.empty_like(params), np.empty((header["pieces"], cotangents.shape[1]))
        results = by_params.ctypes.data, by_starts.ctypes.data
        self.calls.pull(header["problem"], params.ctypes.data, cotangents.ctypes.data, *results)
        return {}, [by_params, by_starts]

    def do_value_and_grad(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: params (P,), starts (K, n) -> loss in the header, gradients by both."""
        params, starts = arrays
        picked, counts = (np.array(header[name], dtype=np.float64) for name in ("series", "rows"))
        by_params, by_starts = np.empty_like(params), np.empty_like(starts)
        loss = self.calls.value_and_gradient(
            header["problem"],
            params.ctypes.data,
            starts.ctypes.data,
            len(picked),
            picked.ctypes.data,
            counts.ctypes.data,
            header["sensealg"],
            by_params.ctypes.data,
            by_starts.ctypes.data,
        )
        return {"loss": loss}, [by_params, by_starts]


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
