"""Takes the size of the weights out of the Hessian: D H D is the curvature for relative changes of weights.

In a ReLU network one layer can be multiplied by a > 0 and the next divided by it: the function stays, the Hessian does
not (Dinh et al. 2017). With D as below the eigenvalues of D H D stay too, for D follows the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import UsageError, unknown_name

KAN_FILTERS = ("output", "edge")


class Named(Protocol):
    """What a `HessianOperator` offers: its parameters' names, and the flat vector of parts by name."""

    names: tuple[str, ...]

    def join(self, parts: Mapping[str, Tensor]) -> Float[Tensor, " n"]: ...


def adaptive_scale(operator: Named, module: nn.Module) -> Float[Tensor, " n"]:
    """Diagonal |w| of T_w, elementwise: T_w H T_w is the Hessian of the adaptive sharpness (Kwon et al. 2021, ASAM).

    The two halves of a complex weight both get its modulus. A weight that is zero takes no part (ASAM's constant eta,
    which is added to |w| and would break the invariance, is 0 here).

    Raises:
        UsageError: a module without the operator's parameters.
    """
    return _flat(operator, {name: p.detach().abs() for name, p in _chosen(operator, module).items()}, module)


def filter_scale(
    operator: Named, module: nn.Module, *, kan_filters: str = "output", axes: Mapping[str, int] | None = None
) -> Float[Tensor, " n"]:
    """Diagonal of norms of filters, each weight having that of its own (filter normalisation, Li et al. 2018).

    A filter is what feeds one output through one tensor: a row of a Linear's weight, an output channel of a
    convolution, and of a spline KAN layer with weights (I, P, O) or (I, O) all that belongs to one o. Parameters with
    one axis or none (biases, norm layers) are filters of one element: a bias and its row scale alike in the first layer
    of a ReLU network, but not in the others, so that a norm over both would not be invariant.

    Args:
        operator, module: a `HessianOperator` and its module, which holds the weights.
        kan_filters: of spline weights (I, P, O): ``"output"`` (default; the same unit as in an MLP), or ``"edge"``: the
            P coefficients of one edge, and each entry of (I, O) by itself, which is invariant also where an edge's
            coefficients are multiplied and its scale divided by a number.
        axes: output axis of parameters by name, where it is not the first (spline layers and transposed convolutions
            are known).

    Raises:
        UsageError: unknown `kan_filters`, a name in `axes` that is no parameter, an axis it does not have, or a module
            without the operator's parameters.
    """
    if kan_filters not in KAN_FILTERS:
        raise unknown_name("kan_filters", kan_filters, KAN_FILTERS)
    chosen, axes = _chosen(operator, module), dict(axes or {})
    for name, axis in axes.items():
        if name not in chosen:
            raise unknown_name("parameter", name, chosen)
        if not -chosen[name].dim() <= axis < chosen[name].dim():
            raise UsageError(f"got axis {axis} for {name} of shape {tuple(chosen[name].shape)}: it has no such axis")
    splines, transposed = _owners(module)
    convolved = {
        f"{prefix}.{name}" if prefix else name: part
        for prefix, part in module.named_modules()
        if hasattr(part, "by_output")  # KANConv2d
        for name in ("base_weight", "spline_weight", "spline_scale")
    }
    found = {}
    for name, parameter in chosen.items():
        size = parameter.detach().abs()
        if name in convolved and name not in axes:
            found[name] = _of_filters(size, convolved[name], kan_filters)
            continue
        if name in axes:
            kept: tuple[int, ...] = (axes[name] % size.dim(),)
        elif name in splines:
            kept = (size.dim() - 1,) if kan_filters == "output" else (0, size.dim() - 1)
        else:
            kept = (1,) if name in transposed else (0,)
        over = [axis for axis in range(size.dim()) if axis not in kept]
        single = size.dim() < 2 or not over
        found[name] = size if single else torch.linalg.vector_norm(size, dim=over, keepdim=True).expand_as(size)
    return _flat(operator, found, module)


def _of_filters(size: Tensor, layer: Any, kan_filters: str) -> Tensor:
    """Norms over what feeds one output channel of a KAN convolution, or over one edge's coefficients."""
    if kan_filters == "edge":
        return size if size.dim() == 2 else torch.linalg.vector_norm(size, dim=1, keepdim=True).expand_as(size)
    own = layer.by_output(size)
    return torch.linalg.vector_norm(own, dim=(1, 2, 4), keepdim=True).expand_as(own).reshape(size.shape)


def _chosen(operator: Named, module: nn.Module) -> dict[str, nn.Parameter]:
    everything = dict(module.named_parameters())
    for name in operator.names:
        if name not in everything:
            raise unknown_name("parameter", name, everything)
    return {name: everything[name] for name in operator.names}


def _flat(operator: Named, sizes: Mapping[str, Tensor], module: nn.Module) -> Tensor:
    """Sizes >= 0 by parameter as the operator's flat vector."""
    chosen = _chosen(operator, module)
    parts = {
        name: torch.complex(size, size) if chosen[name].is_complex() else size.contiguous()
        for name, size in sizes.items()
    }
    return operator.join(parts)


def _owners(module: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the weights whose last axis is the output (spline layers), and of those of transposed convolutions."""
    splines: set[str] = set()
    transposed: set[str] = set()
    for prefix, part in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        weight = getattr(part, "spline_weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 3 and weight.shape[-1] == getattr(part, "out_features", None):
            inputs_first = weight.shape[0] == getattr(part, "in_features", None)
            if inputs_first:
                splines |= {dot + name for name in ("base_weight", "spline_weight", "spline_scale")}
        if isinstance(part, nn.modules.conv._ConvTransposeNd):
            transposed.add(f"{dot}weight")
    return splines, transposed
