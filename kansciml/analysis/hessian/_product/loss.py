"""Evaluates a loss of a module on a batch: its gradient, the gradient's graph, and products through that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from kansciml._errors import KansciError, UsageError

Loss = Callable[[nn.Module, Any], Tensor]

_EDGES = "GradientEdge" in str(torch.autograd.grad.__annotations__.get("outputs"))
_ONCE_ONLY = ("not implemented", "not differentiable", "once_differentiable", "double backward", "sparse")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def supervised(criterion: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss ``criterion(module(x), y)`` of batches ``(x, y)``, such as ``supervised(nn.CrossEntropyLoss())``.

    `criterion` must be the mean over the samples.
    """

    def loss(module: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f"{type(batch).__name__} of length {len(batch)}" if hasattr(batch, "__len__") else repr(batch)
            raise UsageError(
                f"got a batch that is a {got}: expected (x, y); give one batch as a tuple, many as a list of tuples"
            )
        return criterion(module(batch[0]), batch[1])

    return loss


def evaluate(loss: Loss, module: nn.Module, batch: Any) -> Tensor:
    """The loss, a finite real scalar that depends on parameters.

    Raises:
        UsageError: it is no real scalar, or does not depend on a parameter that counts.
        KansciError: it is NaN or infinite.
    """
    with explained(derivative=False):
        value = loss(module, batch)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        got = f"shape {tuple(value.shape)} and {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"got a loss of {got}: expected a real scalar tensor, the mean over the batch")
    if not bool(torch.isfinite(value)):
        number = float(value.detach())
        raise KansciError(f"the loss is {number}: a Hessian needs a finite one; check the parameters and the data")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise UsageError(
            "the loss does not depend on any of the chosen parameters: compute it from module(...), without detach(),"
            " item() or no_grad()"
        )
    return value.reshape(())


def gradients(value: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """d value / d parameters, None where a parameter is not used.

    Raises:
        UsageError: no parameter is used at all.
        KansciError: something in the loss cannot be differentiated, or gradients are sparse.
    """
    return _gradients(value, parameters, graph=False)


@dataclass(frozen=True)
class GradientGraph:
    """The graph of gradients: where to enter it for each parameter, None where no second derivative exists.

    Entries are edges where PyTorch has them (2.5), so that the gradients themselves need not be held.
    """

    entries: tuple[Tensor | GradientEdge | None, ...]

    @classmethod
    def of(cls, value: Tensor, parameters: Sequence[Tensor]) -> GradientGraph:
        """Of a loss. Raises as `gradients` does."""
        found = _gradients(value, parameters, graph=True)
        enter = get_gradient_edge if _EDGES else (lambda gradient: gradient)
        return cls(tuple(enter(g) if g is not None and g.requires_grad else None for g in found))

    def product(self, parameters: Sequence[Tensor], vector: Sequence[Tensor], keep: bool) -> Sequence[Tensor | None]:
        """Reverse over reverse: d <gradients, vector> / d parameters by one backward pass; `keep` keeps the graph."""
        pairs = [(entry, part) for entry, part in zip(self.entries, vector) if entry is not None]
        if not pairs:  # linear in every parameter
            return [None] * len(parameters)
        outputs, cotangents = zip(*pairs)
        with explained():
            return torch.autograd.grad(outputs, parameters, cotangents, retain_graph=keep, allow_unused=True)


def _gradients(value: Tensor, parameters: Sequence[Tensor], graph: bool) -> tuple[Tensor | None, ...]:
    with explained():
        found = torch.autograd.grad(value, parameters, create_graph=graph, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise UsageError("the loss does not depend on any of the chosen parameters: choose others")
    if any(gradient is not None and gradient.layout != torch.strided for gradient in found):
        raise KansciError("the loss cannot be differentiated twice: sparse gradients; set sparse=False (nn.Embedding)")
    return found


def nodes(value: Tensor) -> Iterator[Any]:
    """All nodes of a tensor's graph."""
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            yield node


def precision(value: Tensor) -> float:
    """Machine epsilon of the narrowest floating-point numbers in a tensor's graph, such as those of autocast."""
    kinds = {value.dtype} | {entry.dtype for node in nodes(value) for entry in getattr(node, "_input_metadata", ())}
    return max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point or kind.is_complex)


def require_twice(value: Tensor) -> None:
    """Refuse, by a KansciError, custom functions in the loss's graph that are marked `once_differentiable`.

    Autograd itself stays silent where only some inputs' gradients are asked for: such a node then counts as a constant.
    """
    for node in nodes(value):
        code = getattr(getattr(getattr(node, "_forward_cls", None), "backward", None), "__code__", None)
        if code is not None and code.co_name == "wrapper" and code.co_filename == torch.autograd.function.__file__:
            raise KansciError(
                f"the loss cannot be differentiated twice: {node._forward_cls.__name__} is marked once_differentiable;"
                " replace it by operations that autograd can differentiate"
            )


def custom_functions(value: Tensor) -> list[str]:
    """Names of the custom functions in a loss's graph that are neither PyTorch's nor this package's."""
    found = {node._forward_cls for node in nodes(value) if getattr(node, "_forward_cls", None) is not None}
    return sorted(kind.__name__ for kind in found if kind.__module__.partition(".")[0] not in ("torch", "kansciml"))


def suspects(value: Tensor) -> list[str]:
    """Operations in a loss's graph whose second derivative may be wrong: custom functions, fused weight_norm."""
    names = custom_functions(value)
    if any("WeightNorm" in node.name() for node in nodes(value)):
        names.append("weight_norm (fused in PyTorch; one with dim=None is not)")
    return names


@contextlib.contextmanager
def explained(derivative: bool = True) -> Iterator[None]:
    """Autograd's errors that a user can act on, as one line: of memory, and of a missing derivative."""
    try:
        yield
    except (RuntimeError, NotImplementedError, MemoryError) as error:
        text = str(error).strip().split("\n")[0]
        if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _NO_MEMORY):
            raise KansciError(
                f"a product does not fit into memory ({text}): set micro_batch to fewer samples, or keep_graph=False"
            ) from error
        if derivative and any(sign in text.lower() for sign in _ONCE_ONLY):
            raise KansciError(
                f"the loss cannot be differentiated twice ({text}): replace that operation by one that can"
            ) from error
        raise
