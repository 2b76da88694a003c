"""An ODE problem in the Julia worker: what its requests hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import to_jsonable
from kansciml.backends._julia_process import Answer
from kansciml.backends.base import OdeProblem, OdeSolver, Part, Piece, Solved
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, Spec
from kansciml.models.lux_field import LuxField

if TYPE_CHECKING:
    from kansciml.backends.julia import JuliaBackend


class JuliaOdeSolver(OdeSolver):
    """An `OdeProblem` in the Julia worker: see `kansciml.backends.base.OdeSolver`."""

    backend = "julia"

    def __init__(self, owner: JuliaBackend, problem: OdeProblem, sensealg: str, number: int, lux: bool = False) -> None:
        super().__init__(problem)
        self.method = f"{sensealg} of the Lux model" if lux else sensealg
        self.seconds = 0.0
        """Of the last loss and gradient, within Julia."""
        self._owner, self._sensealg, self._number = owner, sensealg, number
        self._field = cast(Spec | LuxField, self.inner.field)
        self._closed = self._chosen = False

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        """By the Lux model."""
        if isinstance(self._field, FieldSpec):
            x = self._field.network_input(v, tau, w)
        else:
            timed = isinstance(self._field, HybridSpec) or self._field.time
            x = np.column_stack([v, *([] if w is None else [w]), *([tau] if timed else [])])
        return self._ask("rhs", {"x": x, "params": params}, {"slopes": v.shape})[1]["slopes"]

    def _solve(self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, gradient: bool) -> Solved:
        request = {"rtol": float(rtol), "atol": float(atol), "sensealg": self._sensealg if gradient else ""}
        if gradient:
            self._choose()
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
        self._choose()
        began = time.monotonic()
        arrays = {"params": params, "starts": starts}
        arrays |= {"series": np.asarray(part.picked), "rows": np.asarray(part.counts)}
        results = {"by_params": params.shape, "by_starts": starts.shape}
        told, found = self._ask("value_and_grad", arrays, results, sensealg=self._sensealg)
        self.seconds = float(told.get("seconds", 0.0))
        self._owner.tell_first_gradient(self.method, time.monotonic() - began)
        return float(told["loss"]), found["by_params"], found["by_starts"]

    def _choose(self) -> None:
        """Before the first gradient of a layer of Lux."""
        if isinstance(self._field, LuxField) and not self._chosen:
            self._owner.choose_for(self._field, self._number)
            self._chosen = True

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


def layer_told(field: LuxField) -> dict[str, Any]:
    """A layer of Lux as the worker takes it."""
    units = field.units and {name: to_jsonable(value) for name, value in vars(field.units).items()}
    return {**field.described(), "source": field.source, "units": units}


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
