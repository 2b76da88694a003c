"""Neural ODEs in Julia: Lux layers, OrdinaryDiffEq's `SOLVERS`, gradients by any of `SENSEALGS`.

Julia lives in a worker process (see `_julia_worker`); this process loads neither Julia nor juliacall. `find_julia`
tells what there is without starting it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
from kansciml.backends._julia_solver import JuliaOdeSolver, layer_told, packed
from kansciml.backends.base import OdeProblem, Piece
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, described
from kansciml.models.lux_field import LuxField

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
FEW_PARAMETERS = 64
"""Layers of Lux with more are differentiated by Zygote, see KanSciML's SENSEALGS."""


class JuliaCallError(KansciError):
    """Julia raised an error that is none of the expected ones. Exit code 1."""


class JuliaBackend:
    """Makes solvers that run in a Julia worker; the counterpart of `kansciml.backends.torch.TorchBackend`.

    Args:
        sensealg: gradient method of its solvers, one of `SENSEALGS`.
        may_download: let juliacall download Julia or its packages where they are missing.
        threads: of Julia; None: as many as its variable says, else one for each processor.
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
        threads: int | None = None,
        start_timeout: float = START_TIMEOUT_S,
        request_timeout: float = REQUEST_TIMEOUT_S,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.sensealg = checked_sensealg(sensealg)
        self.may_download, self.threads = may_download, threads
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
        process = WorkerProcess(self.command, progress, worker_environment(self.threads))
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

    def solver(self, problem: OdeProblem, sensealg: str | None = None, *, lux: bool = False) -> JuliaOdeSolver:
        """The problem made ready in the worker.

        Args:
            problem: what to solve. sensealg: gradient method (default: the backend's).
            lux: evaluate and differentiate a built-in field by its Lux model, instead of by kernels written for it.

        Raises:
            UsageError: unknown sensealg or solver, two that do not go together, a module of torch, or a layer of Lux
                that was not `read`.
            BackendUnavailable: a Julia package is needed and not installed.
            KansciError: the backend is not started, or the worker died.
        """
        sensealg = checked_sensealg(sensealg or self.sensealg)
        inner = problem.in_own_units()
        field = inner.field
        if not isinstance(field, (FieldSpec, HybridSpec, LuxField)):
            raise UsageError(f"got a field of type {type(problem.field).__name__}: the Julia backend needs a FieldSpec")
        solver, sensealg = solved_by(problem.solver, sensealg, field.inputs)
        self._load(sensealg, solver)
        if isinstance(field, LuxField) and (count := self.read(field).n_parameters) != field.n_parameters:
            known = field.n_parameters or "it to be read first, see JuliaBackend.read"
            raise UsageError(f"{field.name} defines a layer of {count} parameters: expected {known}")
        limits = {"max_steps": inner.max_steps} | {
            name: float(getattr(inner, name)) for name in ("rtol", "atol", "continuity")
        }
        series = inner.series
        weights = [np.ones(one.data.shape) if one.weights is None else one.weights for one in series]
        arrays = packed([Piece(one.u0, one.t0, one.saveat, one.inputs) for one in series], field.inputs) | {
            "data": np.concatenate([one.data for one in series]),
            "weights": np.concatenate(weights),
            "follows": np.array([-1 if one.follows is None else one.follows for one in series]),
            "loss_scale": inner.loss_scale,
        }
        told = layer_told(field) if isinstance(field, LuxField) else described(field)
        request = {"do": "setup", "field": told, "solver": solver, "lux": lux, **limits}
        answer, _ = self.request(request, arrays, "setting up the problem")
        return JuliaOdeSolver(self, problem, sensealg, int(answer["problem"]), lux)

    def read(self, field: LuxField) -> LuxField:
        """A layer of Lux with its parameters, and what draws them.

        Raises:
            UsageError: its file fails, or ends in no layer of these sizes.
        """
        told = layer_told(field)
        try:
            answer, _ = self.request({"do": "define", "field": told}, waiting_for=f"reading {field.name}")
        except JuliaCallError as error:
            text = str(error).removeprefix("Julia: ").removeprefix("ArgumentError: ")
            raise UsageError(text if text.startswith(field.name) else f"{field.name}: {text}") from error
        count = int(answer["parameters"])
        if count == 0:
            raise UsageError(f"{field.name} defines a layer without parameters: there is nothing to train")

        def draw(seed: int) -> np.ndarray:
            request = {"do": "draw", "field": told, "seed": seed, "results": {"params": (count,)}}
            return self.request(request, waiting_for=f"drawing parameters of {field.name}")[1]["params"]

        return replace(field, n_parameters=count, draw=draw)

    def choose_for(self, field: LuxField, problem: int) -> None:
        """Have a problem of the worker differentiate a layer by the package that is quickest."""
        if field.n_parameters > FEW_PARAMETERS:
            try:
                self._load_package("Zygote")
            except JuliaCallError as error:
                self._running().log(f"julia: gradients of {field.label()} by ForwardDiff, slower ({error})")
            self.request({"do": "choose", "problem": problem}, waiting_for=f"compiling gradients of {field.label()}")

    def _load(self, sensealg: str, solver: str = "Tsit5") -> None:
        """Load the packages of a gradient method and a solver."""
        for what, package in needed_packages(sensealg, solver):
            try:
                self._load_package(package)
            except JuliaCallError as error:
                raise BackendUnavailable(
                    f"{what} needs the Julia package {package}, which does not load ({error}): add it to"
                    f" {self.versions.get('project', 'the Julia environment')}, or take the default"
                ) from error

    def _load_package(self, package: str) -> None:
        if package not in self._loaded:
            self.request({"do": "load", "package": package}, NONE, f"loading {package}", self.start_timeout)
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
