"""Configurations with other settings, whichever of their parts these belong to."""

from __future__ import annotations

from typing import TypeVar

from kansciml._files import to_jsonable
from kansciml.runs.config_json import config_from_json
from kansciml.runs.settings import settings_json

T = TypeVar("T")


def changed(config: T, **settings: object) -> T:
    """`config` with these settings, by the flat names that they have outside Python."""
    return config_from_json(type(config), settings_json(config) | to_jsonable(settings))
