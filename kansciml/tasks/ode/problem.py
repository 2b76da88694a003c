"""Makes a field for a system, and the problem that a backend solves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kansciml._errors import UsageError, unknown_name
from kansciml.backends.base import MAX_STEPS, OdeProblem, Series
from kansciml.models.field_spec import INPUT_SCALINGS, MODELS, FieldSpec
from kansciml.tasks.ode.data import first_state
from kansciml.tasks.ode.scaling import input_normalisation, training_trajectories
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trajectory import Trajectory

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField

MATCHES = ("width", "params")


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
    """A field for a system, fed its inputs and, where the system depends on it, the time beside the state.

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
    affine, n, m = given.input_scaling == "affine", system.state_size, system.input_size
    center, scale = input_normalisation(system)
    spec = FieldSpec(
        "mlp" if match == "params" else model,
        (n + m + system.time_dependent, *(given.hidden or (system.hidden,)), n),
        activation=given.activation,
        grid=given.grid,
        spline_order=given.spline_order,
        grid_range=given.grid_range,
        center=system.center + center if affine else (),
        scale=system.scale + scale if affine else (),
        rate=system.rate,
        squash=given.input_scaling == "tanh",
        input_power=given.input_power,
        inputs=m,
        time=system.time_dependent,
    )
    return shrunk_kan(spec, lambda field: field.n_parameters) if (model, match) == ("kan", "params") else spec


def shrunk_kan(mlp: FieldSpec, size: Callable[[FieldSpec], float]) -> FieldSpec:
    """The KAN whose hidden widths are those of `mlp` shrunk by one factor until its `size` is at most the MLP's.

    Where even one unit is larger than the MLP, it has one.
    """
    first, *hidden, last = mlp.widths
    for width in range(hidden[0], 0, -1):
        kan = replace(mlp, model="kan", widths=(first, *(max(1, round(h * width / hidden[0])) for h in hidden), last))
        if size(kan) <= size(mlp):
            break
    return kan


def make_problem(
    system: System,
    field: FieldSpec | ModuleField,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    max_steps: int = MAX_STEPS,
    *,
    solver: str | None = None,
    learn_u0: bool = False,
) -> OdeProblem:
    """The problem of fitting `field` to the training data of `system`, solved in the system's `units`.

    One series per trajectory that is trained on, in their order. The tolerances are in these units: multiples of the
    range of each component, unless the system is `dimensionless`.

    Args:
        solver: see `OdeProblem`; None: ``"stiff"`` if the system is stiff, else ``"5"``.
        learn_u0: whether initial states are parameters, first those of the first rows. Otherwise they are these rows.

    Raises:
        UsageError: a first row in which not every component was measured, unless initial states are learned.
    """
    data = training_trajectories(system)
    series = [Series(system.u0, data[0].t, data[0].states, system.t0, learned=learn_u0)]
    if system.trajectories:
        series = [_series(system, k, one, learn_u0) for k, one in zip(system.training, data)]
    return OdeProblem(
        field,
        tuple(series),
        loss_scale=system.loss_scale,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        units=system.units,
        solver=solver or ("stiff" if system.stiff else "5"),
    )


def validation_problem(system: System, problem: OdeProblem) -> OdeProblem | None:
    """The problem of `make_problem` with the system's trajectories for validation as its data, from their true initial
    states or their first rows; None: there are no such trajectories.

    Raises:
        UsageError: a first row in which not every component was measured.
    """
    if not system.validation:
        return None
    series = []
    for k in system.validation:
        data = system.trajectories[k]
        own = _series(system, k, data, system.starts is not None)
        series.append(replace(own, u0=own.u0 if system.starts is None else system.starts[k], learned=False))
    return replace(problem, series=tuple(series))


def _series(system: System, k: int, data: Trajectory, learned: bool) -> Series:
    start, missing = first_state(system, k)
    if missing and not learned:
        raise data.error(
            f"{', '.join(missing)} not measured in the first row, the initial state: learn it (learn_u0=True or"
            " --learn-u0), or leave out the rows before the first complete one"
        )
    return Series(start, data.t, data.states, float(data.t[0]), data.weights, data.forcing, learned, name=data.name)
