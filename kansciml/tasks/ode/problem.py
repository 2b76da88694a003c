"""Makes a field for a system and the problem that a backend solves, and measures a trained field."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64

from kansciml._errors import SolveError, UsageError, unknown_name
from kansciml.backends.base import MAX_STEPS, OdeProblem, OdeSolver
from kansciml.models.field_spec import INPUT_SCALINGS, MODELS, FieldSpec
from kansciml.tasks.ode.data import full_data, training_data
from kansciml.tasks.ode.system import System

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField

EVALUATION_TOLERANCE = 1e-10
"""Losses are reported at this tolerance, so that none of them fits the solver's error."""
MATCHES = ("width", "params")
METRICS = ("train_mse", "train_relative_mse", "test_mse", "test_relative_mse")


@dataclass(frozen=True)
class FieldSizes:
    """Sizes of a vector field's network."""

    hidden: tuple[int, ...] = ()
    """Hidden widths; none: the system's own (50)."""
    grid: int = 5
    """Grid intervals G of each spline."""
    spline_order: int = 3
    """Order S of each spline."""

    def __post_init__(self) -> None:
        if min(self.hidden, default=1) < 1:
            raise UsageError(f"got hidden widths {tuple(self.hidden)}: expected positive numbers of units")


@dataclass(frozen=True)
class FieldConfig(FieldSizes):
    """Everything about a vector field's network but whether it is an MLP or a KAN."""

    activation: str = "tanh"
    """Activation of the MLP: tanh, silu, gelu, relu, sigmoid."""
    grid_range: tuple[float, float] = (-1.0, 1.0)
    """Interval the grid covers in every layer."""
    input_scaling: str = "affine"
    """affine (training span into [-1, 1]), none, or tanh (with these two the unit of the state matters)."""
    input_power: int = 1
    """Odd power of the scaled state that the network is fed (3: cubes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_scaling not in INPUT_SCALINGS:
            raise unknown_name("input_scaling", self.input_scaling, INPUT_SCALINGS)


def make_field(
    system: System, model: str, *, match: str = "width", config: FieldSizes | None = None, **settings: Any
) -> FieldSpec:
    """A field for a system.

    Args:
        system: gives the state size, the normalisation, and the default hidden width.
        model: ``"mlp"`` or ``"kan"``.
        match: ``"width"``: the KAN has the given widths too, the paper's "comparable width". ``"params"``: its hidden
            widths are shrunk by one factor until it has at most as many parameters as the MLP of the given widths.
        config: the network (default: `FieldConfig()`). settings: those of `FieldConfig` that differ from it.

    Raises:
        UsageError: unknown name or a value out of range.
    """
    if model not in MODELS:
        raise unknown_name("model", model, MODELS)
    if match not in MATCHES:
        raise unknown_name("match", match, MATCHES)
    given = FieldConfig(**{**vars(config or FieldConfig()), **settings})
    affine, n = given.input_scaling == "affine", system.state_size
    spec = FieldSpec(
        "mlp" if match == "params" else model,
        (n, *(given.hidden or (system.hidden,)), n),
        activation=given.activation,
        grid=given.grid,
        spline_order=given.spline_order,
        grid_range=given.grid_range,
        center=system.center if affine else (),
        scale=system.scale if affine else (),
        rate=system.rate,
        squash=given.input_scaling == "tanh",
        input_power=given.input_power,
    )
    return shrunk_kan(spec, lambda field: field.n_parameters) if (model, match) == ("kan", "params") else spec


def shrunk_kan(mlp: FieldSpec, size: Callable[[FieldSpec], float]) -> FieldSpec:
    """The KAN whose hidden widths are those of `mlp` shrunk by one factor until its `size` is at most the MLP's.

    Where even one unit is larger than the MLP, it has one.
    """
    n, *hidden, _ = mlp.widths
    for width in range(hidden[0], 0, -1):
        kan = replace(mlp, model="kan", widths=(n, *(max(1, round(h * width / hidden[0])) for h in hidden), n))
        if size(kan) <= size(mlp):
            break
    return kan


def make_problem(
    system: System, field: FieldSpec | ModuleField, rtol: float = 1e-7, atol: float = 1e-7, max_steps: int = MAX_STEPS
) -> OdeProblem:
    """The problem of fitting `field` to the training data of `system`, solved in the system's `units`.

    The tolerances are in these units: multiples of the range of each component, unless the system is `dimensionless`.
    The rest is as for `OdeProblem`.
    """
    data = training_data(system)
    return OdeProblem.single(
        field,
        u0=system.u0,
        saveat=data.t,
        data=data.states,
        t0=system.t0,
        loss_scale=system.loss_scale,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        units=system.units,
    )


def mse(u: Float[np.ndarray, "T n"], data: Float[np.ndarray, "T n"]) -> float:
    """Mean squared error of predicted states over save points and components, in squared state units."""
    return float(np.mean((u - data) ** 2))


def relative_mse(u: Float[np.ndarray, "T n"], data: Float[np.ndarray, "T n"]) -> float:
    """Squared error relative to the variation of the data, pooled over components (dimensionless, in any unit).

    sum_{t,i} (u_ti - d_ti)^2 / sum_{t,i} (d_ti - mean_t d_ti)^2: predicting each component's mean over time gives 1.
    Components are pooled so that one that hardly varies does not dominate.

    Raises:
        UsageError: the data are constant in time (to rounding).
    """
    spread = np.ptp(data, axis=0)
    if not np.any(spread > 4 * np.finfo(np.float64).eps * np.abs(data).max(axis=0)):  # a mean is not exact either
        what = "there is one row of data" if len(data) == 1 else f"the {len(data)} rows of data are constant in time"
        raise UsageError(f"{what}: the relative error is undefined, use the mean squared error")
    unit = spread.max()  # squares of very small or large numbers leave float64
    error, variation = np.sum(((u - data) / unit) ** 2), np.sum(((data - np.mean(data, axis=0)) / unit) ** 2)
    return float(error / variation)


class Metrics(dict[str, "float | None"]):
    """Errors of a trained field by name (`METRICS`), None where one could not be computed.

    Attributes:
        missing: why, in one line, for the name of each that is None.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(METRICS))
        self.missing: dict[str, str] = {}

    def measure(
        self,
        span: str,
        u: Float[np.ndarray, "T n"],
        data: Float[np.ndarray, "T n"],
        unit: Float[np.ndarray, " n"],
    ) -> None:
        """Fill in the errors of states u on the span "train" or "test"; `unit`: of relative ones."""
        with np.errstate(over="ignore"):
            error = mse(u, data)
            if not np.isfinite(error):
                return self.lack(span, "the squared error is larger than float64 holds")
            self[f"{span}_mse"] = error
            try:
                self[f"{span}_relative_mse"] = relative_mse(u / unit, data / unit)
            except UsageError as undefined:
                self.missing[f"{span}_relative_mse"] = str(undefined)

    def lack(self, span: str, why: str) -> None:
        """Say why there are no errors on a span."""
        self.missing |= {f"{span}_mse": why, f"{span}_relative_mse": why}


def evaluate(
    solver: OdeSolver, system: System, params: Float64[np.ndarray, " P"]
) -> tuple[Metrics, Float64[np.ndarray, "T n"]]:
    """Measures of a trained field at tolerance 1e-10, and its states at the system's `test_saveat`.

    The solver may take the problem's `max_steps` here too.

    Returns:
        ``train_mse``, ``train_relative_mse`` on the training data; ``test_mse``, ``test_relative_mse`` beyond the
        training span; None, with the reason in `Metrics.missing`, where there is nothing beyond it, where the solution
        does not reach its end, and for relative errors where the data do not vary. And the states, NaN where
        they could not be computed. Relative errors are in multiples of the system's `loss_scale`, unless the system is
        `dimensionless`: components may have different units.
    """
    unit = np.ones(system.state_size) if system.dimensionless else system.loss_scale
    found, data, times = Metrics(), training_data(system), system.test_saveat
    states = np.full((len(times), system.state_size), np.nan)
    beyond = np.asarray(times > system.train_end)

    def solve(at: np.ndarray) -> np.ndarray:
        return solver.trajectory(params, at, EVALUATION_TOLERANCE, EVALUATION_TOLERANCE)

    if not beyond.any():
        found.lack("test", "all data are trained on, none are held out")
    try:
        found.measure("train", solve(data.t), data.states, unit)
    except SolveError as error:
        found.lack("train", f"solved again, {error}")
        if beyond.any():
            found.lack("test", f"solved again, {error}")
        return found, states
    try:
        states = solve(times)
    except SolveError as error:  # the learned field blows up beyond its training data
        with suppress(SolveError):
            states[~beyond] = solve(times[~beyond])
        if beyond.any():
            found.lack("test", f"solved again, {error}")
        return found, states
    if beyond.any():
        try:
            found.measure("test", states[beyond], full_data(system).states[beyond], unit)
        except SolveError as error:  # the true solution blows up there
            found.lack("test", str(error))
    return found, states
