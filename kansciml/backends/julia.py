"""Neural ODEs in Julia: Lux layers, OrdinaryDiffEq's `SOLVERS`, gradients by any of `SENSEALGS`.

Julia lives in a worker process (see `_julia_worker`); this process loads neither Julia nor juliacall. `find_julia`
tells what there is without starting it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from kansciml._errors import BackendUnavailable, KansciError, SolveError, UsageError
from kansciml.backends._engines.methods import (
    DEFAULT_SENSEALG,
    SENSEALGS,
    checked_sensealg,
    needed_packages,
    solved_by,
)
from kansciml.backends._julia_frames import NONE
from kansciml.backends._julia_install import (
    EXE,
    OWN_JULIA,
    JuliaInstallation,
    find_julia,
    how_to_add,
    missing_packages,
    package_path,
    worker_environment,
)
from kansciml.backends._julia_process import COMMAND, Answer, WorkerProcess
from kansciml.backends.base import OdeProblem, OdeSolver, Part, Piece, Solved
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, Spec, described

__all__ = [
    "DEFAULT_SENSEALG",
    "SENSEALGS",
    "JuliaBackend",
    "JuliaInstallation",
    "JuliaOdeSolver",
    "find_julia",
]

START_TIMEOUT_S = 3600.0
"""The first use of all downloads and compiles packages."""
REQUEST_TIMEOUT_S = 900.0


class JuliaCallError(KansciError):
    """Julia raised an error that is none of the expected ones. Exit code 1."""


class JuliaBackend:
    """Makes solvers that run in a Julia worker; the counterpart of `kansciml.backends.torch.TorchBackend`.

    Args:
        sensealg: gradient method of its solvers, one of `SENSEALGS`.
        may_download: let juliacall download Julia or its packages where they are missing.
        start_timeout, request_timeout: seconds after which a worker that does not answer is ended.
        command: what to run as the worker (for tests).

    Use as a context manager, or call `start` and `close`.

    Raises:
        UsageError: unknown sensealg.
    """

    name = "julia"

    def __init__(
        self,
        sensealg: str = DEFAULT_SENSEALG,
        *,
        may_download: bool = True,
        start_timeout: float = START_TIMEOUT_S,
        request_timeout: float = REQUEST_TIMEOUT_S,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.sensealg = checked_sensealg(sensealg)
        self.may_download = may_download
        self.start_timeout, self.request_timeout = start_timeout, request_timeout
        self.command = command
        self.versions: dict[str, Any] = {}
        """After the start: of Julia, its folder, the environment, and the number of threads."""
        self._process: WorkerProcess | None = None
        self._loaded: set[str] = set()
        self._first_gradient = True
        self._started = 0.0

    def start(self, progress: Callable[[str], None] = lambda line: None) -> JuliaBackend:
        """Start the worker and load KanSciML; returns self.

        Args:
            progress: called with a line for each stage and the time since the start.

        Raises:
            BackendUnavailable: there is no Julia that can be started; the message has the remedy.
        """
        if self._process is not None:
            return self
        installation = find_julia()
        if not installation.ready and not self.may_download:
            raise BackendUnavailable(
                "the Julia packages are not installed yet: run once with --backend julia, which downloads"
                f" {'Julia and ' if installation.executable is None else ''}them"
            )
        progress(f"julia: {installation.describe()}")
        if not installation.ready:
            progress("julia: downloading and compiling packages, once; this takes 10 to 20 minutes")
        process = WorkerProcess(self.command, progress, worker_environment())
        try:
            self.versions = self._follow_start(process, progress)
            self._process = process
            self._load(self.sensealg)
            self._started = process.elapsed
        except BaseException as error:
            self._process = None
            process.close()
            if not isinstance(error, KansciError):
                raise
            raise BackendUnavailable(_why_not(installation, error)) from error
        return self

    def _follow_start(self, process: WorkerProcess, progress: Callable[[str], None]) -> dict[str, Any]:
        stage = "starting the worker"
        while True:
            header, _ = process.receive(self.start_timeout, stage)
            if "stage" in header:
                stage = header["stage"]
                progress(f"julia: {stage} ({process.elapsed:.1f} s)")
            elif "ready" in header:
                versions = header["ready"]
                progress(f"julia: Julia {versions['julia']} ready ({process.elapsed:.1f} s)")
                return versions
            else:
                raise BackendUnavailable(f"Julia does not start: {header.get('error', 'it said nothing')}")

    def solver(self, problem: OdeProblem, sensealg: str | None = None) -> JuliaOdeSolver:
        """The problem made ready in the worker.

        Raises:
            UsageError: unknown sensealg or solver, two that do not go together, or a field that is not built in.
            BackendUnavailable: a Julia package is needed and not installed.
            KansciError: the backend is not started, or the worker died.
        """
        sensealg = checked_sensealg(sensealg or self.sensealg)
        inner = problem.in_own_units()
        if not isinstance(inner.field, (FieldSpec, HybridSpec)):
            raise UsageError(f"got a field of type {type(problem.field).__name__}: the Julia backend needs a FieldSpec")
        solver, sensealg = solved_by(problem.solver, sensealg, inner.field.inputs)
        self._load(sensealg, solver)
        limits = {"max_steps": inner.max_steps} | {
            name: float(getattr(inner, name)) for name in ("rtol", "atol", "continuity")
        }
        series = inner.series
        weights = [np.ones(one.data.shape) if one.weights is None else one.weights for one in series]
        arrays = packed([Piece(one.u0, one.t0, one.saveat, one.inputs) for one in series], inner.field.inputs) | {
            "data": np.concatenate([one.data for one in series]),
            "weights": np.concatenate(weights),
            "follows": np.array([-1 if one.follows is None else one.follows for one in series]),
            "loss_scale": inner.loss_scale,
        }
        request = {"do": "setup", "field": described(inner.field), "solver": solver, **limits}
        answer, _ = self.request(request, arrays, "setting up the problem")
        return JuliaOdeSolver(self, problem, sensealg, int(answer["problem"]))

    def _load(self, sensealg: str, solver: str = "Tsit5") -> None:
        """Load the packages of a gradient method and a solver."""
        for what, package in needed_packages(sensealg, solver):
            if package in self._loaded:
                continue
            try:
                self.request({"do": "load", "package": package}, NONE, f"loading {package}", self.start_timeout)
            except JuliaCallError as error:
                raise BackendUnavailable(
                    f"{what} needs the Julia package {package}, which does not load ({error}): add it to"
                    f" {self.versions.get('project', 'the Julia environment')}, or take the default"
                ) from error
            self._loaded.add(package)

    def request(
        self,
        header: dict[str, Any],
        arrays: Mapping[str, np.ndarray] = NONE,
        waiting_for: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """Ask the worker: a header whose ``do`` names the request, and whose ``results`` give the shapes of the arrays
        that it is to answer with, by name.

        Raises:
            SolveError: the ODE could not be solved.
            JuliaCallError: Julia raised another error.
            KansciError: the backend is not started or was closed, the worker died or did not answer in time.
        """
        answer, results = self._running().request(header, arrays, timeout or self.request_timeout, waiting_for)
        if "error" in answer:
            if answer.get("kind") == "solve":
                raise SolveError(answer["error"])
            raise JuliaCallError(f"Julia: {answer['error']}")
        return answer, results

    def cpu_seconds(self) -> float:
        """Processor time of the worker so far; raises KansciError if there is none."""
        return self._running().cpu_seconds()

    def _running(self) -> WorkerProcess:
        if self._process is None:
            raise KansciError("the Julia backend is not running: call start() first")
        return self._process

    def tell_first_gradient(self, method: str, seconds: float) -> None:
        """Report, once, what the start and the first gradient cost."""
        if self._first_gradient and self._process is not None:
            self._first_gradient = False
            self._process.log(f"julia: first gradient ({method}) after {self._started:.1f} s + {seconds:.1f} s")

    def close(self) -> None:
        """End the worker; calling it twice is allowed."""
        if self._process is not None:
            self._process.close()
            self._process = None
            self._loaded.clear()

    def __enter__(self) -> JuliaBackend:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()


class JuliaOdeSolver(OdeSolver):
    """An `OdeProblem` in the Julia worker: see `kansciml.backends.base.OdeSolver`."""

    backend = "julia"

    def __init__(self, owner: JuliaBackend, problem: OdeProblem, sensealg: str, number: int) -> None:
        super().__init__(problem)
        self.method = sensealg
        self._owner, self._number = owner, number
        self._field = cast(Spec, self.inner.field)
        self._closed = False

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        """By the Lux model."""
        if isinstance(self._field, FieldSpec):
            x = self._field.network_input(v, tau, w)
        else:
            x = np.column_stack([v, *([] if w is None else [w]), tau])
        return self._ask("rhs", {"x": x, "params": params}, {"slopes": v.shape})[1]["slopes"]

    def _solve(self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, gradient: bool) -> Solved:
        request = {"rtol": float(rtol), "atol": float(atol), "sensealg": self.method if gradient else ""}
        arrays = packed(pieces, self._field.inputs)
        shape = len(arrays["saveat"]), self._field.state_size
        states = self._ask("states", {"params": params, **arrays}, {"states": shape}, **request)[1]["states"]
        cuts = np.cumsum([len(piece.saveat) for piece in pieces])[:-1]
        return _JuliaSolved(np.split(states, cuts), lambda cotangents: self._pull(params, cotangents))

    def _pull(self, params: np.ndarray, cotangents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        results = {"by_params": params.shape, "by_starts": (len(cotangents), self._field.state_size)}
        found = self._ask("pull", {"params": params, "cotangents": np.concatenate(cotangents)}, results)[1]
        return found["by_params"], found["by_starts"]

    def _value_and_grad(
        self, params: np.ndarray, starts: np.ndarray, part: Part
    ) -> tuple[float, np.ndarray, np.ndarray]:
        part.check_measured()
        began = time.monotonic()
        arrays = {"params": params, "starts": starts}
        arrays |= {"series": np.asarray(part.picked), "rows": np.asarray(part.counts)}
        results = {"by_params": params.shape, "by_starts": starts.shape}
        told, found = self._ask("value_and_grad", arrays, results, sensealg=self.method)
        self._owner.tell_first_gradient(self.method, time.monotonic() - began)
        return float(told["loss"]), found["by_params"], found["by_starts"]

    def _ask(self, do: str, arrays: Mapping[str, np.ndarray], results: Mapping[str, Any], **values: Any) -> Answer:
        waiting_for = f"computing {do}" if do in ("rhs", "states") else f"computing the gradient by {self.method}"
        header = {"do": do, "problem": self._number, "results": results, **values}
        told, found = self._owner.request(header, arrays, waiting_for)
        self.evaluations += told.get("evaluations", 0)
        return told, found

    def close(self) -> None:
        """Free the problem in the worker; calling it twice is allowed."""
        if not self._closed:
            self._closed = True
            try:
                self._owner.request({"do": "release", "problem": self._number})
            except KansciError:  # the worker is gone, and the problem with it
                pass


def packed(pieces: Sequence[Piece], n_inputs: int) -> dict[str, np.ndarray]:
    """Pieces as the worker takes them, with the arrays of all lying one after the other: starts (K, n), initial times,
    numbers of save times and of knots (K,), save times, knots and their values (knots, m), and which are held (K,)."""
    inputs = [piece.inputs for piece in pieces if piece.inputs is not None]
    return {
        "starts": np.stack([piece.start for piece in pieces]),
        "t0s": np.array([piece.t0 for piece in pieces]),
        "counts": np.array([len(piece.saveat) for piece in pieces]),
        "saveat": np.concatenate([piece.saveat for piece in pieces]),
        "knot_counts": np.array([len(one.t) for one in inputs]),
        "held": np.array([one.kind == "held" for one in inputs]),
        "knots": np.concatenate([np.empty(0), *(one.t for one in inputs)]),
        "values": np.concatenate([np.empty((0, n_inputs)), *(one.values for one in inputs)]),
    }


@dataclass(frozen=True)
class _JuliaSolved:
    """States in the worker; only those of a solver's last request can be pulled back."""

    states: Sequence[np.ndarray]
    pull: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]


def _why_not(installation: JuliaInstallation, error: KansciError) -> str:
    """Why a Julia that was found does not start, and what to do, in one line."""
    if installation.source == EXE and installation.executable and installation.project:
        package = package_path()
        missing = missing_packages(installation.executable, installation.project, package)
        if missing:
            return "Julia does not start: " + how_to_add(missing, installation.project, package)
    message = str(error) if isinstance(error, BackendUnavailable) else f"Julia does not start: {error}"
    if not installation.ready:
        message += f" (while downloading: check the network, then try again; {OWN_JULIA})"
    return message
