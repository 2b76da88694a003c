"""Opens a backend by name. `auto` takes Julia where it starts, else PyTorch, and logs which and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from kansciml._errors import BackendUnavailable, UsageError, unknown_name
from kansciml.backends.base import OdeProblem, OdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, Spec
from kansciml.models.lux_field import LuxField

if TYPE_CHECKING:
    from kansciml.backends.julia import JuliaBackend
    from kansciml.backends.module_field import ModuleField

BACKENDS = ("auto", "torch", "julia")


class OdeBackend(Protocol):
    """Makes solvers; `close` ends what it started."""

    name: str

    def solver(self, problem: OdeProblem) -> OdeSolver:
        """The problem made ready."""

    def cpu_seconds(self) -> float:
        """Processor time so far of a process of its own; 0 if it has none."""

    def close(self) -> None:
        """Free what the backend holds; calling it twice is allowed."""


def open_backend(
    name: str = "auto",
    *,
    gradient: str | None = None,
    sensealg: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> OdeBackend:
    """Start a backend.

    Args:
        name: ``"torch"``, ``"julia"``, or ``"auto"``.
        gradient: gradient method of the torch backend (default ``replay``).
        sensealg: sensitivity algorithm of the Julia backend (default: the one measured to be fastest).
        log: called with one line for each thing worth telling.

    Raises:
        UsageError: unknown backend, gradient or sensealg.
        BackendUnavailable: Julia was asked for and does not start.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    if name != "torch":
        try:
            backend = _julia(sensealg, log, may_download=name == "julia")
        except BackendUnavailable as error:
            if name == "julia":
                raise
            log(f"backend: torch, because Julia does not start ({error})")
        else:
            if name == "auto":
                log("backend: julia, because it starts here")
            return backend
    from kansciml.backends.torch import DEFAULT_GRADIENT, TorchBackend

    return TorchBackend(gradient or DEFAULT_GRADIENT)


def open_for(
    field: Spec | LuxField | ModuleField,
    backend: str | OdeBackend,
    gradient: str | None = None,
    log: Callable[[str], None] | None = None,
) -> OdeBackend:
    """`backend`, started if it is a name. A module of torch is for torch alone: ``"auto"`` is torch then. A layer
    of Lux is for Julia alone: ``"auto"`` is Julia then.

    Args:
        gradient, log: see `open_backend`; the former is for torch.

    Raises:
        UsageError: the backend does not solve such fields; and as `open_backend`. BackendUnavailable: as that.
    """
    name = backend if isinstance(backend, str) else backend.name
    if isinstance(field, LuxField):
        if name == "torch":
            raise UsageError(f"got a layer of Lux, {field.name}, and backend 'torch': it needs backend 'julia'")
        if name == "auto":
            backend = name = "julia"
    elif not isinstance(field, (FieldSpec, HybridSpec)) and name != "torch":
        if name != "auto":
            raise UsageError(f"got a torch module and backend {name!r}: a module of your own needs backend 'torch'")
        backend = name = "torch"
    if not isinstance(backend, str):
        return backend
    return open_backend(name, gradient=gradient if name == "torch" else None, log=log or (lambda line: None))


def read_by(backend: OdeBackend, field: LuxField) -> LuxField:
    """A layer of Lux with its parameters, as the backend that `open_for` gave for it reads them.

    Raises:
        UsageError: its file fails, or defines no layer of these sizes.
    """
    return cast("JuliaBackend", backend).read(field)


def check_methods(gradient: str | None, sensealg: str | None, solver: str | None = None, backend: str = "auto") -> None:
    """Return if a backend, for ``auto`` either, has these methods; nothing is started.

    Raises:
        UsageError: a name that the backend does not have.
    """
    from kansciml.backends import julia
    from kansciml.backends._engines import methods

    if sensealg is not None and sensealg not in julia.SENSEALGS:
        raise unknown_name("sensealg", sensealg, julia.SENSEALGS)
    on_torch = methods.library_of(gradient)
    if solver is None:
        return
    if backend in ("torch", "both"):
        methods.named_in(on_torch, solver)
    if backend in ("julia", "both"):
        methods.named_in("Julia", solver)
    either = dict.fromkeys([*methods.names_in(on_torch), *methods.names_in("Julia")])
    if backend == "auto" and solver not in either:
        raise unknown_name("solver", solver, either)


def solver_on(backend: OdeBackend, solver: str) -> str:
    """A solver that the backend lacks by the general name (3, 5, 8, stiff) of its kind; any other as it is."""
    from kansciml.backends._engines import methods

    library = "Julia" if backend.name == "julia" else methods.library_of(getattr(backend, "gradient", None))
    return methods.alike_in(library, solver)


def _julia(sensealg: str | None, log: Callable[[str], None], may_download: bool) -> OdeBackend:
    from kansciml.backends.julia import DEFAULT_SENSEALG, JuliaBackend

    return JuliaBackend(sensealg or DEFAULT_SENSEALG, may_download=may_download).start(log)
