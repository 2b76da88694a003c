"""Settings of a configuration: parts that are flat outside, seeds, numbers that mean nothing, and the hash of all.

A configuration is a frozen dataclass. Parts of it that are declared by `part` are dataclasses of their own in Python,
and flat everywhere else: on the command line, in ``config.json`` and in the hash their settings stand among the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from kansciml._errors import UsageError, check_seed
from kansciml._files import to_jsonable

T = TypeVar("T")

COUNTS_IF_SET = {"counts_if_set": True}
"""Metadata of a field of a configuration that changes its hash only where it differs from its default."""
PART = "part"
MAX_SEEDS = 10_000
"""More than any comparison needs; who asks for more has most likely given a seed where their number is meant."""


def part(default: T, later: Collection[str] = ()) -> T:
    """A field of a configuration: `default`, itself a configuration, whose settings are flat outside Python.

    Args:
        later: settings that this configuration did not have at first: they count as those with `COUNTS_IF_SET` do, so
            that hashes stay what they were.
    """
    return dataclasses.field(default=default, metadata={PART: default, "later": frozenset(later)})


def is_part(item: dataclasses.Field) -> bool:
    """Whether a field was declared by `part`."""
    return PART in item.metadata


def flat_items(config: Any) -> Iterator[tuple[dataclasses.Field, Any, Any]]:
    """(field, its owner, value) of every setting of `config`, those of its parts in their place."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if is_part(item):
            yield from flat_items(value)
        else:
            yield item, config, value


def settings_json(config: Any) -> dict[str, Any]:
    """The settings by name, in JSON types."""
    return {item.name: to_jsonable(value) for item, _, value in flat_items(config)}


def setting(config: Any, name: str, default: Any = None) -> Any:
    """The value of a setting of the configuration or of a part of it; `default` if it has none of that name."""
    return next((value for item, _, value in flat_items(config) if item.name == name), default)


def config_hash(experiment: str, config: Any) -> str:
    """Twelve hexadecimal digits that are equal exactly if `experiment` and `config` are.

    SHA-256 of the sorted JSON of the dataclass. Numbers that compare equal hash equally (1 and 1.0). A path to a
    file, also as text with a suffix such as ``my_system.py``, counts by the file's name and contents, so that edited
    data are a new configuration and moved data are not. A field with ``compare=False`` does not count, one with
    `COUNTS_IF_SET` does where it differs from its default. A configuration with a method ``inputs`` counts by what that
    gives, too, unless it is empty: what its files read in their turn.
    """
    text = json.dumps({"experiment": experiment, "config": _hashable(config)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hashable(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if not math.isfinite(value):
            return {"float": repr(value)}
        return int(value) if value.is_integer() else value
    if isinstance(value, PurePath) or (isinstance(value, str) and Path(value).suffix and Path(value).is_file()):
        path = Path(value)
        if path.is_file():
            return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        return {"path": path.as_posix()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {name: _hashable(own) for name, own in _counting(value)}
        read = getattr(value, "inputs", None)  # of an experiment's configuration, what its files define
        inputs = read() if callable(read) else None
        return found | {"inputs": _hashable(inputs)} if inputs else found
    if isinstance(value, Mapping):
        return {str(key): _hashable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hashable(item) for item in value]
    if isinstance(value, np.ndarray):
        return _hashable(value.tolist())
    return to_jsonable(value)


def _counting(config: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of every setting that counts in the hash."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if is_part(item):
            later, default = item.metadata["later"], item.metadata[PART]
            for name, own in _counting(value):
                if name not in later or own != setting(default, name):
                    yield name, own
        elif item.compare and not ("counts_if_set" in item.metadata and value == item.default):
            yield item.name, value


def seed_range(config: Any) -> range:
    """The seeds of a configuration with a number ``seeds``, from its ``first_seed`` (0 if it has none) on.

    Raises:
        UsageError: the first seed is negative, or their number is none.
    """
    first, count = check_seed(setting(config, "first_seed", 0), "first_seed"), setting(config, "seeds")
    if not 1 <= count <= MAX_SEEDS:
        instead = f"; seed {count} alone is first_seed {count} with seeds 1" if count > 1 else ""
        raise UsageError(f"got seeds {count}: expected at least 1 and at most {MAX_SEEDS}, how many there are{instead}")
    return range(first, first + count)


def seeds_of(config: Any) -> tuple[int, ...]:
    """Seeds named by the configuration: a field ``seeds`` (a number or a sequence) or ``seed``."""
    seeds = setting(config, "seeds")
    if seeds is None:
        seed = setting(config, "seed")
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
