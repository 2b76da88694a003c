"""kansciml: when is a Kolmogorov-Arnold network worth its cost against an MLP?

`import kansciml` alone loads neither PyTorch nor Julia nor matplotlib; each public name loads what it needs when it is
first used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing it from typing would take longer than all the rest

__version__ = "0.2.0"

_EXPORTS = {
    "BackendUnavailable": "kansciml._errors",
    "FieldSpec": "kansciml.models.field_spec",
    "KAN": "kansciml.layers.kan",
    "KANConv2d": "kansciml.layers.images.kan_conv",
    "KansciError": "kansciml._errors",
    "MLP": "kansciml.layers.mlp",
    "OdeProblem": "kansciml.backends.base",
    "RSWAFKAN": "kansciml.layers.rswaf_kan",
    "SolveError": "kansciml._errors",
    "SplineKAN": "kansciml.layers.spline_kan",
    "UsageError": "kansciml._errors",
    "VectorField": "kansciml.models.fields",
}
_MODULES = ("ode",)

__all__ = ["__version__", *_EXPORTS, *_MODULES]

if TYPE_CHECKING:
    from typing import Any

    from kansciml import ode as ode
    from kansciml._errors import BackendUnavailable as BackendUnavailable
    from kansciml._errors import KansciError as KansciError
    from kansciml._errors import SolveError as SolveError
    from kansciml._errors import UsageError as UsageError
    from kansciml.backends.base import OdeProblem as OdeProblem
    from kansciml.layers.images.kan_conv import KANConv2d as KANConv2d
    from kansciml.layers.kan import KAN as KAN
    from kansciml.layers.mlp import MLP as MLP
    from kansciml.layers.rswaf_kan import RSWAFKAN as RSWAFKAN
    from kansciml.layers.spline_kan import SplineKAN as SplineKAN
    from kansciml.models.field_spec import FieldSpec as FieldSpec
    from kansciml.models.fields import VectorField as VectorField


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"kansciml.{name}")
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'kansciml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
