"""Fields of known terms and a network in NumPy, with derivatives by going back through the list of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from kansciml.backends._kernels import FieldKernel, InputRows, Pullback, Rhs, Slopes, States, Times, bind
from kansciml.models.equations import ARRAY, SCALAR, Node, operands_of
from kansciml.models.hybrid_spec import HybridSpec

# operation -> derivative by its only operand x, with value y
_BY_X: dict[str, Callable[[Any, Any], Any]] = {
    "neg": lambda x, y: -1.0,
    "abs": lambda x, y: np.sign(x),
    "exp": lambda x, y: y,
    "log": lambda x, y: 1 / x,
    "sqrt": lambda x, y: 0.5 / y,
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "tan": lambda x, y: 1 + y * y,
    "tanh": lambda x, y: 1 - y * y,
    "arctan": lambda x, y: 1 / (1 + x * x),
}
# operation -> derivatives by its operands a and b, with value y
_BY_A: dict[str, Callable[[Any, Any, Any], Any]] = {
    "+": lambda a, b, y: 1.0,
    "-": lambda a, b, y: 1.0,
    "*": lambda a, b, y: b,
    "/": lambda a, b, y: 1 / b,
    "**": lambda a, b, y: b * a ** (b - 1.0),
}
_BY_B: dict[str, Callable[[Any, Any, Any], Any]] = {
    "+": lambda a, b, y: 1.0,
    "-": lambda a, b, y: -1.0,
    "*": lambda a, b, y: a,
    "/": lambda a, b, y: -y / b,
    "**": lambda a, b, y: np.where(y == 0, 0.0, y * np.log(a)),
}


class HybridKernel:
    """A field of known terms and a network with bound parameters: see `FieldKernel`."""

    def __init__(self, spec: HybridSpec, params: Float64[np.ndarray, " P"]) -> None:
        self.spec, self.nodes = spec, spec.equations.nodes
        self.network: FieldKernel = bind(spec.network, params[: spec.network.n_parameters])
        self.trained = params[spec.network.n_parameters :].tolist()
        self.slopes = np.array(spec.equations.slopes)
        self.fixed = self._fixed()
        self.rhs = None if spec.inputs else self._make_rhs()

    def _fixed(self) -> dict[int, float]:
        """Values of the nodes that depend on constants and parameters alone."""
        fixed: dict[int, float] = {}
        for place, node in enumerate(self.nodes):
            if node[0] in ("constant", "parameter"):
                fixed[place] = float(node[1] if node[0] == "constant" else self.trained[node[1]])
            elif node[0] in SCALAR and all(one in fixed for one in operands_of(node)):
                fixed[place] = _applied(node, fixed)
        return fixed

    def _make_rhs(self) -> Rhs:
        network, slopes, fixed = self.network.rhs, self.spec.equations.slopes, self.fixed
        x, y = np.empty(self.spec.network.widths[0]), np.empty(self.spec.network.widths[-1])
        blank: list[Any] = [fixed.get(place) for place in range(len(self.nodes))]
        program = [(place, *node) for place, node in enumerate(self.nodes) if place not in fixed]
        program = [(place, name, SCALAR.get(name), *rest) for place, name, *rest in program]
        assert network is not None

        def rhs(t: float, u: np.ndarray, out: np.ndarray) -> None:
            v, state = blank.copy(), u.tolist()
            try:
                for place, name, function, *rest in program:
                    if function is not None:
                        v[place] = function(v[rest[0]], v[rest[1]]) if len(rest) == 2 else function(v[rest[0]])
                    elif name == "state":
                        v[place] = state[rest[0]]
                    elif name == "output":
                        v[place] = v[rest[0]][rest[1]]
                    elif name == "time":
                        v[place] = t
                    else:
                        x[:] = [v[one] for one in rest]
                        network(t, x, y)
                        v[place] = y.tolist()
                out[:] = [v[one] for one in slopes]
            except (ArithmeticError, ValueError):  # told by SolveError
                out[:] = np.nan

        return rhs

    def batch(self, u: States, t: Times, w: InputRows | None = None) -> Slopes:
        values = self._values(u, t, w, lambda x: self.network.batch(x, t))
        return np.stack([np.broadcast_to(values[one], len(u)) for one in self.slopes], axis=1)

    def linearise(
        self, t: Times, u: States, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "B n n"], Pullback]:
        at = self._linearised(u, t, w)
        n, size = u.shape[1], len(u)
        found, _ = at.back(_identity(n, size))
        jacobian = np.zeros((size, n, n))
        for node, c in zip(self.nodes, found):
            if node[0] == "state" and c is not None:
                jacobian[:, :, node[1]] += np.broadcast_to(c, (n, size)).T

        def pullback(cotangent: np.ndarray) -> np.ndarray:
            by_node, by_call = at.back(cotangent.T)
            grad = np.zeros(self.spec.n_parameters)
            count = self.spec.network.n_parameters
            for pull, c in zip(at.pullbacks, by_call):
                grad[:count] += pull(np.ascontiguousarray(c))
            for node, c in zip(self.nodes, by_node):
                if node[0] == "parameter" and c is not None:
                    grad[count + node[1]] += np.sum(c)
            return grad

        return jacobian, pullback

    def calls(
        self, u: States, t: Times, w: InputRows | None = None
    ) -> tuple[Float64[np.ndarray, "C B i"], Float64[np.ndarray, "C n B o"]]:
        """Of each call of the network its inputs, and the derivative of each slope by each of its outputs."""
        at = self._linearised(u, t, w)
        return np.stack(at.inputs), np.stack(at.back(_identity(u.shape[1], len(u)))[1])

    def _linearised(self, u: States, t: Times, w: InputRows | None) -> _Linearised:
        at = _Linearised(self.nodes, self.slopes, self.spec.network.widths[-1])

        def network(x: np.ndarray) -> np.ndarray:
            jacobian, pull = self.network.linearise(t, x)
            at.inputs.append(x)
            at.jacobians.append(jacobian)
            at.pullbacks.append(pull)
            return self.network.batch(x, t)

        values = self._values(u, t, w, network)
        with np.errstate(all="ignore"):  # told by SolveError
            at.partials = [self._partials(place, values) for place in range(len(self.nodes))]
        return at

    def _values(
        self, u: States, t: Times, w: InputRows | None, network: Callable[[np.ndarray], np.ndarray]
    ) -> list[Any]:
        values: list[Any] = []
        with np.errstate(all="ignore"):  # told by SolveError
            for place, (name, *rest) in enumerate(self.nodes):
                if place in self.fixed:
                    values.append(self.fixed[place])
                elif name == "state":
                    values.append(u[:, rest[0]])
                elif name == "input":
                    assert w is not None
                    values.append(w[:, rest[0]])
                elif name == "time":
                    values.append(t)
                elif name == "network":
                    values.append(network(np.stack([np.broadcast_to(values[one], len(u)) for one in rest], axis=1)))
                elif name == "output":
                    values.append(values[rest[0]][:, rest[1]])
                else:
                    values.append(ARRAY[name](*(values[one] for one in rest)))
        return values

    def _partials(self, place: int, values: list[Any]) -> list[tuple[int, Any]]:
        """Operands of an operation that are no constants, and its derivative by each."""
        name, *rest = self.nodes[place]
        y = values[place]
        if name in _BY_X:
            return [(rest[0], _BY_X[name](values[rest[0]], y))]
        if name not in _BY_A:
            return []
        a, b = (values[one] for one in rest)
        rules = zip(rest, (_BY_A[name], _BY_B[name]))
        return [(one, rule(a, b, y)) for one, rule in rules if self.nodes[one][0] != "constant"]


class _Linearised:
    """Derivatives of every operation at a batch; of each call of the network inputs, Jacobian and pullback."""

    def __init__(self, nodes: Sequence[Node], slopes: np.ndarray, outputs: int) -> None:
        self.nodes, self.slopes, self.outputs = nodes, slopes, outputs
        self.partials: list[list[tuple[int, Any]]] = []
        self.inputs: list[np.ndarray] = []
        self.jacobians: list[np.ndarray] = []
        self.pullbacks: list[Pullback] = []

    def back(self, seeds: np.ndarray) -> tuple[list[Any], list[np.ndarray]]:
        """From cotangents of the slopes (n, ..., B) to those of the nodes, and of each call's outputs (..., B, o)."""
        shape = seeds.shape[1:]
        by_node: list[Any] = [None] * len(self.nodes)
        by_call: list[np.ndarray] = []

        def add(place: int, value: np.ndarray) -> None:
            if self.nodes[place][0] != "constant":
                by_node[place] = value if by_node[place] is None else by_node[place] + value

        for one, seed in zip(self.slopes, seeds):
            add(one, seed)
        with np.errstate(all="ignore"):
            for place in range(len(self.nodes) - 1, -1, -1):
                (name, *rest), c = self.nodes[place], by_node[place]
                if name == "network":
                    jacobian = self.jacobians[-1 - len(by_call)]
                    by_call.append(np.zeros((*shape, self.outputs)) if c is None else c)
                    if c is not None:
                        by_input = np.einsum("...bo,boi->...bi", c, jacobian)
                        for k, one in enumerate(rest):
                            add(one, by_input[..., k])
                elif c is None:
                    continue
                elif name == "output":
                    if by_node[rest[0]] is None:
                        by_node[rest[0]] = np.zeros((*shape, self.outputs))
                    by_node[rest[0]][..., rest[1]] += c
                else:
                    for one, partial in self.partials[place]:
                        add(one, c * partial)
        return by_node, by_call[::-1]


def _identity(n: int, size: int) -> np.ndarray:
    """Of slope i, in row i: (n, n, B)."""
    return np.broadcast_to(np.eye(n)[:, :, None], (n, n, size))


def _applied(node: Node, values: dict[int, float]) -> float:
    try:
        return SCALAR[node[0]](*(values[one] for one in operands_of(node)))
    except (ArithmeticError, ValueError):
        return float("nan")
