"""Numbers that mean nothing in whatever configuration they stand: seeds that no generator takes, and NaN.

What a setting of its own allows, its dataclass says.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from kansciml._errors import UsageError, check_seed

MAX_SEEDS = 10_000
"""More than any comparison needs; who asks for more has most likely given a seed where their number is meant."""


def seed_range(config: Any) -> range:
    """The seeds of a configuration with a number ``seeds``, from its ``first_seed`` (0 if it has none) on.

    Raises:
        UsageError: the first seed is negative, or their number is none.
    """
    first, count = check_seed(getattr(config, "first_seed", 0), "first_seed"), config.seeds
    if not 1 <= count <= MAX_SEEDS:
        instead = f"; seed {count} alone is first_seed {count} with seeds 1" if count > 1 else ""
        raise UsageError(f"got seeds {count}: expected at least 1 and at most {MAX_SEEDS}, how many there are{instead}")
    return range(first, first + count)


def seeds_of(config: Any) -> tuple[int, ...]:
    """Seeds named by the configuration: a field ``seeds`` (a number or a sequence) or ``seed``."""
    seeds = getattr(config, "seeds", None)
    if seeds is None:
        seed = getattr(config, "seed", None)
        return () if seed is None else (int(seed),)
    return tuple(seed_range(config)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)


def check_numbers(config: Any) -> None:
    """Refuse seeds out of range and numbers that are not finite, in a configuration and in those within it.

    An infinite number that is a setting's default stands for no limit and passes.

    Raises:
        UsageError: then.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_numbers(value)
        elif item.name == "seeds" and isinstance(value, int):
            seed_range(config)
        elif value != item.default:
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, int) and item.name.endswith(("seed", "seeds")):
                    check_seed(one, item.name)
                if isinstance(one, float) and not math.isfinite(one):
                    raise UsageError(f"got {item.name} {one}: expected a finite number")
