"""Arithmetic of a right-hand side, recorded: known terms as data that every backend evaluates and differentiates.

A function written for arrays is called once with symbols in place of numbers, which note each operation. The record can
be sent to another process or written to a file: it holds no code. NumPy only.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kansciml._errors import KansciError, UsageError
from kansciml.models.units import Units

LEAVES = ("state", "input", "time", "parameter", "constant")
UNARY = ("neg", "abs", "exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "arctan")
BINARY = ("+", "-", "*", "/", "**")
Node = tuple[Any, ...]
"""An operation and what it is applied to: (``"state"``, i), (``"input"``, i), (``"time"``,), (``"parameter"``, i),
(``"constant"``, number); one of `UNARY` or `BINARY` and the places of its operands among the nodes before;
(``"network"``, places of its inputs); (``"output"``, place of a network, which of its outputs)."""


@dataclass(frozen=True)
class Equations:
    """du/dt by states, inputs, time, parameters and calls of one network, as a list of operations.

    Args:
        nodes: the operations, each after its operands.
        slopes: places of du/dt among them, (n,).
        parameters: places of the known parameters, which may be functions of those that are trained.

    Raises:
        UsageError: an unknown operation, or one whose operands do not come before it.
    """

    nodes: tuple[Node, ...]
    slopes: tuple[int, ...]
    parameters: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for place, (name, *rest) in enumerate(self.nodes):
            node = f"operation {place} of the equations is {self.nodes[place]}"
            arity = {**dict.fromkeys(UNARY, 1), **dict.fromkeys(BINARY, 2), "output": 2, "time": 0}.get(name, 1)
            known = name in (*LEAVES, *UNARY, *BINARY, "network", "output")
            if not known or (name != "network" and len(rest) != arity):
                raise UsageError(f"{node}: unknown")
            whole = all(type(one) is int and one >= 0 for one in rest)
            if not (whole or (name == "constant" and isinstance(rest[0], float) and math.isfinite(rest[0]))):
                raise UsageError(f"{node}: expected a number, or places from 0 on")
            before = [self.nodes[one][0] for one in operands_of(self.nodes[place]) if one < place]
            if len(before) < len(operands_of(self.nodes[place])) or any(
                (one == "network") != (name == "output") for one in before
            ):
                raise UsageError(f"{node}: expected operands before it, of outputs a network")
        if not all(0 <= one < len(self.nodes) for one in (*self.slopes, *self.parameters)):
            raise UsageError(f"got slopes {self.slopes}: expected places among {len(self.nodes)} operations")

    def size(self, leaf: str) -> int:
        """How many of a kind of leaf are referred to."""
        return 1 + max((node[1] for node in self.nodes if node[0] == leaf), default=-1)

    @property
    def calls(self) -> list[tuple[int, ...]]:
        """Places of the inputs of each call of the network."""
        return [node[1:] for node in self.nodes if node[0] == "network"]

    def in_units(self, units: Units) -> Equations:
        """dv/dtau of v and tau: see `Units`."""
        tape = Tape()
        place: list[int] = []
        for name, *rest in self.nodes:
            if name == "state":
                at = tape("state", rest[0]) * float(units.state[rest[0]]) + float(units.origin[rest[0]])
            elif name == "time":
                at = tape("time") * units.time + units.t0
            elif name in LEAVES:
                at = tape(name, *rest)
            elif name == "output":
                at = tape(name, place[rest[0]], rest[1])
            else:
                at = tape(name, *(place[one] for one in rest))
            place.append(at.place)
        factors = (units.time / units.state).tolist()
        slopes = [(Symbol(tape, place[one]) * factor).place for one, factor in zip(self.slopes, factors)]
        return Equations(tuple(tape.nodes), tuple(slopes), tuple(place[one] for one in self.parameters))


_PLAIN: dict[str, Callable] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "neg": operator.neg, "abs": abs,
}  # fmt: skip
SCALAR = {**_PLAIN, **{name: getattr(math, name) for name in UNARY if hasattr(math, name)}}
SCALAR |= {"**": math.pow, "arctan": math.atan}
"""Operations on Python's numbers; math raises OverflowError or ValueError where NumPy gives infinity or NaN."""
ARRAY = {**_PLAIN, **{name: getattr(np, name) for name in UNARY if hasattr(np, name)}, "**": operator.pow}
"""Operations on arrays."""


def operands_of(node: Node) -> tuple[int, ...]:
    """Places of what an operation is applied to."""
    if node[0] in LEAVES:
        return ()
    return node[1:2] if node[0] == "output" else node[1:]


class Tape:
    """The operations noted so far; called with a new one it gives its `Symbol`. Equal ones are noted once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._places: dict[Node, int] = {}

    def __call__(self, *node: Any) -> Symbol:
        place = self._places.setdefault(node, len(self.nodes))
        if place == len(self.nodes):
            self.nodes.append(node)
        return Symbol(self, place)


class Symbol:
    """A number that is not known yet: arithmetic with it, and NumPy's functions of it, are noted on a tape."""

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape, self.place = tape, place

    def _with(self, name: str, other: Any, reverse: bool = False) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        there = as_symbol(self.tape, other).place
        return self.tape(name, *((there, self.place) if reverse else (self.place, there)))

    def __add__(self, other: Any) -> Any:
        return self._with("+", other)

    def __radd__(self, other: Any) -> Any:
        return self._with("+", other, reverse=True)

    def __sub__(self, other: Any) -> Any:
        return self._with("-", other)

    def __rsub__(self, other: Any) -> Any:
        return self._with("-", other, reverse=True)

    def __mul__(self, other: Any) -> Any:
        return self._with("*", other)

    def __rmul__(self, other: Any) -> Any:
        return self._with("*", other, reverse=True)

    def __truediv__(self, other: Any) -> Any:
        return self._with("/", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with("/", other, reverse=True)

    def __pow__(self, other: Any) -> Any:
        return self._with("**", other)

    def __rpow__(self, other: Any) -> Any:
        return self._with("**", other, reverse=True)

    def __pos__(self) -> Symbol:
        return self

    def __neg__(self) -> Symbol:
        return self.tape("neg", self.place)

    def __abs__(self) -> Symbol:
        return self.tape("abs", self.place)

    def __getattr__(self, name: str) -> Callable[[], Symbol]:
        """NumPy's functions of an object are methods of it: ``np.exp(x)`` is ``x.exp()``."""
        if name not in UNARY:
            raise AttributeError(name)
        return lambda: self.tape(name, self.place)

    def __bool__(self) -> bool:
        raise UsageError("it depends on the value of a state, input, time or parameter, as in if, and, min or max")

    def _compared(self, other: Any) -> bool:
        return bool(self)

    __lt__ = __le__ = __gt__ = __ge__ = _compared
    __eq__ = __ne__ = _compared  # type: ignore[assignment]  # it never returns
    __hash__ = object.__hash__

    def __float__(self) -> float:
        raise UsageError("it needs the number behind a symbol: write it with +, -, *, /, ** and functions of NumPy")

    __int__ = __index__ = __float__  # type: ignore[assignment]  # none of them returns


def as_symbol(tape: Tape, value: Any) -> Symbol:
    """A number as a symbol.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, Symbol):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return as_symbol(tape, value.item())
    if not isinstance(value, (int, float, np.integer, np.floating)) or not math.isfinite(value):
        raise UsageError(f"it computes with {value!r}: expected finite numbers")
    return tape("constant", float(value))


def trace(
    rhs: Callable[..., Any], n: int, inputs: int, outputs: int, named: Callable[[Tape], dict[str, Symbol]]
) -> Equations:
    """Note what ``rhs(t, u, network, p)`` computes, or with inputs ``rhs(t, u, w, network, p)``.

    Args:
        n: number of states. inputs: of inputs. outputs: of the network. named: makes the parameters p on a tape.

    Raises:
        UsageError: it cannot be noted, does not give n numbers, or leaves out a parameter or an output of the network.
    """
    tape = Tape()
    t, parameters = tape("time"), named(tape)
    u, w = (_array([tape(name, i) for i in range(size)]) for name, size in (("state", n), ("input", inputs)))
    width: set[int] = set()

    def network(x: Any) -> np.ndarray:
        given = [as_symbol(tape, one).place for one in np.ravel(np.asarray(x, dtype=object))]
        width.add(len(given))
        if len(width) > 1 or not given:
            raise UsageError(f"it calls the network with {' and '.join(map(str, sorted(width)))} inputs")
        called = tape("network", *given).place
        return _array([tape("output", called, j) for j in range(outputs)])

    try:
        result = rhs(t, u, *((w,) if inputs else ()), network, _Named(parameters))
        shape = np.shape(np.asarray(result, dtype=object))
        if shape != (n,):
            raise UsageError(f"it gives shape {shape} at one state: expected ({n},), as np.stack([...], axis=-1) makes")
        slopes = tuple(as_symbol(tape, one).place for one in np.asarray(result, dtype=object))
    except Exception as error:
        told = "" if isinstance(error, KansciError) else f"{type(error).__name__}: "
        raise UsageError(f"{told}{' '.join(str(error).split())}") from error
    found = Equations(tuple(tape.nodes), slopes, tuple(one.place for one in parameters.values()))
    used = _reached(found)
    if unused := [name for name, one in parameters.items() if one.place not in used]:
        raise UsageError(f"it does not depend on {', '.join(unused)}: use the parameter, or leave it out")
    there = {node[2] for place, node in enumerate(found.nodes) if node[0] == "output" and place in used}
    if len(there) < outputs:
        lacking = [j for j in range(outputs) if j not in there]
        raise UsageError(f"it does not depend on output {lacking[0]} of the network, of {outputs}")
    return found


class _Named(dict):
    """Parameters by name."""

    def __missing__(self, name: object) -> Any:
        raise UsageError(f"it asks for parameter {name!r}: expected one of {', '.join(self) or '(none)'}")


def _array(symbols: Sequence[Symbol]) -> np.ndarray:
    array = np.empty(len(symbols), dtype=object)
    array[:] = symbols
    return array


def _reached(equations: Equations) -> set[int]:
    """Places that the slopes depend on."""
    found, left = set(), list(equations.slopes)
    while left:
        place = left.pop()
        if place not in found:
            found.add(place)
            left += operands_of(equations.nodes[place])
    return found
