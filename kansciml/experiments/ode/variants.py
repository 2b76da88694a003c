"""Variants of a neural ODE's field: an MLP, and KANs of its hidden widths, its parameters or its operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kansciml._errors import UsageError
from kansciml._files import short_name
from kansciml.analysis.matching import pass_flops
from kansciml.models.hybrid_spec import HybridSpec, Spec
from kansciml.models.lux_field import LuxField
from kansciml.tasks.ode.problem import FieldSizes, field_of, lux_field, shrunk_kan
from kansciml.tasks.ode.system import System


def variant_fields(
    system: System, models: Sequence[str], matches: Sequence[str], config: FieldSizes
) -> dict[str, Spec]:
    """Variant -> field: ``mlp``, ``kan-width`` (same hidden widths), ``kan-params`` (no more parameters),
    ``kan-flops`` (no more operations)."""
    fields = {"mlp": field_of(system, "mlp", config=config)} if "mlp" in models else {}
    for match in matches if "kan" in models else ():
        if match == "flops":
            fields["kan-flops"] = flops_field(system, config)
        else:
            fields[f"kan-{match}"] = field_of(system, "kan", match=match, config=config)
    return fields


def own_field(system: System, path: Path | None) -> dict[str, LuxField]:
    """Variant, named as the Julia file, -> the layer of Lux that it defines; none without a file.

    Raises:
        UsageError: no such file, or one with the name of another variant.
    """
    if path is None:
        return {}
    name = short_name(path.stem)
    if name == "mlp" or name.startswith("kan") or "@" in name:
        raise UsageError(f"got field {path}: expected another name, as built-in fields are named {name}")
    return {name: lux_field(system, path)}


def flops_field(system: System, config: FieldSizes) -> Spec:
    """A KAN with at most as many operations per evaluation (`field_flops`) as the MLP of the given hidden widths."""
    mlp = field_of(system, "mlp", config=config)
    if isinstance(mlp, HybridSpec):
        return replace(mlp, network=shrunk_kan(mlp.network, field_flops))
    return shrunk_kan(mlp, field_flops)


def field_flops(spec: Spec) -> float:
    """Operations of one evaluation of the network in a field, at one state (`kansciml.analysis.cost`).

    What a KAN does once per parameter vector, scaling its spline weights, is shared among `matching.IMAGES`
    evaluations, fewer than a solve takes. The normalisation of states and known terms, the same for all fields, are not
    counted.
    """
    return _pass_flops(spec)[0]


def training_flops(spec: Spec | LuxField) -> float:
    """Operations, forward and backward, that a training is counted as for each evaluation of a field by its solver.

    Of the network alone, as in `field_flops`: known terms, what steps cost besides, and the optimiser are left out. NaN
    of a layer of Lux, whose operations nobody knows.
    """
    return math.nan if isinstance(spec, LuxField) else sum(_pass_flops(spec))


def _pass_flops(spec: Spec) -> tuple[float, float]:
    spec = spec.network if isinstance(spec, HybridSpec) else spec
    return pass_flops(spec.model, spec.widths, spec.grid, spec.spline_order)
