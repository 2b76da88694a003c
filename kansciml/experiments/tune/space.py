"""What is tuned of a neural ODE's field, within which values, and the widest field that a choice allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kansciml._errors import UsageError
from kansciml.experiments.ode.config import RunConfig
from kansciml.experiments.tune.choice import Choice
from kansciml.models.hybrid_spec import Spec
from kansciml.tasks.ode.problem import FieldConfig, FieldSizes, field_of
from kansciml.tasks.ode.system import System

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DEPTHS = (1, 2, 3)
RATES = (1e-3, 1e-1)
ACTIVATIONS = ("tanh", "silu", "gelu", "sigmoid")
SCALINGS = ("affine", "affine+tanh")
GRIDS, ORDERS, REACHES = (2, 12), (2, 4), (0.8, 2.0)
LEAST_UNITS = 2
"""Of a hidden layer: a choice with fewer is no network to compare."""


def space(model: str) -> dict[str, BaseDistribution]:
    """Name of a setting of `Choice` -> the values it may have, for ``"mlp"`` or ``"kan"``."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    shared: dict[str, BaseDistribution] = {
        "depth": IntDistribution(DEPTHS[0], DEPTHS[-1]),
        "learning_rate": FloatDistribution(*RATES, log=True),
        "scaling": CategoricalDistribution(SCALINGS),
    }
    if model == "mlp":
        return {**shared, "activation": CategoricalDistribution(ACTIVATIONS)}
    grids = {"grid": IntDistribution(*GRIDS), "spline_order": IntDistribution(*ORDERS)}
    return {**shared, **grids, "reach": FloatDistribution(*REACHES)}


def allowed(system: System, sizes: FieldSizes) -> int:
    """Parameters that every field may have: those of the MLP of the given hidden widths."""
    return field_of(system, "mlp", config=sizes).n_parameters


def field_for(system: System, model: str, choice: Choice, most: int) -> Spec | None:
    """The field of the widest hidden layers that has at most `most` parameters; None if none has `LEAST_UNITS`."""
    found = None
    for field in _fields(system, model, choice):
        if field.n_parameters > most:
            break
        found = field
    return found


def _fields(system: System, model: str, choice: Choice) -> Iterator[Spec]:
    width = LEAST_UNITS
    settings = {name: getattr(choice, name) for name in ("activation", "grid", "spline_order")}
    while True:
        config = FieldConfig(
            (width,) * choice.depth, grid_range=(-choice.reach, choice.reach), input_scaling=choice.scaling, **settings
        )
        yield field_of(system, model, config=config)
        width += 1


def trained_by(run: RunConfig, choice: Choice) -> RunConfig:
    """The run with the choice's learning rate."""
    rates: dict[str, Any] = {"learning_rate": choice.learning_rate, "final_learning_rate": choice.learning_rate / 10}
    return replace(run, training=replace(run.training, **rates))


def optuna() -> Any:
    """The library. Raises UsageError: it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("tune needs Optuna: pip install 'kansciml[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
