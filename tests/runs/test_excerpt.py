"""Excerpts of configurations: their settings are those of the whole, by other names, with its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kansciml.commands._output import flags_of, parse
from kansciml.runs.config_json import config_from_json, excerpt, with_settings
from kansciml.runs.settings import config_hash, part, settings_json
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class Loop:
    epochs: int = 3
    """Passes over
    the data: all."""
    rate: float = 1e-3
    """Step size."""


@dataclass(frozen=True)
class Run:
    loop: Loop = part(Loop())
    folder: Path | None = field(default=None, compare=False)
    """Where data lie."""
    training: FlatTraining = FlatTraining(5)
    """Adam, then L-BFGS."""


_First: Any = excerpt(Run(Loop(7)), ("epochs", "folder"), prefix="a_")
_Second: Any = excerpt(Run(), ("epochs", "training"))


class First(_First):
    """One."""


class Second(_Second):
    """Another."""


@dataclass(frozen=True)
class Both:
    first: First = part(First())
    second: Second = part(Second())


def test_settings_are_flat_and_the_whole_has_them():
    config = with_settings(Both(), {"a_epochs": 9, "training.adam_steps": 77})
    assert config.first.whole() == Run(Loop(9)) and config.second.whole().training.adam_steps == 77
    assert list(settings_json(config)) == ["a_epochs", "a_folder", "epochs", "training"]
    assert config_from_json(Both, settings_json(config)) == config
    moved = with_settings(config, {"a_folder": Path("elsewhere")})
    assert config_hash("x", moved) == config_hash("x", config) != config_hash("x", Both())


def test_flags_and_help_are_those_of_the_whole(capsys):
    arguments = ["--a-epochs", "12", "--epochs", "4", "--adam-steps", "6"]
    parsed = parse(flags_of(None, config=Both()), arguments, "x").config
    assert (parsed.first.a_epochs, parsed.second.epochs, parsed.second.training.adam_steps) == (12, 4, 6)
    with pytest.raises(SystemExit):
        parse(flags_of(None, config=Both()), ["--help"], "x")
    shown = capsys.readouterr().out
    assert "Passes over the data: all. (default: 7)" in shown and "Where data lie." in shown and "--rate" not in shown
