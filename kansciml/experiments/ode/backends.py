"""Backends that are opened once in a process and shared by all that it runs, and the choice of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kansciml.backends.select import OdeBackend, open_backend
from kansciml.runs.config_json import with_settings
from kansciml.runs.settings import setting

_OPEN: dict[tuple[str, str | None], OdeBackend] = {}


def shared_backend(name: str, method: str | None, log: Callable[[str], None]) -> OdeBackend:
    """The open backend of this name, or a new one. `method`: gradient of torch, sensealg of julia and of auto."""
    if (name, method) not in _OPEN:
        option = "gradient" if name == "torch" else "sensealg"
        backend = open_backend(name, **{option: method}, log=log)
        name, method = backend.name, method if backend.name == "julia" or name == "torch" else None
        _OPEN[name, method] = backend
    return _OPEN[name, method]


@contextlib.contextmanager
def closing_backends() -> Iterator[None]:
    """On leaving it, close every backend that `shared_backend` opened."""
    try:
        yield
    finally:
        while _OPEN:
            _OPEN.popitem()[1].close()


def choices(config: Any) -> Sequence[Any]:
    """What a configuration with backend ``auto`` may stand for: Julia's, else torch's, unless it has a field of
    Julia's; any other for itself."""
    if setting(config, "backend") != "auto":
        return (config,)
    backends = ("julia", "torch") if setting(config, "field") is None else ("julia",)
    return [with_settings(config, {"backend": backend}) for backend in backends]


def resolve(config: Any, log: Callable[[str], None]) -> Any:
    """The configuration with backend ``auto`` replaced by the one that starts here; the backend is started.

    Raises:
        BackendUnavailable: Julia is asked for, and does not start.
    """
    backend = setting(config, "backend")
    if backend == "torch":
        return config
    either = backend == "auto" and setting(config, "field") is None
    opened = shared_backend("auto" if either else "julia", setting(config, "sensealg"), log)
    return with_settings(config, {"backend": opened.name}) if backend == "auto" else config
