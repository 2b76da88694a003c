"""Configurations from JSON and settings by dotted names: what was written comes back, what is wrong is one line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from kansciml import UsageError
from kansciml.runs.config_json import (
    closest_first,
    config_from_json,
    is_tuple_setting,
    parse_setting,
    path_settings,
    setting_name,
    setting_types,
    with_settings,
)
from kansciml.runs.registry import available_experiments, get_experiment
from kansciml.runs.settings import config_hash, settings_json


@dataclass(frozen=True)
class Inner:
    steps: int = 10
    rate: float = 1e-3
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Other:
    rate: float = 0.1
    depth: int = 2


@dataclass(frozen=True)
class Config:
    name: str
    inner: Inner = Inner(steps=20)
    other: Other = field(default_factory=Other)
    grid: int = 5
    bounds: tuple[float, float] = (-1.0, 1.0)
    widths: tuple[int, ...] | None = None
    data: Path | None = None
    weights: tuple[Path, ...] = ()
    system: str = "lotka"
    fast: bool = False
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError("grid must be\nat least 1")


FULL = Config(
    "x",
    Inner(3, 0.5, (0.25, 0.5)),
    Other(1.0),
    7,
    (0.0, 2.0),
    (3, 4),
    Path("a/b.csv"),
    (Path("w"),),
    "my.py",
    True,
    "b",
)


class TestFromJson:
    @pytest.mark.parametrize("config", [FULL, Config("y")])
    def test_what_was_written_comes_back(self, config):
        read = config_from_json(Config, json.loads(json.dumps(settings_json(config))))
        assert read == config and type(read.data) is type(config.data)

    @pytest.mark.parametrize("name", available_experiments())
    def test_every_preset_of_every_experiment_comes_back_with_its_hash(self, name):
        experiment = get_experiment(name)
        for config in (*experiment.presets.values(), experiment.config()):
            read = config_from_json(experiment.config, json.loads(json.dumps(settings_json(config))))
            assert read == config and config_hash(name, read) == config_hash(name, config)

    def test_missing_fields_have_their_defaults(self):
        assert config_from_json(Config, {"name": "y", "inner": {"steps": 3}}) == Config("y", Inner(3))

    @pytest.mark.parametrize(
        "values, message",
        [
            ({"name": "x", "gird": 3}, "unknown setting 'gird' of Config: expected one of grid, "),
            ({"name": "x", "inner": {"step": 3}}, "unknown setting 'inner.step' of Inner: expected one of inner.steps"),
            ({"name": "x", "grid": "5"}, "grid: got '5', expected an integer"),
            ({"name": "x", "grid": True}, "grid: got True, expected an integer"),
            ({"name": "x", "grid": 1.5}, "grid: got 1.5, expected an integer"),
            ({"name": "x", "fast": 1}, "fast: got 1, expected true or false"),
            ({"name": "x", "inner": 3}, "inner: got 3, expected an object of settings"),
            ({"name": "x", "inner": {"rate": None}}, "inner.rate: got null, expected a number"),
            ({"name": "x", "bounds": [1, 2, 3]}, "bounds: got [1, 2, 3], expected a list of 2, each a number"),
            ({"name": "x", "widths": [1, "2"]}, "widths[1]: got '2', expected an integer"),
            ({"name": "x", "widths": 1}, "widths: got 1, expected a list, each an integer or null"),
            ({"name": "x", "mode": "c"}, "mode: got 'c', expected one of a, b"),
            ({"name": "x", "grid": 0}, "Config: grid must be at least 1"),
            ({}, "Config wants the setting name"),
            ([1], "Config: got [1], expected an object of settings"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, values, message):
        with pytest.raises(UsageError) as caught:
            config_from_json(Config, values)
        assert message in str(caught.value) and "\n" not in str(caught.value)


class TestNames:
    def test_nested_settings_are_listed_in_their_place(self):
        names = list(setting_types(Config))
        assert names[:6] == ["name", "inner.steps", "inner.rate", "inner.shares", "other.rate", "other.depth"]

    @pytest.mark.parametrize(
        "name, full",
        [
            ("grid", "grid"),
            ("field.grid", "grid"),
            ("inner.steps", "inner.steps"),
            ("steps", "inner.steps"),
            ("inner.rate", "inner.rate"),
            (" depth ", "other.depth"),
        ],
    )
    def test_a_name_is_found(self, name, full):
        assert setting_name(Config, name) == full

    def test_dashes_are_underscores(self):
        assert setting_name(get_experiment("fig2").config, "adam-steps") == "training.adam_steps"

    @pytest.mark.parametrize(
        "name, message",
        [
            ("rate", "could be any of inner.rate, other.rate"),
            ("inner", "is a group: expected one of inner.steps, inner.rate, inner.shares"),
            ("inner.stesp", "unknown setting 'inner.stesp' of Config: expected one of inner.steps, "),
            ("gird", "expected one of grid, "),
            ("field.widht", "expected one of widths, "),
        ],
    )
    def test_another_lists_the_valid_ones_the_closest_first(self, name, message):
        with pytest.raises(UsageError) as caught:
            setting_name(Config, name)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    def test_closest_first_keeps_all(self):
        assert sorted(closest_first("b", ["a.b", "c", "d"])) == ["a.b", "c", "d"]
        assert closest_first("b", ["c", "d", "a.b"])[0] == "a.b"


class TestText:
    @pytest.mark.parametrize(
        "name, text, value",
        [
            ("grid", "5", 5),
            ("grid", " 1e3 ", 1000),
            ("inner.rate", "1e-3", 1e-3),
            ("inner.rate", "2", 2.0),
            ("fast", "yes", True),
            ("fast", "false", False),
            ("widths", "none", None),
            ("widths", "3,4", (3, 4)),
            ("widths", "3", (3,)),
            ("widths", "3,", (3,)),
            ("widths", "(3, 4)", (3, 4)),
            ("widths", "[3,4]", (3, 4)),
            ("widths", "()", ()),
            ("bounds", "-1,2", (-1.0, 2.0)),
            ("data", "none", None),
            ("data", "a/b.csv", Path("a/b.csv")),
            ("weights", "a,b", (Path("a"), Path("b"))),
            ("system", "none", "none"),
            ("mode", "b", "b"),
        ],
    )
    def test_is_read_by_the_type_of_the_setting(self, name, text, value):
        read = parse_setting(Config, name, text)
        assert read == value and type(read) is type(value)

    @pytest.mark.parametrize(
        "name, text, message",
        [
            ("grid", "5.5", "grid: got '5.5', expected an integer"),
            ("grid", "none", "expected an integer"),
            ("grid", "inf", "expected an integer"),
            ("fast", "maybe", "fast: got 'maybe', expected true or false"),
            ("bounds", "1,2,3", "expected a list of 2, each a number"),
            ("widths", "3,x", "expected a list, each an integer or null"),
            ("system", "", "system: got '', expected text"),
            ("mode", "c", "expected one of a, b"),
        ],
    )
    def test_other_text_is_one_line(self, name, text, message):
        with pytest.raises(UsageError) as caught:
            parse_setting(Config, name, text)
        assert message in str(caught.value)

    def test_only_lists_are_lists(self):
        assert is_tuple_setting(Config, "widths") and is_tuple_setting(Config, "weights")
        assert not is_tuple_setting(Config, "grid") and not is_tuple_setting(Config, "data")


class TestWithSettings:
    def test_all_at_once_and_nothing_else(self):
        new = with_settings(FULL, {"grid": 2, "inner.steps": 9, "inner.rate": 1.0})
        assert new == Config(**{**vars(FULL), "grid": 2, "inner": Inner(9, 1.0, (0.25, 0.5))})
        assert with_settings(FULL, {}) == FULL

    def test_what_the_dataclass_refuses_is_one_line(self):
        with pytest.raises(UsageError, match="^Config: grid must be at least 1$"):
            with_settings(FULL, {"grid": 0})


def test_paths_are_named():
    assert path_settings(FULL) == {
        "data": (Path("a/b.csv"),), "weights": (Path("w"),), "system": (Path("my.py"),)
    }  # fmt: skip
    assert path_settings(Config("y")) == {}


@pytest.mark.parametrize("name", ["field.gird", "gird", "Grid"])
def test_an_unknown_setting_is_answered_with_the_likeliest_first(name):
    assert closest_first(name, ["first_seed", "training.adam_steps", "sensealg", "grid"])[0] == "grid"
