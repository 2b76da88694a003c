"""Dormand-Prince 5(4) for the built-in fields in C++, where ``backends/_native/ode.cpp`` has been built.

The steps are those of `kansciml.backends._engines.explicit` up to rounding, and the gradient is that of
`kansciml.backends._engines.replay`: the exact one of the discrete solution, step sizes held fixed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import failure
from kansciml.backends.base import Piece
from kansciml.layers._kernels.cpp_library import find
from kansciml.layers._native.build import ODE
from kansciml.layers.bspline import uniform_pieces
from kansciml.models.field_spec import ACTIVATIONS, FieldSpec

_INTERFACE = 1
"""Of the functions' arguments, as the library tells it: an older build must not be called with others."""
_ORDERS = range(1, 6)
"""Of the splines that are compiled."""
_Int, _Real, _Address = ctypes.c_longlong, ctypes.c_double, ctypes.c_void_p


class _Spec(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("layers", "activation", "grid", "order", "squash", "power", "spline")),
        *((name, _Real) for name in ("low", "high")),
        *((name, _Address) for name in ("widths", "center", "scale", "rate", "pieces")),
    ]


class _Pieces(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("count", "inputs", "time")),
        *((name, _Address) for name in ("start", "t0", "saveat", "saves", "knots", "base", "slope", "first", "held")),
    ]


class _Outcome(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("failed", "piece", "tried")),
        *((name, _Real) for name in ("t", "h", "largest")),
        *((name, _Int) for name in ("accepted", "rejected")),
    ]


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, with its functions' types.

    Raises:
        OSError: it is not there, not for this machine, or built from another version of its source.
    """
    library = ctypes.CDLL(str(path))
    if not hasattr(library, "kansciml_ode_interface") or library.kansciml_ode_interface() != _INTERFACE:
        raise OSError("built from another version of its source")
    pointer = ctypes.POINTER
    library.kansciml_ode_new_.restype = _Address
    library.kansciml_ode_new_.argtypes = [pointer(_Spec)]
    library.kansciml_ode_free_.argtypes = [_Address]
    library.kansciml_ode_solve_.argtypes = [
        *(_Address, _Address, pointer(_Pieces), _Real, _Real, _Int, _Int, _Address, pointer(_Outcome))
    ]
    library.kansciml_ode_pull_.argtypes = [_Address, _Int, _Address, _Address, _Address]
    return library


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    return find(ODE, load)


def available() -> bool:
    """Whether the C++ engine can run here."""
    return _loaded()[0] is not None


def runs(spec: FieldSpec) -> bool:
    """Whether it can run this field."""
    return available() and (spec.model == "mlp" or spec.spline_order in _ORDERS)


def reason() -> str:
    """One line: why it cannot, or the instruction set it runs with."""
    return _loaded()[1]


class _Memory:
    """What C++ holds for one field: its parameters, and the steps of one solve at a time."""

    def __init__(self, library: ctypes.CDLL, spec: FieldSpec) -> None:
        self._free = library.kansciml_ode_free_
        numbers = [np.array(spec.widths, dtype=np.int64), *spec.normalisation(), uniform_pieces(spec.spline_order)]
        activation, (low, high) = ACTIVATIONS.index(spec.activation), spec.grid_range
        sizes = (len(spec.widths) - 1, activation, spec.grid, spec.spline_order, spec.squash, spec.input_power)
        own = _Spec(*sizes, spec.model == "kan", low, high, *(array.ctypes.data for array in numbers))
        self.address = library.kansciml_ode_new_(own)

    def __del__(self) -> None:
        self._free(self.address)


class NativeEngine:
    """Solves a built-in field in C++: see `kansciml.backends.base.Engine`. Several threads may use one engine.

    Args:
        spec: one that `runs`.
    """

    def __init__(self, spec: FieldSpec) -> None:
        library = _loaded()[0]
        assert library is not None
        self.spec, self.library = spec, library
        self.idle: list[_Memory] = []
        """Memory that no `NativeSolved` holds."""

    def solve(
        self,
        params: Float64[np.ndarray, " P"],
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> NativeSolved:
        """See `kansciml.backends.base.Engine`; raises `SolveError`."""
        return NativeSolved(self, params, pieces, rtol, atol, max_steps, gradient)


class NativeSolved:
    """Solutions of pieces, and their gradient: see `kansciml.backends.base.Solved`.

    states: (T, n) of each piece. accepted, rejected: steps, of all pieces.
    """

    def __init__(
        self,
        engine: NativeEngine,
        params: np.ndarray,
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> None:
        self._engine, spec = engine, engine.spec
        try:
            self._memory = engine.idle.pop()
        except IndexError:
            self._memory = _Memory(engine.library, spec)
        count, drive = len(pieces), Drive(pieces)
        starts = np.array([one.start for one in pieces], dtype=np.float64)
        t0 = np.array([one.t0 for one in pieces], dtype=np.float64)
        saveat = np.concatenate([one.saveat for one in pieces])
        saves = np.cumsum([0, *(len(one.saveat) for one in pieces)])
        arrays = [starts, t0, saveat, saves]
        if drive.present:
            arrays += [drive.knots, drive.base, drive.slope, drive.first, drive.held.astype(np.int64)]
        states, outcome = np.empty((len(saveat), spec.state_size)), _Outcome()
        engine.library.kansciml_ode_solve_(
            self._memory.address,
            params.ctypes.data,
            _Pieces(count, spec.inputs, spec.time, *(array.ctypes.data for array in arrays)),
            rtol,
            atol,
            max_steps,
            gradient,
            states.ctypes.data,
            outcome,
        )
        if outcome.failed:
            largest, name = np.array([outcome.largest]), pieces[outcome.piece].name
            raise failure(outcome.t, outcome.h, largest, outcome.tried, max_steps, name)
        self._count, self._gradient = count, gradient
        self.accepted, self.rejected = outcome.accepted, outcome.rejected
        self.states = [states] if count == 1 else np.split(states, saves[1:-1])

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self._engine.idle.append(self._memory)

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        assert self._gradient
        spec = self._engine.spec
        cotangent = np.concatenate(cotangents)
        grad, by_starts = np.empty(spec.n_parameters), np.empty((self._count, spec.state_size))
        addresses = (array.ctypes.data for array in (cotangent, grad, by_starts))
        self._engine.library.kansciml_ode_pull_(self._memory.address, self._count, *addresses)
        return grad, by_starts
