"""Dormand-Prince 5(4) for the built-in fields in C++, where ``backends/_native/ode.cpp`` has been built.

The steps are those of `kansciml.backends._engines.explicit` up to rounding, and the gradient is that of
`kansciml.backends._engines.replay`: the exact one of the discrete solution, step sizes held fixed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import failure
from kansciml.backends.base import OdeProblem, Part, Piece
from kansciml.layers._kernels.cpp_library import find
from kansciml.layers._native.build import ODE
from kansciml.layers.bspline import uniform_pieces
from kansciml.models.field_spec import ACTIVATIONS, FieldSpec

_INTERFACE = 2
"""Of the functions' arguments, as the library tells it: an older build must not be called with others."""
STAGES, STARTING = 6, 2
"""Evaluations of the field in a step, whose first slope is the last one's of the step before, and to begin a piece."""
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


class _Solution(ctypes.Structure):
    _fields_ = [
        *((name, _Real) for name in ("rtol", "atol")),
        *((name, _Int) for name in ("max_steps", "keep")),
        *((name, _Address) for name in ("params", "states", "last", "theta", "outcomes")),
    ]


class _Cotangents(ctypes.Structure):
    _fields_ = [
        *((name, _Address) for name in ("states", "grads", "starts", "data", "weights", "scale")),
        ("factor", _Real),
    ]


_OUTCOME = np.dtype(
    [(name, float if name in ("t", "h", "largest") else np.int64) for name in
     ("failed", "piece", "tried", "t", "h", "largest", "accepted", "rejected")]
)  # fmt: skip
"""Of a group."""


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
    solved: list[Any] = [_Address, _Int, pointer(_Pieces), pointer(_Solution)]
    cotangents = pointer(_Cotangents)
    library.kansciml_ode_solve_.argtypes = solved
    library.kansciml_ode_fit_.argtypes = [*solved, cotangents]
    library.kansciml_ode_pull_.argtypes = [_Address, _Int, _Int, pointer(_Solution), cotangents]
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


class _Worker:
    """What a thread of C++ works with: a field, its parameters, and memory for steps."""

    def __init__(self, library: ctypes.CDLL, spec: FieldSpec) -> None:
        self._free = library.kansciml_ode_free_
        numbers = [np.array(spec.widths, dtype=np.int64), *spec.normalisation(), uniform_pieces(spec.spline_order)]
        activation, (low, high) = ACTIVATIONS.index(spec.activation), spec.grid_range
        sizes = (len(spec.widths) - 1, activation, spec.grid, spec.spline_order, spec.squash, spec.input_power)
        own = _Spec(*sizes, spec.model == "kan", low, high, *(array.ctypes.data for array in numbers))
        self.address = library.kansciml_ode_new_(own)

    def __del__(self) -> None:
        self._free(self.address)


class _Packed:
    """Pieces as C++ takes them, but for their starts."""

    def __init__(self, engine: NativeEngine, pieces: Sequence[Piece]) -> None:
        drive = Drive(pieces)
        self.names = [one.name for one in pieces]
        self.groups = -(-len(pieces) // engine.library.kansciml_ode_group())
        self.begins = np.cumsum([0, *(len(one.saveat) for one in pieces)])
        self._arrays: list[np.ndarray] = [np.array([one.t0 for one in pieces], dtype=np.float64)]
        self._arrays += [np.concatenate([one.saveat for one in pieces]), self.begins]
        if drive.present:
            self._arrays += [drive.knots, drive.base, drive.slope, drive.first, drive.held.astype(np.int64)]
        self._numbers = len(pieces), engine.spec.inputs, engine.spec.time
        self._addresses = addresses(*self._arrays)

    def starting(self, starts: np.ndarray) -> _Pieces:
        """The structure for C++, while `starts` and this object live."""
        return _Pieces(*self._numbers, starts.ctypes.data, *self._addresses)


class NativePart(Part):
    """A part of the data as C++ takes it."""

    def __init__(self, engine: NativeEngine, problem: OdeProblem, picked: Sequence[int], counts: Sequence[int]) -> None:
        super().__init__(problem, picked, counts)
        self.packed = _Packed(engine, self.pieces(np.stack([one.u0 for one in problem.series])))
        self._arrays = self.data, np.ones_like(self.data) if self.weights is None else self.weights, problem.loss_scale
        self.target = *addresses(*self._arrays), 2.0 / (self.size or 1.0)


class NativeEngine:
    """Solves a built-in field in C++: see `kansciml.backends.base.Engine`. Several threads may use one engine.

    Groups of pieces are shared out among as many threads as torch has (`torch.set_num_threads`, OMP_NUM_THREADS); no
    result depends on their number.

    Args:
        spec: one that `runs`. count: told of every solve at how many states it evaluated the field.
    """

    def __init__(self, spec: FieldSpec, count: Callable[[int], None] = lambda states: None) -> None:
        library = _loaded()[0]
        assert library is not None
        self.spec, self.library, self.n_parameters, self.count = spec, library, spec.n_parameters, count
        self.idle: list[_Worker] = []
        """Workers that no `_Run` holds."""

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
        starts = np.array([one.start for one in pieces], dtype=np.float64)
        return NativeSolved(self, _Packed(self, pieces), params, starts, rtol, atol, max_steps, gradient)

    def fit(
        self, params: Float64[np.ndarray, " P"], starts: Float64[np.ndarray, "K n"], part: NativePart
    ) -> tuple[Float64[np.ndarray, "R n"], Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """States at all save points of a part from its pieces' starts; gradients of its loss without links by the
        parameters and the starts. Raises `SolveError`.

        Each group is differentiated while its steps are in the processor's cache.
        """
        problem = part.problem
        run = _Run(self, part.packed, params, starts, problem.rtol, problem.atol, problem.max_steps, True)
        return run.rows, *run.fit(part.target)

    def borrow(self, count: int) -> list[_Worker]:
        """Workers for a `_Run`, which puts them back to `idle`."""
        workers = []
        for _ in range(count):
            try:
                workers.append(self.idle.pop())
            except IndexError:  # or another thread was quicker
                workers.append(_Worker(self.library, self.spec))
        return workers


class _Run:
    """One solve in C++: its workers and its results. `arguments`: rtol, atol, max_steps, keep (the steps)."""

    def __init__(
        self, engine: NativeEngine, packed: _Packed, params: np.ndarray, starts: np.ndarray, *arguments: Any
    ) -> None:
        self._engine, self._packed, self._max_steps, self._starts = engine, packed, arguments[2], starts
        self._workers = engine.borrow(min(packed.groups, torch.get_num_threads()))
        count = len(self._workers)
        self._team = (_Address * count)(*(worker.address for worker in self._workers)), count
        self.rows = np.empty((packed.begins[-1], engine.spec.state_size))
        self._outcomes = np.zeros(packed.groups, _OUTCOME)
        self._kept = params, self.rows, np.empty(len(starts), np.int64), np.empty(len(self.rows)), self._outcomes
        self._pieces, self._solution = packed.starting(starts), _Solution(*arguments, *addresses(*self._kept))

    def solve(self) -> None:
        """Raises the `SolveError` of the first group that failed."""
        self._engine.library.kansciml_ode_solve_(*self._team, self._pieces, self._solution)
        self._check()

    def pull_rows(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients by the parameters and by the starts, from those by the states (R, n)."""
        grads, by_starts, own = self._gradients(cotangents)
        self._engine.library.kansciml_ode_pull_(*self._team, len(by_starts), self._solution, own)
        return total(grads), by_starts

    def fit(self, target: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Both at once, for the loss of a `NativePart`."""
        grads, by_starts, own = self._gradients(np.empty_like(self.rows), *target)
        self._engine.library.kansciml_ode_fit_(*self._team, self._pieces, self._solution, own)
        self._check()
        return total(grads), by_starts

    def _gradients(self, cotangents: np.ndarray, *target: Any) -> tuple[np.ndarray, np.ndarray, _Cotangents]:
        grads = np.empty((self._packed.groups, self._engine.n_parameters))
        arrays = cotangents, grads, np.empty_like(self._starts)
        self._cotangents = arrays  # they are to live as long as the structure
        return *arrays[1:], _Cotangents(*addresses(*arrays), *target)

    def _check(self) -> None:
        failed, tried = self._outcomes["failed"], self._outcomes["accepted"] + self._outcomes["rejected"]
        self._engine.count(int(STAGES * tried.sum()) + STARTING * len(self._starts))
        if failed.any():
            first = self._outcomes[failed.argmax()]
            largest, name = np.array([first["largest"]]), self._packed.names[first["piece"]]
            raise failure(first["t"], first["h"], largest, first["tried"], self._max_steps, name)

    def __del__(self) -> None:
        self._engine.idle += self._workers


class NativeSolved(_Run):
    """Solutions of pieces, and their gradient: see `kansciml.backends.base.Solved`.

    states: (T, n) of each piece. accepted, rejected: steps, of all pieces.
    """

    def __init__(
        self, engine: NativeEngine, packed: _Packed, params: np.ndarray, starts: np.ndarray, *arguments: Any
    ) -> None:
        super().__init__(engine, packed, params, starts, *arguments)
        self.solve()
        self.states = np.split(self.rows, packed.begins[1:-1])
        self.accepted, self.rejected = (int(self._outcomes[name].sum()) for name in ("accepted", "rejected"))

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        return self.pull_rows(np.concatenate(cotangents))


def addresses(*arrays: np.ndarray) -> list[int]:
    """Of arrays whose owner keeps them alive."""
    return [array.ctypes.data for array in arrays]


def total(grads: np.ndarray) -> np.ndarray:
    """The sum over the rows, always in the same order."""
    return grads[0] if len(grads) == 1 else grads.sum(axis=0)
