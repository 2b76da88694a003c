"""Sizes of the networks of `kansciml.models.regressors.regressor`, and the widest ones within a budget. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kansciml._errors import UsageError
from kansciml.analysis import cost
from kansciml.analysis.matching import kan_size, mlp_size


@dataclass(frozen=True)
class _Stack:
    """An MLP as `mlp_size` takes it."""

    widths: tuple[int, ...]
    name: str = "regressor"
    rows: int = 1
    count: int = 1
    lost: int = 0


def regressor_size(model: str, widths: Sequence[int], by: str, grid: int = 5, spline_order: int = 3) -> float:
    """Parameters, or FLOPs of one evaluation at one point, of a network (`kansciml.analysis.cost`).

    Args:
        model: ``mlp``, ``kan`` or ``spline-mlp``. by: ``params`` or ``flops``.

    Raises:
        UsageError: an unknown measure, or sizes below 1.
    """
    if model == "kan":
        return kan_size(widths, 1, "spline", by, grid, spline_order)
    found = mlp_size(_Stack(tuple(widths)), by)
    if model == "mlp":
        return found
    # in place of each SiLU: its factor and the coefficients, or SiLU, splines, and their products and sum
    splines = grid + spline_order
    each = splines + 1 if by == "params" else cost.basis_forward(grid, spline_order) + 2 * (splines + 1)
    return found + each * sum(widths[1:-1])


def widest(
    inputs: int, hidden_layers: int, size: Callable[[tuple[int, ...]], float], limit: float, what: str = "parameters"
) -> tuple[int, ...]:
    """Widths from `inputs` to 1, with equal hidden layers as wide as a limit allows.

    Args:
        size: of a network of given widths, such as its `regressor_size`; it grows with them.
        limit: largest size. what: its unit, for messages.

    Raises:
        UsageError: even hidden layers of width 1 are larger than that.
    """

    def widths(hidden: int) -> tuple[int, ...]:
        return (inputs, *(hidden,) * hidden_layers, 1)

    def fits(hidden: int) -> bool:
        return size(widths(hidden)) <= limit

    if not fits(1):
        raise UsageError(
            f"no network of {inputs} inputs has at most {limit:g} {what}: the smallest with {hidden_layers} hidden"
            f" layers has {size(widths(1)):g}; allow more, or take a smaller grid"
        )
    hidden = 1
    while fits(2 * hidden):
        hidden *= 2
    step = hidden // 2
    while step:
        hidden, step = (hidden + step if fits(hidden + step) else hidden), step // 2
    return widths(hidden)
