"""Backends that are opened once in a process and shared by all that it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from kansciml.backends.select import OdeBackend, open_backend

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
