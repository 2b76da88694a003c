"""Fixtures of the tests of experiments."""

import pytest

from kansciml.reporting import style


@pytest.fixture
def svg_alone(monkeypatch):
    """Pictures are written as SVG alone, which is a third of the work."""
    monkeypatch.setattr(style, "FORMATS", style.FORMATS[:1])
