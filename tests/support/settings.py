"""Configurations with other settings, whichever of their parts these belong to."""

from kansciml.runs.config_json import with_settings


def changed(config, **settings):
    """`config` with these settings."""
    return with_settings(config, settings)
