"""Turns chosen parameters of a module into one flat real vector and back; complex ones count as pairs of reals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kansciml._errors import UsageError, unknown_name

Selection = Callable[[str, nn.Parameter], bool] | Iterable[str] | str | None


@dataclass(frozen=True)
class FlatParameters:
    """Names, tensors and places of the parameters in a flat vector, in the order of `named_parameters`."""

    names: tuple[str, ...]
    tensors: tuple[nn.Parameter, ...]

    @classmethod
    def select(cls, module: nn.Module, wanted: Selection) -> FlatParameters:
        """The trainable parameters that `wanted` names (itself or a submodule of it) or, called, says yes to."""
        everything = dict(module.named_parameters())
        trainable = {name: p for name, p in everything.items() if p.requires_grad}
        if not trainable:
            raise UsageError(
                f"got a {type(module).__name__} without trainable parameters: expected at least one with requires_grad"
            )
        if wanted is None:
            chosen = trainable
        elif callable(wanted):
            chosen = {name: p for name, p in trainable.items() if wanted(name, p)}
        else:
            parts = [wanted] if isinstance(wanted, str) else list(wanted)
            for part in parts:
                if part in everything and part not in trainable:
                    raise UsageError(f"parameter {part!r} is frozen: call requires_grad_() on it, or leave it out")
                if not any(_within(name, part) for name in everything):
                    raise unknown_name("parameter", part, everything)
            chosen = {name: p for name, p in trainable.items() if any(_within(name, part) for part in parts)}
        if not chosen:
            raise UsageError(f"no trainable parameter was chosen: expected some of {', '.join(trainable)}")
        return cls(tuple(chosen), tuple(chosen.values()))

    @functools.cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First and last place (exclusive) of each parameter in the flat vector."""
        found, start = [], 0
        for p in self.tensors:
            size = p.numel() * (2 if p.is_complex() else 1)
            found.append((start, start + size))
            start += size
        return tuple(found)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return self.bounds[-1][1]

    @property
    def bytes(self) -> int:
        """Of one flat vector."""
        return self.size * torch.empty(0, dtype=self.dtype).element_size()

    @property
    def dtype(self) -> torch.dtype:
        """Widest real dtype of the parameters, float32 at least."""
        return functools.reduce(torch.promote_types, (p.dtype.to_real() for p in self.tensors), torch.float32)

    @property
    def device(self) -> torch.device:
        return self.tensors[0].device

    def zeros(self, columns: int | None = None) -> Tensor:
        """(n,), or (columns, n): columns apart in memory, so that each is contiguous."""
        shape = (self.size,) if columns is None else (columns, self.size)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Parts of a flat vector (n,) by name, in the shapes of the parameters; real ones are views where they can."""
        return dict(zip(self.names, self.parts(vector)))

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Parts of a flat vector as `autograd.grad` takes them: shape, dtype and device of each parameter."""
        found = []
        for p, (start, end) in zip(self.tensors, self.bounds):
            part = vector[start:end].to(p.device, p.dtype.to_real())
            if p.is_complex():
                # a copy: its offset must be even to be read as complex numbers
                found.append(torch.view_as_complex(part.reshape(*p.shape, 2).clone()))
            else:
                found.append(part.reshape(p.shape))
        return found

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """The flat vector of parts by name, the inverse of `split`; a UsageError where they do not fit."""
        for name in values:
            if name not in self.names:
                raise unknown_name("parameter", name, self.names)
        flat = self.zeros()
        for name, p, (start, end) in zip(self.names, self.tensors, self.bounds):
            if name not in values:
                raise UsageError(f"got no part for parameter {name!r}: expected one for each of the {len(self.names)}")
            part = values[name]
            if part.shape != p.shape:
                raise UsageError(f"got {name!r} of shape {tuple(part.shape)}: expected {tuple(p.shape)}")
            part = part.detach().to(p.dtype)
            flat[start:end] = (torch.view_as_real(part.resolve_conj()) if p.is_complex() else part).reshape(-1)
        return flat

    def add_to(self, total: Tensor, parts: Sequence[Tensor | None], factor: float) -> None:
        """total += factor * parts, in place, without a flat copy of the parts; None counts as zero."""
        for part, (start, end) in zip(parts, self.bounds):
            if part is None:
                continue
            part = part.detach()
            if part.is_complex():
                part = torch.view_as_real(part.resolve_conj())
            total[start:end].view(part.shape).add_(part.to(total.device), alpha=factor)

    def joined(self, parts: Sequence[Tensor | None]) -> Tensor:
        """The flat vector of parts; None counts as zero."""
        wanted = self.dtype, self.device
        own = [part.detach().reshape(-1) for part in parts if part is not None and (part.dtype, part.device) == wanted]
        if len(own) == len(parts):
            return torch.cat(own)
        total = self.zeros()
        self.add_to(total, parts, 1.0)
        return total

    def versions(self) -> tuple[tuple[int, int], ...]:
        """What changes when a parameter is written to or replaced."""
        return tuple((p._version, p.data_ptr()) for p in self.tensors)


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")
