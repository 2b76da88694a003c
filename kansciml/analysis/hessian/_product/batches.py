"""Reads batches of any kind anew for every product, and cuts them into micro-batches along their first axis."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kansciml._errors import UsageError

Count = Callable[[Any], float]


class Batches:
    """Micro-batches that can be read again, with their weights in the mean, on `device`.

    The arguments are those of `HessianOperator`, which documents them.

    Raises:
        UsageError: an iterator (which can be read only once), something that is no batch, micro_batch below 1.
    """

    def __init__(self, given: Any, micro_batch: int | None, device: torch.device, count: Count | None = None) -> None:
        if micro_batch is not None and (not isinstance(micro_batch, int) or micro_batch < 1):
            raise UsageError(f"got micro_batch {micro_batch!r}: expected a whole number of samples, at least 1")
        if count is not None and not callable(count):
            raise UsageError(
                f"got count {count!r}: expected a function of a batch, such as lambda batch: len(batch[0])"
            )
        self.micro_batch, self.device, self.count = micro_batch, device, count
        self.single = is_single(given)
        if not self.single:
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise UsageError(
                    f"got batches of type {type(given).__name__}: expected a tensor, a tuple, mapping or record of"
                    " tensors, or a list or DataLoader of those"
                )
            if isinstance(given, Iterator):
                raise UsageError(
                    f"got batches as a {type(given).__name__}, which can be read only once: expected a list or a"
                    " DataLoader, as every product reads the data again; list(...) makes one"
                )
        self._given = [given] if self.single else given

    @property
    def generators(self) -> list[torch.Generator]:
        """Generators of a DataLoader, which draws its order from them."""
        owners = [self._given, *(getattr(self._given, name, None) for name in ("sampler", "batch_sampler"))]
        owners.append(getattr(owners[-1], "sampler", None))
        found = [getattr(owner, "generator", None) for owner in owners]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def whole(self) -> Iterator[tuple[Any, float]]:
        """Each batch as it was given, with its weight; those of weight zero are left out."""
        strict = not self.single or self.micro_batch is not None
        number, total, untold = 0, 0.0, False
        for number, batch in enumerate(self._given, 1):
            weight = batch_size(batch, strict) if self.count is None else self.count_of(batch)
            if weight == 0 and self.count is None:
                raise UsageError(f"batch {number} has no samples: expected at least one in each batch")
            untold = untold or weight is None
            if untold and number > 1:
                raise UsageError(
                    f"got batches of type {type(batch).__name__} without tensors whose first axis would tell their"
                    " samples: expected tensors in each; or give count=, a function of a batch, for their weights"
                )
            total += 1 if weight is None else weight
            if weight != 0:
                yield batch, 1 if weight is None else weight
        if not number:
            raise UsageError(
                "got no batches at all: expected at least one (is the loader's data set empty, or can it be read only"
                " once?)"
            )
        if not total:
            raise UsageError(f"count is 0 for each of the {number} batches: expected something to take a mean over")

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        for batch, weight in self.whole():
            parts = [(batch, weight)] if self.micro_batch is None else self.cut(batch, self.micro_batch, weight)
            for part, own in parts:
                yield self.moved(part), own

    def cut(self, batch: Any, step: int, weight: float) -> Iterator[tuple[Any, float]]:
        """Parts of `step` samples, the last with what remains, with their weights; the batch itself if no larger."""
        size = batch_size(batch, strict=True)
        if size is None:
            raise UsageError(
                f"got micro_batch {step} for a batch of type {type(batch).__name__} without tensors: expected tensors"
                " with the samples along their first axis; or leave micro_batch out"
            )
        if step >= size:
            yield batch, weight
            return
        for start in range(0, size, step):
            part = part_of(batch, start, min(start + step, size), size)
            own = min(step, size - start) if self.count is None else self.count_of(part)
            if own:
                yield part, own

    def count_of(self, batch: Any) -> float:
        """What `count` gives for a batch."""
        assert self.count is not None
        found = self.count(batch)
        try:
            number = float(found)
        except (TypeError, ValueError, RuntimeError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"count gave {found!r}: expected a number of at least 0 for each batch")
        return number

    def moved(self, batch: Any) -> Any:
        return mapped(batch, lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf)


def is_single(given: Any) -> bool:
    """Whether data are one batch, and not several to iterate over."""
    if given is None or isinstance(given, (Tensor, tuple, Mapping)):
        return True
    return not isinstance(given, Iterable) and _is_record(given)


def mapped(value: Any, change: Callable[[Any], Any], above: tuple[int, ...] = ()) -> Any:
    """A batch with `change` applied to its leaves.

    Containers are mappings, lists, tuples and records if they hold tensors; a list without any, such as texts or
    numbers, is one leaf. They are made anew, of the same kind, where a leaf changed (a UsageError where they cannot);
    the one given stays as it is.
    """
    parts = _parts(value, above)
    if parts is None:
        return change(value)
    found = {key: mapped(part, change, (*above, id(value))) for key, part in parts.items()}
    if all(found[key] is part for key, part in parts.items()):
        return value
    try:
        return _rebuilt(value, found)
    except Exception as error:  # constructors of others fail as they like
        raise UsageError(
            f"got a batch with a {type(value).__name__}, of which none can be made with other tensors ({error}):"
            " expected dicts, tuples, lists or dataclasses"
        ) from error


def leaves(value: Any, path: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All that `mapped` would change, with where it is."""
    parts = _parts(value, above)
    if parts is None:
        yield path, value
    else:
        for key, part in parts.items():
            yield from leaves(part, f"{path}.{key}", (*above, id(value)))


def _parts(value: Any, above: tuple[int, ...]) -> dict[Any, Any] | None:
    """What a container within others holds; None for a leaf."""
    if id(value) in above:
        raise UsageError(f"got a batch with a {type(value).__name__} that contains itself: expected tensors in the end")
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, (list, tuple)) and _holds_tensors(value):
        return dict(enumerate(value))
    return {name: getattr(value, name) for name in _fields(value)} if _is_record(value) else None


def _rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    kind = type(value)
    if isinstance(value, (dict, UserDict)):
        new = copy.copy(value)  # has its own storage, and keeps what else the class holds
        for key, part in parts.items():
            new[key] = part
        return new
    if isinstance(value, Mapping):
        new = kind(parts)
        if list(new) != list(parts) or any(new[key] is not part for key, part in parts.items()):
            raise TypeError("it changes what it is made of")
        return new
    if isinstance(value, (list, tuple)):
        return kind._make(parts.values()) if hasattr(kind, "_make") else kind(parts.values())
    new = copy.copy(value)
    for key, part in parts.items():
        object.__setattr__(new, key, part)  # frozen dataclasses too
    return new


def _is_record(value: Any, depth: int = 4) -> bool:
    """Whether an object is a dataclass or the like that holds tensors, and not something to iterate over or to call."""
    if isinstance(value, (type, Tensor, np.ndarray, nn.Module, Dataset, torch.Generator)) or callable(value):
        return False
    declared = dataclasses.is_dataclass(value) or hasattr(type(value), "__attrs_attrs__")
    if not declared and (not hasattr(value, "__dict__") or isinstance(value, Iterable)):
        return False
    return any(_holds_tensors(getattr(value, name), depth) for name in _fields(value))


def _fields(value: Any) -> list[str]:
    """Names of a record's attributes."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return list(vars(value)) if attributes is None else [attribute.name for attribute in attributes]


def _holds_tensors(value: Any, depth: int = 5) -> bool:
    """Whether there are tensors or arrays in it, not deeper than `depth` containers."""
    if isinstance(value, (Tensor, np.ndarray)):
        return True
    if depth == 0 or isinstance(value, (str, bytes, int, float)):
        return False
    if isinstance(value, (Mapping, list, tuple)):
        parts = value.values() if isinstance(value, Mapping) else value
        return any(_holds_tensors(part, depth - 1) for part in parts)
    return _is_record(value, depth - 1)


def batch_size(batch: Any, strict: bool) -> int | None:
    """Length of the first axis of the batch's tensors and arrays, else of its lists of values; None without any.

    A UsageError if `strict` and the first axes differ.
    """
    found = [leaf for _, leaf in leaves(batch)]
    sizes = [leaf.shape[0] for leaf in found if isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > 0]
    sizes = sizes or [len(leaf) for leaf in found if isinstance(leaf, list)]
    if strict and len(set(sizes)) > 1:
        raise UsageError(
            f"got a batch of tensors with first axes of lengths {', '.join(map(str, sorted(set(sizes))))}: expected the"
            " samples along the first axis of each; keep what belongs to no sample inside the loss, or give count=, a"
            " function of a batch, for the weights of uncut batches"
        )
    return sizes[0] if sizes else None


def part_of(batch: Any, start: int, end: int, size: int) -> Any:
    """Samples `start` to `end` (exclusive) of a batch of `size`; lists of that many values are cut as well."""

    def change(leaf: Any) -> Any:
        try:
            if isinstance(leaf, Tensor) and leaf.layout != torch.strided and leaf.ndim > 0:
                return leaf.index_select(0, torch.arange(start, end, device=leaf.device))
            if isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > 0:
                return leaf[start:end]
        except (RuntimeError, NotImplementedError) as error:
            raise UsageError(
                f"got a batch with a tensor of layout {leaf.layout}, which cannot be cut"
                f" ({str(error).splitlines()[0]}): expected dense tensors; or leave micro_batch out"
            ) from error
        return leaf[start:end] if isinstance(leaf, (list, tuple)) and len(leaf) == size else leaf

    return mapped(batch, change)


def joined(first: Any, second: Any) -> Any | None:
    """The samples of one batch, then those of another; None where they do not fit together, as with other lengths.

    What belongs to no sample is the first batch's.
    """
    one, two = list(leaves(first)), list(leaves(second))
    if [path for path, _ in one] != [path for path, _ in two]:
        return None
    together: list[Any] = []
    sizes = batch_size(first, strict=False), batch_size(second, strict=False)
    for (_, a), (_, b) in zip(one, two):
        if isinstance(a, (Tensor, np.ndarray)) and a.ndim > 0:
            if type(a) is not type(b) or a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
                return None
            try:
                pair: Any = a, b
                together.append(torch.cat(pair) if isinstance(a, Tensor) else np.concatenate(pair))
            except (RuntimeError, NotImplementedError):  # compressed sparse rows
                return None
        else:
            values = isinstance(a, (list, tuple)) and type(a) is type(b) and (len(a), len(b)) == sizes
            together.append(a + b if values else a)
    parts = iter(together)
    return mapped(first, lambda leaf: next(parts))
