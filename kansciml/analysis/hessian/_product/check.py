"""Checks that a loss depends on parameters and data alone, is a mean over samples, and has a true Hessian."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from kansciml._errors import KansciError, UsageError
from kansciml.analysis.hessian._product.batches import Batches, batch_size, joined
from kansciml.analysis.hessian._product.loss import GradientGraph, Loss, evaluate, precision, suspects
from kansciml.analysis.hessian._product.parameters import FlatParameters


def _culprits(module: nn.Module, buffers: list[str]) -> list[str]:
    """Submodules that draw random numbers or change their buffers in the mode they are in, with their names."""
    owners = {name.rpartition(".")[0] for name in buffers}
    return [
        f"{name or 'the module'} ({type(part).__name__}, {'train' if part.training else 'eval'} mode)"
        for name, part in module.named_modules()
        if _draws(part) or name in owners
    ]


def _draws(part: nn.Module) -> bool:
    if not part.training:
        return False
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)):
        return part.dropout > 0
    return isinstance(part, nn.RReLU) or (isinstance(part, _NormBase) and part.track_running_stats)


def compare(module: nn.Module, first: Tensor, second: Tensor, scale: float, changed: list[str]) -> None:
    """Two evaluations of the gradient must agree to rounding, and no buffer may have changed. Overwrites `second`.

    Args:
        module: whose loss it is.
        first, second: the gradients.
        scale: mean of the batches' gradient norms: what rounding is relative to, at a minimum too.
        changed: names of the buffers that changed.

    Raises:
        KansciError: they do not agree: what changed, where, and the remedy.
    """
    difference = float(torch.linalg.vector_norm(second.sub_(first))) / max(scale, 1e-300)
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point() or p.is_complex()}
    # half the digits of the narrowest parameter: far above rounding, far below what randomness does
    agrees = difference <= max(torch.finfo(kind).eps for kind in kinds) ** 0.5  # NaN does not
    if agrees and not changed:
        return
    what = [] if agrees else [f"its gradient changed by {difference:.1e} (relative)"]
    what += [f"it changed {_some(changed)}"] if changed else []
    found = _culprits(module, changed)
    if found:
        blame = f"because of {_some(found)}; call module.eval() on it"
    else:
        blame = (
            "and no module draws random numbers: look for a random operation in the loss or the data set (dropout as a"
            " function, augmentation, a shuffled loader with drop_last), and fix its seed"
        )
    raise KansciError(
        f"the loss is not a function of the parameters alone: evaluated twice, {' and '.join(what)}, {blame}."
        " check=False skips this check"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


class _Piece(NamedTuple):
    """Samples, their weight in the mean, and their loss."""

    batch: Any
    weight: float
    loss: float


class MeanCheck:
    """Whether the mean over the batches, or over the parts of one, is the loss of all their samples together.

    Every micro-batch is compared with its two halves, and the last half of each together with the first half of the
    next one with the two apart: only if all agree has each sample the same weight. Sums, class weights, ignored
    labels, masks and statistics over the batch do not. Products with the Hessian tell instead where there is nothing
    but rounding errors, or where all losses are equal, which any weights would give (a last layer of zeros).
    """

    ALIKE = 4
    """Comparisons without an answer that are kept, at most, until one has an answer."""

    def __init__(self, loss: Loss, module: nn.Module, flat: FlatParameters, batches: Batches, eps: float) -> None:
        self.loss, self.module, self.flat, self.batches, self.eps = loss, module, flat, batches, eps
        self._alike: list[tuple[Any, _Piece, _Piece]] | None = []
        self._differentiates = False
        """The loss takes gradients itself, as those of differential equations do."""

    def run(self, shared: bool) -> None:
        """On all batches of this process; with a single one there is nothing to average, unless `shared`: other
        processes have more.

        Raises:
            UsageError: the loss is no such mean, or cannot be taken of half a batch.
        """
        if self.batches.count is not None and self.batches.micro_batch is None:
            return  # the caller says what each loss is the mean over
        waiting: list[tuple[Any, float]] = []
        last: _Piece | None = None
        for part in self.batches:
            waiting.append(part)
            if shared or len(waiting) > 1:
                for batch, weight in waiting:
                    last = self._halves(batch, weight, last)
                waiting, shared = [], True
        for pieces in self._alike or ():
            self._compare_products(*pieces)

    def _halves(self, batch: Any, weight: float, previous: _Piece | None) -> _Piece | None:
        """Compare a batch with its halves, and its first half with the last one before; returns its last half."""
        size = batch_size(batch, strict=False) or 1
        halves = self.batches.cut(batch, -(-size // 2), weight) if size > 1 else [(batch, weight)]
        try:
            parts = [_Piece(part, own, self._value(part)) for part, own in halves]
        except Exception as error:
            reason = " ".join([type(error).__name__ + ":", *str(error).splitlines()[:1]])
            raise UsageError(
                f"the loss cannot be taken of half a batch ({reason}), so that it may be no mean over samples:"
                f" {self._remedy}"
            ) from error
        if len(parts) == 2:
            self._compare(batch, self._value(batch), *parts)
        if previous is not None and parts:
            both = joined(previous.batch, parts[0].batch)
            if both is None:
                raise UsageError(
                    "got batches whose samples differ in shape, so that it cannot be tried whether the loss weighs them"
                    f" alike (a mean over padded tokens does not): {self._remedy}"
                )
            together = None
            with contextlib.suppress(Exception):  # samples of two batches need not fit together
                together = self._value(both)
            if together is not None:
                self._compare(both, together, previous, parts[0])
        return parts[-1] if parts else previous

    def _compare(self, batch: Any, whole: float, first: _Piece, second: _Piece) -> None:
        mean = (first.weight * first.loss + second.weight * second.loss) / (first.weight + second.weight)
        allowed = self.eps**0.5 * max(abs(whole), abs(first.loss), abs(second.loss))
        if not abs(whole - mean) <= allowed:
            told = f"is {whole:.6g} and the mean over its two parts {mean:.6g}"
            self._compare_products(batch, first, second, told)
        elif abs(first.loss - second.loss) > 10 * allowed:
            self._alike = None
        elif self._alike is not None and len(self._alike) < self.ALIKE:
            self._alike.append((batch, first, second))

    def _compare_products(self, batch: Any, first: _Piece, second: _Piece, told: str = "") -> None:
        """Refuse unless products agree, `told` saying how the losses did not."""
        expected = self._product(first.batch).mul_(first.weight)
        expected.add_(self._product(second.batch), alpha=second.weight).div_(first.weight + second.weight)
        length = float(torch.linalg.vector_norm(expected))
        off = float(torch.linalg.vector_norm(self._product(batch).sub_(expected)))
        if off <= 10 * self.eps**0.5 * length and (length > 0 or not told):
            return
        norms = [name for name, part in self.module.named_modules() if isinstance(part, _BatchNorm)]
        hint = f" ({_some(norms)} may use the batch's statistics)" if norms else ""
        micro = self.batches.micro_batch
        got = "several batches" if micro is None else f"micro_batch {micro}"
        told = told or f"has another Hessian than the mean over its two parts (by {off / max(length, 1e-300):.1e})"
        size = batch_size(batch, strict=False)
        raise UsageError(f"got {got}, but the loss of {size} samples {told}{hint}: {self._remedy}")

    def _value(self, batch: Any) -> float:
        if not self._differentiates:
            with contextlib.suppress(RuntimeError), torch.no_grad():
                return float(evaluate(self.loss, self.module, batch))
        value = float(evaluate(self.loss, self.module, batch).detach())
        self._differentiates = True
        return value

    def _product(self, batch: Any) -> Tensor:
        graph = GradientGraph.of(evaluate(self.loss, self.module, batch), self.flat.tensors)
        return self.flat.joined(graph.product(self.flat.tensors, list(_Draw(self.flat, 0)), False))

    @property
    def _remedy(self) -> str:
        expected = (
            "expected a mean over samples, as with reduction='mean' (no sum, class weights, ignored labels, mask)"
        )
        if self.batches.micro_batch is not None:
            return f"{expected}; or leave micro_batch out"
        return (
            f"{expected}; or give count=, a function of a batch, for what its loss is the mean over; check=False takes"
            " the mean over the batches as they are"
        )


class _Draw:
    """Normal random numbers in the shapes of the parameters, the same at each reading: they need not be held."""

    def __init__(self, flat: FlatParameters, seed: int, scales: Sequence[float] | None = None) -> None:
        self._flat, self._seed, self._scales = flat, seed, scales or [1.0] * len(flat.tensors)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self._seed)
        for p, scale in zip(self._flat.tensors, self._scales):
            wide = torch.promote_types(p.dtype, torch.float32)
            drawn = torch.randn(p.shape, dtype=wide, device="cpu", generator=generator)
            yield drawn.mul_(scale).to(p.device, p.dtype)

    def inner(self, product: Sequence[Tensor | None]) -> float:
        """Real inner product with parts."""
        total = 0.0
        for mine, part in zip(self, product):
            if part is not None:
                wide = torch.promote_types(mine.dtype, torch.float32)
                a, b = (x.detach().to(mine.device, wide).resolve_conj().reshape(-1) for x in (mine, part))
                total += float(torch.vdot(a, b).real)
        return total


def require_symmetric(value: Tensor, flat: FlatParameters) -> None:
    """Two products must agree with each other: u . H v = v . H u for random u and v, as for every true Hessian.

    A double backward pass that is wrong, such as that of PyTorch's fused weight_norm, gives a matrix that is not
    symmetric. u and v are scaled so that each parameter's rows count alike: a fault in a small layer shows too.

    Args:
        value: a loss, with its graph.
        flat: the parameters.

    Raises:
        KansciError: they do not agree, or are not finite.
    """
    # relative: far above what rounding does to products, far below what a wrong term does
    tolerance = min(3 * precision(value) ** (1 / 3), 0.1)
    graph = GradientGraph.of(value, flat.tensors)

    def product(draw: _Draw, keep: bool = True) -> Sequence[Tensor | None]:
        return graph.product(flat.tensors, list(draw), keep)

    lengths = [_length(part) for part in product(_Draw(flat, 0))]
    _require_finite_products(lengths)
    least = 1e-2 * max(lengths)  # rows that are zero but for rounding do not count more
    if least == 0:
        return
    scales = [1 / max(length, least) for length in lengths]
    u, v = _Draw(flat, 1, scales), _Draw(flat, 2, scales)
    found, size = [], 0.0
    for one, other in ((u, v), (v, u)):
        parts = product(one, keep=one is u)
        found.append(other.inner(parts))
        scaled = [s * _length(part) * p.numel() ** 0.5 for s, part, p in zip(scales, parts, flat.tensors)]
        size = max(size, math.hypot(*scaled))
        del parts
    _require_finite_products([size])
    off = abs(found[0] - found[1])
    if off > tolerance * size:
        names = suspects(value)
        blame = f"look at {_some(names)}" if names else "find the operation whose second derivative is wrong"
        raise KansciError(
            f"the Hessian is not symmetric: u . H v and v . H u differ by {off / size:.1e} of its size, so that PyTorch"
            f" differentiates something wrongly the second time; {blame}. check=False skips this check"
        )


def _require_finite_products(lengths: Sequence[float]) -> None:
    if not all(map(math.isfinite, lengths)):
        raise KansciError(
            "a product with the Hessian is not finite: it needs a twice differentiable loss (sqrt or norm at zero, or"
            " overflow?)"
        )


def _length(part: Tensor | None) -> float:
    """Root mean square."""
    if part is None or part.numel() == 0:
        return 0.0
    return float(torch.linalg.vector_norm(part)) / part.numel() ** 0.5


def require_finite(gradient: dict[str, Tensor]) -> None:
    """Refuse NaN or infinite entries by a KansciError with the names of the parameters."""
    bad = [name for name, part in gradient.items() if not bool(torch.isfinite(part).all())]
    if bad:
        raise KansciError(
            f"the gradient is not finite in {_some(bad)}: a Hessian needs a twice differentiable loss (sqrt or norm at"
            " zero, or overflow?)"
        )
