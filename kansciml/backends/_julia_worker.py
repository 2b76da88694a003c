"""Main program of the Julia worker: ``python -m kansciml.backends._julia_worker``, started by `JuliaBackend`.

It answers requests on standard input with frames on standard output (see `_julia_frames`), one at a time, until the
stream ends. Never imports torch: both in one process have crashed in either order. Whatever Julia prints goes to
standard error, so it cannot fall into a frame.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from kansciml.backends._julia_frames import read_frame, write_frame
from kansciml.backends._julia_install import package_path

NATIVE_SENSEALGS = ("Replay", "ForwardDiff")
"""Those that KanSciML brings; the others are in SciMLSensitivity, which takes seconds to load."""

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
        """Load what a sensealg needs."""
        if header["sensealg"] not in NATIVE_SENSEALGS:
            self.julia.seval("import SciMLSensitivity")
        return {}, []

    def do_setup(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: normalisation (3, n), u0, saveat, data, loss_scale."""
        field = header["field"]
        normalisation, u0, saveat, data, loss_scale = arrays
        problem = self.calls.setup(
            field["model"],
            field["activation"],
            " ".join(map(str, field["widths"])),
            int(field["grid"]),
            int(field["spline_order"]),
            float(field["grid_range"][0]),
            float(field["grid_range"][1]),
            bool(field["squash"]),
            int(field["input_power"]),
            normalisation.ctypes.data,
            u0.ctypes.data,
            len(saveat),
            saveat.ctypes.data,
            data.ctypes.data,
            loss_scale.ctypes.data,
            float(header["t0"]),
            float(header["rtol"]),
            float(header["atol"]),
            int(header["max_steps"]),
        )
        self.sizes[problem] = len(u0)
        return {"problem": problem}, []

    def do_release(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Forget a problem."""
        self.sizes.pop(header["problem"], None)
        self.calls.release(header["problem"])
        return {}, []

    def do_rhs(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: u (B, n), params (P,) -> du/dt (B, n)."""
        u, params = arrays
        out = np.empty_like(u)
        self.calls.rhs(header["problem"], len(u), u.ctypes.data, params.ctypes.data, out.ctypes.data)
        return {}, [out]

    def do_trajectory(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Arrays: params (P,), saveat (T,) -> states (T, n)."""
        params, saveat = arrays
        out = np.empty((len(saveat), self.sizes[header["problem"]]))
        self.calls.trajectory(
            header["problem"],
            params.ctypes.data,
            len(saveat),
            saveat.ctypes.data,
            float(header["rtol"]),
            float(header["atol"]),
            out.ctypes.data,
        )
        return {}, [out]

    def do_value_and_grad(self, header: dict[str, Any], arrays: list[np.ndarray]) -> Answer:
        """Array: params (P,) -> loss in the header, gradient (P,)."""
        (params,) = arrays
        out = np.empty_like(params)
        loss = self.calls.value_and_gradient(
            header["problem"], params.ctypes.data, header["sensealg"], header["n_save"], out.ctypes.data
        )
        return {"loss": loss}, [out]


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
