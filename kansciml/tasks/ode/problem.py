"""Makes a field for a system, and the problem that a backend solves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kansciml._errors import UsageError, unknown_name
from kansciml.backends._hybrid import HybridKernel
from kansciml.backends.base import MAX_STEPS, OdeProblem, Series
from kansciml.models.field_spec import INPUT_SCALINGS, MODELS, FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, NetworkSpec, Physics, Spec
from kansciml.models.lux_field import LuxField, read_source
from kansciml.tasks.ode.data import first_state
from kansciml.tasks.ode.fitting.windows import with_learned_starts
from kansciml.tasks.ode.scaling import column_scaling, input_normalisation, training_trajectories, with_normalisation
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trajectory import Trajectory

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField

MATCHES = ("width", "params")
Numbers = tuple[float, ...]
Network = TypeVar("Network", bound=FieldSpec)


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
    """affine (training span into [-1, 1]; the default, of a stiff system affine+tanh), affine+tanh (then squashed:
    nothing leaves a KAN's grid), none, or tanh (with these two the unit of the state matters)."""
    input_power: int = 1
    """Odd power of the scaled state that the network is fed (3: cubes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_scaling not in INPUT_SCALINGS:
            raise unknown_name("input_scaling", self.input_scaling, INPUT_SCALINGS)

    @property
    def is_affine(self) -> bool:
        """Whether center and scale of the data normalise the network's input."""
        return self.input_scaling.startswith("affine")


def make_field(
    system: System, model: str, *, match: str = "width", config: FieldSizes | None = None, **settings: Any
) -> FieldSpec:
    """A field for a system, fed its inputs and, where the system depends on it, the time beside the state.

    Args:
        system: gives the state size, the normalisation, and the default hidden width.
        model: ``"mlp"`` or ``"kan"``.
        match: ``"width"``: the KAN has the given widths too, the paper's "comparable width". ``"params"``: its hidden
            widths are shrunk by one factor until it has at most as many parameters as the MLP of the given widths.
        config: the network (default: `FieldConfig()`); the system's `field_settings` replace what is the default.
        settings: those of `FieldConfig` that differ from it, whatever the system says.

    Raises:
        UsageError: unknown name or a value out of range; a system with known terms, which wants `hybrid_field`.
    """
    _refuse_known_terms(system)
    given = _given(system, model, match, config, settings)
    affine, n, m = given.is_affine, system.state_size, system.input_size
    center, scale = input_normalisation(system)
    spec = FieldSpec(
        "mlp" if match == "params" else model,
        (n + m + system.time_dependent, *(given.hidden or (system.hidden,)), n),
        center=system.center + center if affine else (),
        scale=system.scale + scale if affine else (),
        rate=system.rate,
        inputs=m,
        time=system.time_dependent,
        **_options(given),
    )
    return shrunk_kan(spec, lambda field: field.n_parameters) if (model, match) == ("kan", "params") else spec


def hybrid_field(
    system: System, model: str, *, match: str = "width", config: FieldSizes | None = None, **settings: Any
) -> HybridSpec:
    """A field of the system's known terms, its `physics`, and a network; the arguments are those of `make_field`.

    The network's inputs are scaled into [-0.9, 0.9] over the training data, with the first guesses of parameters. Each
    of its outputs has a rate at which it changes one component of du/dt by as much as this changes in the data.

    Raises:
        UsageError: as `make_field`; no known terms, or ones that are not finite at the data.
    """
    if system.physics is None:
        raise UsageError(f"system {system.name} has no known terms: give it physics, or take make_field")
    given = _given(system, model, match, config, settings)
    field, center, scale, rate = _known_terms(with_normalisation(system), system.physics)
    spec = NetworkSpec(
        "mlp" if match == "params" else model,
        (field.network.widths[0], *(given.hidden or (system.hidden,)), system.physics.outputs),
        center=center if given.is_affine else (),
        scale=scale if given.is_affine else (),
        rate=rate,
        **_options(given),
    )
    if (model, match) == ("kan", "params"):
        spec = shrunk_kan(spec, lambda network: network.n_parameters)
    return replace(field, network=spec)


def field_of(
    system: System, model: str, *, match: str = "width", config: FieldSizes | None = None, **settings: Any
) -> Spec:
    """`hybrid_field` of a system with known terms, else `make_field`."""
    make = make_field if system.physics is None else hybrid_field
    return make(system, model, match=match, config=config, **settings)


def lux_field(system: System, path: Path) -> LuxField:
    """The layer of Lux that a Julia file defines as a field for a system, fed and normalised as `make_field` says.

    Raises:
        UsageError: no such file; a system with known terms.
    """
    _refuse_known_terms(system)
    n, m = system.state_size, system.input_size
    center, scale = input_normalisation(system)
    normalisation = system.center + center, system.scale + scale, system.rate
    return LuxField(path.name, read_source(path), n, m, system.time_dependent, *normalisation)


def _refuse_known_terms(system: System) -> None:
    if system.physics is not None:
        raise UsageError(
            f"system {system.name} has known terms, physics: a field that learns all of du/dt ignores them"
        )


def _given(system: System, model: str, match: str, config: FieldSizes | None, settings: dict[str, Any]) -> FieldConfig:
    if model not in MODELS:
        raise unknown_name("model", model, MODELS)
    if match not in MATCHES:
        raise unknown_name("match", match, MATCHES)
    given = FieldConfig(**vars(config or FieldConfig()))
    suited = {
        name: value
        for name, value in system.field_settings.items()
        if getattr(given, name) == getattr(FieldConfig, name)
    }
    return replace(given, **{**suited, **settings})


def _options(given: FieldConfig) -> dict[str, Any]:
    same = ("activation", "grid", "spline_order", "grid_range", "input_power")
    return {"squash": given.input_scaling.endswith("tanh"), **{name: getattr(given, name) for name in same}}


def _known_terms(system: System, physics: Physics) -> tuple[HybridSpec, Numbers, Numbers, Numbers]:
    """The known terms with a network of no hidden layer; center and scale of its inputs, and rate of its outputs."""
    n, m = system.state_size, system.input_size
    equations = physics.equations(n, m)
    network = NetworkSpec("mlp", (len(equations.calls[0]), physics.outputs))
    field = HybridSpec(network, equations, physics.sought(), m)
    kernel = HybridKernel(field, np.zeros(field.n_parameters))
    data = training_trajectories(system)
    t, u = (
        np.concatenate([one.t for one in data]),
        np.concatenate([one.at(one.t, np.array(system.center)) for one in data]),
    )
    w = np.concatenate([one.inputs for one in data if one.inputs is not None]) if m else None
    finite = np.isfinite(kernel.batch(u, t, w)).all(axis=1)
    if not finite.all():
        at = np.argmin(finite)
        raise UsageError(
            f"system {system.name}: the known terms are not finite at t = {t[at]:g}, u = {u[at].tolist()}: check them,"
            " and the first guesses of their parameters"
        )
    inputs, slopes = kernel.calls(u, t, w)
    columns = list(inputs.reshape(-1, inputs.shape[-1]).T)
    strength = np.nan_to_num(np.sqrt(np.mean(slopes**2, axis=2))).max(axis=0)  # (n, outputs)
    rates = np.divide(np.array(system.rate)[:, None], strength, out=np.full_like(strength, np.inf), where=strength > 0)
    rate = rates.min(axis=0)
    center, scale = column_scaling(columns)
    return field, center, scale, tuple(np.where(np.isfinite(rate), rate, 1.0).tolist())


def shrunk_kan(mlp: Network, size: Callable[[FieldSpec], float]) -> Network:
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
    field: Spec | LuxField | ModuleField,
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
        learn_u0: whether initial states are parameters: see `with_learned_starts`. Otherwise they are the first rows.

    Raises:
        UsageError: a first row in which not every component was measured, unless initial states are learned.
    """
    data = training_trajectories(system)
    series = [Series(system.u0, data[0].t, data[0].states, system.t0)]
    if system.trajectories:
        series = [_series(system, k, one, learn_u0) for k, one in zip(system.training, data)]
    problem = OdeProblem(
        field,
        tuple(series),
        loss_scale=system.loss_scale,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        units=system.units,
        solver=solver or ("stiff" if system.stiff else "5"),
    )
    return with_learned_starts(problem) if learn_u0 else problem


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
        own = _series(system, k, system.trajectories[k].used(), False, held_out=True)
        series.append(own if system.starts is None else replace(own, u0=system.starts[k]))
    return replace(problem, series=tuple(series))


def _series(system: System, k: int, data: Trajectory, learned: bool, held_out: bool = False) -> Series:
    start, missing = first_state(system, k)
    if missing and not learned:
        lacking = f"{', '.join(missing)} not measured{'' if data.weights is None else ', or of weight 0,'}"
        what = "of a trajectory for validation: " if held_out else ": learn it (learn_u0=True or --learn-u0), or "
        raise data.error(
            f"{lacking} in the first row, the initial state{' ' * held_out}{what}leave out the"
            " rows before the first complete one"
        )
    return Series(start, data.t, data.states, float(data.t[0]), data.weights, data.forcing, name=data.name)
