"""Vector fields of known terms and a network: universal differential equations (Rackauckas et al. 2020). NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError
from kansciml.models.equations import SCALAR, Equations, Symbol, Tape, trace
from kansciml.models.field_spec import FieldSpec
from kansciml.models.units import Units


@dataclass(frozen=True)
class NetworkSpec(FieldSpec):
    """A `FieldSpec` of any number of inputs and outputs: y = rate * net(z), z = (x - center) / scale."""

    def _check_ends(self) -> None:
        if self.inputs or self.time:
            raise UsageError(f"got inputs {self.inputs} and time {self.time} for a network: it has those of its call")

    def network_input(self, u: np.ndarray, t: np.ndarray | None = None, w: np.ndarray | None = None) -> np.ndarray:
        return u


@dataclass(frozen=True)
class Bounds:
    """Between which values a known parameter is sought, from a first guess on.

    Raises:
        UsageError: the guess does not lie strictly between the bounds.
    """

    name: str
    guess: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.guess) and self.low < self.guess < self.high):
            raise UsageError(
                f"got {self.guess!r} as the first guess of {self.name}: expected a number"
                + (f" between {self.low:g} and {self.high:g}" if self.low > -math.inf or self.high < math.inf else "")
            )

    def symbol(self, tape: Tape, place: int) -> Symbol:
        """The parameter as a function of a trained number x of order one, which is 0 at the guess: guess + size x; with
        one bound the distance from it grows by exp(x); between two it is a logistic function."""
        x, low, high = tape("parameter", place), self.low, self.high
        if math.isinf(low) and math.isinf(high):
            return x * (abs(self.guess) or 1.0) + self.guess
        if math.isinf(high):
            return x.exp() * (self.guess - low) + low
        if math.isinf(low):
            return high - (-x).exp() * (high - self.guess)
        odds = (high - self.guess) / (self.guess - low)
        return (high - low) / ((-x).exp() * odds + 1.0) + low

    def value(self, x: float) -> float:
        """The parameter, of that number; infinite or NaN where float64 ends."""
        tape = Tape()
        place = self.symbol(tape, 0).place
        values: list[float] = []
        try:
            for name, *rest in tape.nodes:
                leaf = {"parameter": x, "constant": rest[0]}
                values.append(leaf[name] if name in leaf else SCALAR[name](*(values[one] for one in rest)))
        except (OverflowError, ZeroDivisionError):
            return math.nan
        return values[place]


@dataclass(frozen=True)
class HybridSpec:
    """A vector field of known terms and a network, independent of the framework that evaluates it.

    Its flat parameter vector: the network's, in the order of `FieldSpec.layout`, then one number for each known
    parameter, as `Bounds` says.

    Args:
        network: what is learned. equations: what is known, in the user's units until `in_units`.
        parameters: the known parameters that are estimated.
        inputs: number m of inputs w(t).

    Raises:
        UsageError: sizes that do not fit each other.
    """

    network: NetworkSpec
    equations: Equations
    parameters: tuple[Bounds, ...] = ()
    inputs: int = 0

    def __post_init__(self) -> None:
        sizes = {len(call) for call in self.equations.calls}
        if sizes != {self.network.widths[0]}:
            raise UsageError(f"got a network of {self.network.widths[0]} inputs, called with {sorted(sizes)}")
        outputs = 1 + max((node[2] for node in self.equations.nodes if node[0] == "output"), default=-1)
        limits = {"state": self.state_size, "input": self.inputs, "parameter": len(self.parameters)}
        if outputs > self.network.widths[-1] or any(self.equations.size(key) > most for key, most in limits.items()):
            raise UsageError(f"the equations refer to more than there is: {limits}, {self.network.widths[-1]} outputs")
        if len(self.equations.parameters) != len(self.parameters):
            raise UsageError(f"got {len(self.parameters)} parameters: expected {len(self.equations.parameters)}")

    @property
    def model(self) -> str:
        """``"mlp"`` or ``"kan"``, of the network."""
        return self.network.model

    @property
    def state_size(self) -> int:
        return len(self.equations.slopes)

    @property
    def n_parameters(self) -> int:
        return self.network.n_parameters + len(self.parameters)

    def initial_parameters(self, seed: int) -> Float64[np.ndarray, " parameters"]:
        """The network's (see `FieldSpec.initial_parameters`), and the first guesses."""
        return np.concatenate([self.network.initial_parameters(seed), np.zeros(len(self.parameters))])

    def estimates(self, params: Float64[np.ndarray, " parameters"]) -> dict[str, float]:
        """Values of the known parameters, by name."""
        return {one.name: one.value(float(x)) for one, x in zip(self.parameters, params[self.network.n_parameters :])}

    def inputs_in(self, values: Float64[np.ndarray, "L m"]) -> Float64[np.ndarray, "L m"]:
        """Inputs as the field `in_units` is given them: as they are."""
        return values

    def in_units(self, units: Units) -> HybridSpec:
        """The same field with the same parameters, dv/dtau of v: see `Units`."""
        return replace(self, equations=self.equations.in_units(units))

    def label(self) -> str:
        """Short name for tables, e.g. ``known terms + KAN 2-6-2 (G=5, S=3)``."""
        return f"known terms + {self.network.label()}"


@dataclass(frozen=True, eq=False)
class Physics:
    """A right-hand side of which some terms are known and the rest is a network's (Rackauckas et al. 2020).

    For prey x and predator y whose growth and death are known but for two rates, and whose interaction is not::

        def rhs(t, u, network, p):
            x, y = u[..., 0], u[..., 1]
            n = network(u)
            return np.stack([p["birth"] * x - n[..., 0], -p["death"] * y + n[..., 1]], axis=-1)


        physics = Physics(rhs, outputs=2, parameters={"birth": 1.0, "death": 1.0})
        SYSTEM = dataclasses.replace(ode.system_from_trajectories(ode.read_table("runs.csv"), "runs"), physics=physics)

    Args:
        rhs: rhs(t, u, network, p) -> du/dt in the units of the data, u (n,); rhs(t, u, w, network, p) with inputs
            w (m,). `network` takes a number or a vector, such as u or np.stack([x, t], axis=-1), and gives a vector of
            `outputs` numbers; it may be called several times. Written with +, -, *, /, ** and NumPy's exp, log, sqrt,
            sin, cos, tan, tanh, arctan, abs, stack, sum, dot and the like; no decision may depend on a value.
        outputs: of the network.
        parameters: name -> first guess of each known parameter that is estimated.
        bounds: name -> lowest and highest value of those that have any; (0, math.inf) keeps one positive.

    Raises:
        UsageError: no outputs, bounds of an unknown parameter, a guess outside its bounds.
    """

    rhs: Callable[..., Any]
    outputs: int = 1
    parameters: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UsageError(f"got outputs {self.outputs}: expected at least 1, for a network to stand somewhere")
        for name in self.bounds:
            if name not in self.parameters:
                raise UsageError(
                    f"got bounds of {name!r}: expected a parameter, {', '.join(self.parameters) or 'none'}"
                )
        self.sought()

    def sought(self) -> tuple[Bounds, ...]:
        """The parameters and between which values they are sought."""
        found = []
        for name, guess in self.parameters.items():
            try:
                low, high = map(float, self.bounds.get(name, (-math.inf, math.inf)))
                found.append(Bounds(name, float(guess), low, high))
            except (TypeError, ValueError) as error:
                if isinstance(error, UsageError):
                    raise
                raise UsageError(f"got {guess!r} as {name}: expected a number, and two as its bounds") from None
        return tuple(found)

    def equations(self, n: int, inputs: int) -> Equations:
        """What `rhs` computes, of n states and m inputs.

        Raises:
            UsageError: it cannot be recorded: see `trace`.
        """
        sought = self.sought()

        def named(tape: Tape) -> dict[str, Symbol]:
            return {one.name: one.symbol(tape, j) for j, one in enumerate(sought)}

        try:
            return trace(self.rhs, n, inputs, self.outputs, named)
        except UsageError as error:
            raise UsageError(f"the known terms, rhs(t, u, {'w, ' if inputs else ''}network, p): {error}") from error


Spec = FieldSpec | HybridSpec
"""A field that every backend knows."""


def described(field: Spec) -> dict[str, Any]:
    """Its arguments as JSON has them, and its ``kind``: ``spec`` or ``hybrid``; a bound that is not there is None."""
    told = {"kind": "spec" if isinstance(field, FieldSpec) else "hybrid", **asdict(field)}
    for one in told.get("parameters", ()):
        one |= {name: None for name in ("low", "high") if math.isinf(one[name])}
    return told
