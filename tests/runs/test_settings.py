"""Numbers that mean nothing are refused in whatever configuration they stand."""

import math
from dataclasses import dataclass, field, replace

import pytest

from kansciml import UsageError
from kansciml.runs.settings import check_numbers, config_hash, part, seed_range, seeds_of, settings_json


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    data_seed: int = 0


@dataclass(frozen=True)
class Config:
    seeds: int = 2
    first_seed: int = 0
    limit: float = math.inf
    span: tuple[float, float] = (0.0, 1.0)
    inner: Inner = field(default_factory=Inner)


def test_what_means_something_passes():
    check_numbers(Config())
    assert list(seed_range(Config(seeds=3, first_seed=20261129))) == [20261129, 20261130, 20261131]
    assert seeds_of(Config()) == (0, 1)


@pytest.mark.parametrize(
    "config, message",
    [
        (Config(seeds=20261129), "seed 20261129 alone is first_seed 20261129 with seeds 1"),
        (Config(seeds=0), "got seeds 0: expected at least 1"),
        (Config(seeds=-3), "got seeds -3"),
        (Config(first_seed=-1), "got first_seed -1"),
        (Config(span=(0.0, math.nan)), "got span nan: expected a finite number"),
        (Config(limit=-math.inf), "got limit -inf"),
        (replace(Config(), inner=Inner(rate=math.inf)), "got rate inf"),
        (replace(Config(), inner=Inner(data_seed=-1)), "got data_seed -1"),
    ],
)
def test_what_does_not_is_one_line(config, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_numbers(config)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Before:
    seeds: int = 1
    rate: float = 0.5


@dataclass(frozen=True)
class Nested:
    seeds: int = 1
    inner: Inner = part(Inner(rate=0.5), later=("data_seed",))


def test_parts_are_flat_and_settings_that_came_later_count_where_they_are_not_the_parts_default():
    assert settings_json(Nested()) == {"seeds": 1, "rate": 0.5, "data_seed": 0}
    assert config_hash("x", Nested()) == config_hash("x", Before())
    for other in (Inner(rate=0.5, data_seed=1), Inner(rate=0.1)):
        assert config_hash("x", replace(Nested(), inner=other)) != config_hash("x", Nested())
