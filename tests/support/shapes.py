"""Checks shapes while tests run: ``--jaxtyping-packages=kansciml.analysis,support.shapes.check``."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

CONF = BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arrays checked, and nothing else: numbers may be of any kind, protocols as they are."""
    function.__annotations__ = {name: kind for name, kind in function.__annotations__.items() if _has_shape(kind)}
    return beartype(conf=CONF)(function)


def _has_shape(kind: Any) -> bool:
    return (isinstance(kind, type) and issubclass(kind, AbstractArray)) or any(map(_has_shape, typing.get_args(kind)))
