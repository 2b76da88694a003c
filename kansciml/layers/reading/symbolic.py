"""A spline network read as formulas: the best function of a library for every edge, and an expression per output.

Sources: Liu et al. (2024), section 2.5.2, for what is fitted; the choice below weighs simplicity as pykan does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from kansciml._errors import KansciError, UsageError, check_names
from kansciml.layers._kernels.edges import values_at
from kansciml.layers.reading.functions import BEGUN, CONSTANT, FUNCTIONS, ROUNDING, Fit, fit_edges, share_explained
from kansciml.layers.reading.values import reaching

if TYPE_CHECKING:
    from kansciml.layers.kan import KAN

POINTS = 400
"""Inputs of an edge over which functions are fitted: evenly many of the data's between two, with both ends."""
LEAST = 10
"""Rows of inputs: functions have four constants."""
NEGLIGIBLE = 1e-3
"""Spread of an edge, as a share of the largest into the same node, up to which it is a constant."""
LARGEST = 1e150
"""Values whose squares are no numbers count as infinite."""
EXACT = 1e-8
"""1 - R2 below which functions fit equally well: no spline is nearer to them."""


@dataclass(frozen=True)
class Edge:
    """One edge and how it is read.

    Args:
        layer, source, target: where it is: layer, its input and its output, from 0 on.
        fit: the function that was chosen.
        fits: all functions, the largest R2 first; none for a constant.
        low, high: least and largest input of the data.
        spread: standard deviation of the edge's values over the data.
    """

    layer: int
    source: int
    target: int
    fit: Fit
    fits: tuple[Fit, ...]
    low: float
    high: float
    spread: float

    @property
    def margin(self) -> float:
        """R2 less that of the best other function with no more constants (those with more may have the chosen one as a
        limit, as x^2 is one of sines): below 0 where one was preferred that leaves at most twice as much; NaN where
        there is no other."""
        most = 0 if self.fit.function == CONSTANT else FUNCTIONS[self.fit.function].constants
        others = [fit.r2 for fit in self.fits if fit != self.fit and FUNCTIONS[fit.function].constants <= most]
        return self.fit.r2 - max(others, default=math.nan)

    @property
    def place(self) -> str:
        """As in pictures, from 1 on: ``layer 1: 2 -> 1``."""
        return f"layer {self.layer + 1}: {self.source + 1} -> {self.target + 1}"

    def rounded(self, digits: int) -> Fit:
        """`fit` with a and c to significant digits, b and d to as many relative to the edge's argument and spread."""
        fit = self.fit
        a, c = (float(f"{value:.{digits - 1}e}") for value in (fit.a, fit.c))
        return replace(fit, a=a, b=self.shift(0.0, digits), c=c, d=_rounded(fit.d, self.spread, digits))

    def shift(self, constant: float, digits: int) -> float:
        """a constant + b, to digits relative to the largest abs(a x + b): as many as keep poles off the inputs."""
        fit, ends = self.fit, (self.low, self.high)
        exact, size = fit.a * constant + fit.b, max(abs(fit.a * end + fit.b) for end in ends)
        found = _rounded(exact, size, digits)
        while fit.function in BEGUN and digits < 17:
            signs = [(fit.a * (end - constant) + found) * (fit.a * end + fit.b) for end in ends]
            if min(signs) > 0 or (min(signs) == 0 and fit.function == "sqrt"):
                break
            digits += 1
            found = _rounded(exact, size, digits)
        return found


def _rounded(value: float, scale: float, digits: int) -> float:
    return round(value, digits - 1 - math.floor(math.log10(scale))) + 0.0 if scale else value


@dataclass(frozen=True)
class Symbolic:
    """A network of spline layers read as formulas; called with inputs (..., I), as the formulas give outputs (..., O).

    Inputs may be an array, a tensor or a list. ``print`` it for a table of the edges.

    Args:
        edges: of all layers, by layer, input and output.
        biases: of each layer's outputs.
        threshold: least R2 at which an edge counts as read.
        r2: of each output, the formulas of all edges together, whatever their own R2, against the network over the
            data, whose rounding counts as equal; -inf where they are not finite.
    """

    edges: tuple[Edge, ...]
    biases: tuple[np.ndarray, ...]
    threshold: float
    r2: tuple[float, ...] = ()

    @property
    def unread(self) -> tuple[Edge, ...]:
        """The edges that no function fits: of R2 below the threshold."""
        return tuple(edge for edge in self.edges if not edge.fit.r2 >= self.threshold)

    def __call__(self, x: Any) -> Float64[np.ndarray, "*batch outputs"]:
        x = x.detach().double().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x, float)
        if x.shape[-1:] != (self._inputs,):
            raise UsageError(f"got inputs of shape {x.shape}: expected (..., {self._inputs})")
        nodes = list(np.moveaxis(x, -1, 0))
        for number, bias in enumerate(self.biases):
            following = [np.full(nodes[0].shape, float(constant)) for constant in bias]
            for edge in self._of(number):
                following[edge.target] = following[edge.target] + edge.fit(nodes[edge.source])
            nodes = following
        return np.stack(nodes, -1)

    @property
    def _inputs(self) -> int:
        return 1 + max(edge.source for edge in self._of(0))

    def _of(self, number: int) -> list[Edge]:
        return [edge for edge in self.edges if edge.layer == number]

    def expressions(self, inputs: Sequence[str] | None = None, digits: int | None = None) -> list[Any]:
        """The network as an expression of SymPy for each output.

        Args:
            inputs: names of the symbols (default: x1 ...).
            digits: round every edge's constants to as many digits, at least 1 (default: none are rounded): factors to
                significant ones; what is added relative to what it is added to, and so that poles stay off the inputs.

        Raises:
            KansciError: edges that no function fits, which it names; SymPy is not installed.
            UsageError: not one name for each input, or one for two; digits below 1.
        """
        if self.unread:
            raise KansciError(f"got {self._statement()}: expected none; see unread, or take a lower threshold")
        try:
            import sympy
        except ImportError:
            raise KansciError("expressions need SymPy: pip install 'kansciml[symbolic]'") from None
        names = [f"x{number + 1}" for number in range(self._inputs)] if inputs is None else [str(one) for one in inputs]
        if len(names) != self._inputs or len(set(names)) < len(names):
            raise UsageError(
                f"got names of inputs {', '.join(names)}: expected {self._inputs}, no two of them the same"
            )
        if digits is not None and digits < 1:
            raise UsageError(f"got digits {digits}: expected at least 1")

        def number(value: float) -> Any:
            return sympy.Integer(int(value)) if value in (-1, 0, 1) else sympy.Float(value)

        rounded: set[Any] = set()

        def added(value: float) -> Any:
            found = sympy.Float(str(value)) if digits and value not in (-1, 0, 1) else number(value)
            rounded.update((found, -found))
            return found

        def short(value: float) -> Any:
            value = float(f"{value:.{(digits or 15) - 1}e}")
            return number(value) if value in (-1, 1) else sympy.Float(value, digits)

        # a node is its terms and a constant: sums are multiplied out, so that the constants of edges become one
        nodes = [([sympy.Symbol(name)], 0.0) for name in names]
        for layer, bias in enumerate(self.biases):
            terms: list[list[Any]] = [[] for _ in bias]
            constants = bias.tolist()
            for edge in self._of(layer):
                fit, (inner, constant) = edge.fit, nodes[edge.source]
                constants[edge.target] += fit.d
                if fit.function == "x":
                    terms[edge.target] += [number(fit.c) * term for term in inner]
                    constants[edge.target] += fit.c * constant
                elif fit.function != CONSTANT:
                    shift = added(edge.shift(constant, digits or 15))
                    argument = sympy.Add(*(number(fit.a) * term for term in inner), shift)
                    terms[edge.target].append(number(fit.c) * FUNCTIONS[fit.function].symbol(sympy, argument))
            nodes = list(zip(terms, constants))
        spreads = [max(edge.spread for edge in self._of(layer) if edge.target == o) for o in range(len(nodes))]
        found = [
            sympy.Add(*terms, added(_rounded(constant, spread, digits or 15)))
            for (terms, constant), spread in zip(nodes, spreads)
        ]
        if digits is None:
            return found
        return [
            one.xreplace({value: short(float(value)) for value in one.atoms(sympy.Float) - rounded}) for one in found
        ]

    def _statement(self) -> str:
        worst = sorted(self.unread, key=lambda edge: edge.fit.r2)
        some = "; ".join(f"{edge.place}, {edge.fit.function} {edge.fit.r2:.4g}" for edge in worst[:5])
        more = f"; and {len(worst) - 5} more" if len(worst) > 5 else ""
        return f"{len(worst)} of {len(self.edges)} edges whose best R2 is below {self.threshold:g} ({some}{more})"

    def __str__(self) -> str:
        lines = [f"{'edge':<20} {'R2':>9} {'margin':>9}  function of x, its input"]
        for edge in self.edges:
            mark = "" if edge.fit.r2 >= self.threshold else "  (not read)"
            margin = "" if math.isnan(edge.margin) else f"{edge.margin:.6f}"
            lines.append(f"{edge.place:<20} {edge.fit.r2:>9.6f} {margin:>9}  {edge.rounded(4)}{mark}")
        state = f"not read: {self._statement()}" if self.unread else f"read: all, R2 of at least {self.threshold:g}"
        return "\n".join([*lines, state, f"R2 of the outputs: {', '.join(f'{r2:.6f}' for r2 in self.r2)}"])


@torch.no_grad()
def read_network(
    network: KAN,
    x: Float[Tensor, "*batch inputs"],
    threshold: float = 0.999,
    functions: Sequence[str] | None = None,
    max_edges: int = 2000,
) -> Symbolic:
    """See `KAN.symbolic`."""
    names = list(FUNCTIONS) if functions is None else list(functions)
    check_names("function", names, FUNCTIONS)
    names = names if "x" in names else ["x", *names]
    if not 0 <= threshold <= 1:
        raise UsageError(f"got threshold {threshold}: expected a number from 0 to 1")
    seen = reaching(network, x)
    rows = seen[0][1]
    if len(rows) < LEAST:
        raise UsageError(f"got {len(rows)} rows of inputs: expected at least {LEAST}")
    sampled = []
    for number, (layer, inputs) in enumerate(seen, 1):
        ranks = np.linspace(0, len(inputs) - 1, min(POINTS, len(inputs))).round().astype(int)
        points = inputs.double().sort(0).values[torch.as_tensor(ranks, device=inputs.device)]
        x_at, y_at = points.cpu().numpy(), values_at(layer, points).cpu().numpy()
        if not (np.abs(y_at) < LARGEST).all():
            raise UsageError(f"got edges of layer {number} that are NaN or infinite: expected finite weights")
        sampled.append((x_at, y_at, _shares(x_at, y_at)))
    live = sum(int((shares > NEGLIGIBLE).sum()) for _, _, shares in sampled)
    if live > max_edges:
        raise UsageError(
            f"got {live} edges that are not constant, of which each takes some 20 ms to read: expected at most"
            f" {max_edges}; prune the network, or give max_edges={live}"
        )
    edges = [edge for number, one in enumerate(sampled) for edge in _read_layer(number, *one, names, threshold)]
    biases = tuple(
        np.zeros(layer.out_features) if layer.bias is None else layer.bias.double().cpu().numpy().copy()
        for layer, _ in seen
    )
    read = Symbolic(tuple(edges), biases, threshold)
    found, truth = read(rows.double().cpu().numpy()), network(rows).double().cpu().numpy()
    rounding = max(ROUNDING, 8 * torch.finfo(rows.dtype).eps)  # of the network's own sums
    return replace(read, r2=tuple(share_explained(*pair, rounding) for pair in zip(truth.T, found.T)))


def _shares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spread of each edge's values y (n, I, O) at x (n, I), of the largest into its node; 0 where it is rounding."""
    spreads = y.std(0)
    varied = np.ptp(x, 0) > ROUNDING * np.abs(x).max(0)
    known = varied[:, None] & (spreads > ROUNDING * np.abs(y).max(0))
    return np.divide(spreads, spreads.max(0), out=np.zeros_like(spreads), where=known)


def _read_layer(
    number: int, x: np.ndarray, y: np.ndarray, shares: np.ndarray, names: list[str], threshold: float
) -> list[Edge]:
    """The edges of a layer from inputs x (n, I), values y (n, I, O) and their `_shares`."""
    edges = []
    for source in range(x.shape[1]):
        columns = np.flatnonzero(shares[source] > NEGLIGIBLE)
        found = iter(fit_edges(x[:, source], y[:, source, columns], names) if len(columns) else [])
        for target in range(y.shape[2]):
            own, share = y[:, source, target], float(shares[source, target])
            if share <= NEGLIGIBLE:
                fits: list[Fit] = []
                chosen = Fit(CONSTANT, 1.0, 0.0, 0.0, float(own.mean()), 1.0 - share**2)
            else:
                fits = next(found)
                chosen = chosen_of(fits, threshold)
            low, high = float(x[0, source]), float(x[-1, source])
            edges.append(Edge(number, source, target, chosen, tuple(fits), low, high, float(own.std())))
    return edges


def chosen_of(fits: Sequence[Fit], threshold: float) -> Fit:
    """The simplest good function of those of R2 at the threshold or above; where there is none, that of largest R2.

    A constant more has to leave at most a tenth: the lowest log10(1 - R2) + (constants of c f(a x + b) + d) is best,
    R2 above 1 - 1e-8 counting as that. Of equally many constants, the first in `FUNCTIONS` is taken that leaves at most
    twice as much.
    """
    good = [fit for fit in fits if fit.r2 >= threshold] or [max(fits, key=lambda fit: fit.r2)]
    left = {fit.function: max(1 - fit.r2, EXACT) for fit in good}
    constants = {fit.function: FUNCTIONS[fit.function].constants for fit in good}
    best = min(left, key=lambda name: math.log10(left[name]) + constants[name])
    return next(
        fit
        for name in FUNCTIONS
        for fit in good
        if fit.function == name and constants[name] == constants[best] and left[name] <= 2 * left[best]
    )
