"""What a training is, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from kansciml.backends.base import OdeProblem
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec
from kansciml.models.lux_field import LuxField
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.fitting.objective import Objective


def run_identity(objective: Objective, seed: int = 0, ladder: Sequence[float] = ()) -> dict[str, Any]:
    """What tells one run from another in a checkpoint, besides initial values and training settings.

    Args:
        objective: what is minimised; its settings count where they are not the defaults. seed: of the minibatches.
        ladder: factors of tighter tolerances.
    """
    solver, own, held_out = objective.solver, objective.own, objective.held_out
    problem, spec = solver.problem, solver.problem.field
    data = fingerprint(*_told(problem), problem.loss_scale, problem.units)
    field: dict[str, Any]
    if isinstance(spec, (FieldSpec, HybridSpec)):
        field = {"field": asdict(spec)}
    elif isinstance(spec, LuxField):
        field = {"field": {**spec.described(), "source": spec.source}}
    else:
        parameters = list(spec.module.parameters())
        shapes = [[name, list(p.shape), p.requires_grad] for name, p in spec.module.named_parameters()]
        field = {
            "module": [spec.label(), shapes],
            "code or attributes of the module": fingerprint(spec.module, without=parameters),
        }
    solved: dict[str, Any] = {"rtol": problem.rtol, "atol": problem.atol, "max_steps": problem.max_steps}
    if problem.solver != OdeProblem.solver:
        solved["solver"] = problem.solver
    if ladder:
        solved["ladder"] = list(ladder)
    further: dict[str, Any] = {}
    if set_ones := {k: v for k, v in asdict(objective.fit).items() if v != getattr(FitConfig, k)}:
        further["settings of the fit"] = set_ones | ({"seed": seed} if objective.fit.batch_trajectories else {})
    if own is not None:
        further["loss"] = fingerprint(own)
    if held_out is not None:
        further["validation data"] = fingerprint(*_told(held_out.problem))
    return {**field, "data": data, "solver": [solver.backend, solver.method, solved], **further}


def _told(problem: OdeProblem) -> Iterator[Any]:
    return (part for one in problem.series for part in one.told())
