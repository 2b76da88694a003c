"""Looks up the functions to learn by their names."""

from __future__ import annotations

from kansciml._errors import check_name
from kansciml.tasks.functions import feynman, rough, special
from kansciml.tasks.functions.target import Target

TARGETS = {target.name: target for module in (feynman, special, rough) for target in module.TARGETS}


def get_target(name: str) -> Target:
    """The function of that name. Raises UsageError: there is none; the message lists those there are."""
    check_name("function", name, TARGETS)
    return TARGETS[name]
