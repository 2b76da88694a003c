"""Finds KANs of the size of given MLPs: hidden widths with as many parameters, or as many operations. No torch.

"A fairer comparison" (Yu, Yu & Wang 2024) gives both networks the same budget; the paper's models do not. Which MLPs
there are is told by `Slot`-like objects, as `kansciml.models.base.VisionConfig.slots` returns them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from kansciml._errors import UsageError, unknown_name
from kansciml.analysis import cost

MEASURES = ("params", "flops")
IMAGES = 64
"""Images per step in the counts of operations: what a KAN layer does once per step is shared among them."""
TOLERANCE = 0.1
"""Largest relative difference of the slots' sums that still counts as a match."""


class Slot(Protocol):
    """What `kansciml.models.base.Slot` offers; its fields are described there."""

    @property
    def name(self) -> str: ...

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def rows(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def lost(self) -> int: ...


def mlp_size(slot: Slot, by: str) -> float:
    """Parameters, or forward FLOPs per image, of one MLP of the slot, with the parameters that its KAN form drops.

    Activations between the layers count as SiLUs do (`kansciml.analysis.cost`); there is none after the last.
    """
    _measure(by)
    pairs = list(zip(slot.widths[:-1], slot.widths[1:]))
    layers = [cost.linear_layer(cost.Sizes(n_in, n_out, slot.rows * IMAGES)) for n_in, n_out in pairs]
    if by == "params":
        return sum(layer.parameters for layer in layers) + slot.lost
    return sum(layer.forward_flops for layer in layers) / IMAGES - cost.SILU_FORWARD * slot.rows * slot.widths[-1]


def kan_size(
    widths: Sequence[int],
    rows: int,
    layer: str,
    by: str,
    grid: int = 5,
    spline_order: int = 3,
    bias: bool = False,
    normalised: bool = True,
    pixels: int | None = None,
) -> float:
    """Parameters, or forward FLOPs per image, of a KAN applied `rows` times per image.

    `normalised`: RSWAF layers begin with a LayerNorm where `kansciml.RSWAFKAN` does by default; else none does.
    `pixels`: of a depthwise convolution, where its splines are evaluated; its inputs are the taps of the kernel.

    Raises:
        UsageError: an unknown measure or layer; sizes for which there is no formula.
    """
    _measure(by)
    if layer not in ("spline", "rswaf"):
        raise unknown_name("KAN layer", layer, ("spline", "rswaf"))
    if layer == "rswaf" and grid != cost.RSWAF_POINTS:
        raise UsageError(f"got {grid} RSWAF grid points: expected {cost.RSWAF_POINTS} where sizes are to be counted")
    total = 0.0
    for n_in, n_out in zip(widths[:-1], widths[1:]):
        if layer == "spline" and pixels is not None:
            found = cost.kan_conv_layer(
                cost.ConvSizes(1, n_out, n_in, pixels, rows, IMAGES, grid=grid, spline_order=spline_order)
            )
        elif layer == "spline":
            found = cost.spline_layer(cost.Sizes(n_in, n_out, rows * IMAGES, grid, spline_order))
        else:
            normed = normalised and n_in >= cost.RSWAF_NORMALISED
            found = cost.rswaf_layer(cost.Sizes(n_in, n_out, rows * IMAGES), normed)
        if by == "params":
            total += found.parameters + bias * n_out
        else:
            total += found.forward_flops / IMAGES + bias * rows * n_out
    return total


def pass_flops(model: str, widths: Sequence[int], grid: int = 5, spline_order: int = 3) -> tuple[float, float]:
    """FLOPs of a forward and of a backward pass of an MLP (``"mlp"``) or a spline KAN at one input, counted as by
    `mlp_size` and `kan_size`."""
    sizes = [cost.Sizes(n_in, n_out, IMAGES, grid, spline_order) for n_in, n_out in zip(widths[:-1], widths[1:])]
    layers = [cost.linear_layer(one) if model == "mlp" else cost.spline_layer(one) for one in sizes]
    last = widths[-1] if model == "mlp" else 0  # there is no activation after the last layer
    forward = sum(layer.forward_flops for layer in layers) / IMAGES - cost.SILU_FORWARD * last
    return forward, sum(layer.backward_flops for layer in layers) / IMAGES - cost.SILU_BACKWARD * last


def matched_hidden(
    slots: Sequence[Slot], layer: str, by: str, direct: Collection[str] = (), **options: Any
) -> tuple[int, ...]:
    """Hidden width of every slot's KAN such that all KANs together are as large as all MLPs.

    The size is linear in a hidden width, from 3 on, so each follows from two values. Slots with the coarsest steps come
    first; what rounding leaves over is made up for by the next.

    Args:
        slots: the MLPs.
        layer, by: ``spline`` or ``rswaf``; ``params`` or ``flops`` (forward).
        direct: names of slots whose KAN is a single layer, without a hidden width: the others make up for its size.
            There has to be one that is not direct.
        options: ``grid``, ``spline_order`` and ``bias`` of the KANs.

    Raises:
        UsageError: unknown names, or no widths come within 10 %.
    """

    def kan(slot: Slot, widths: Sequence[int]) -> float:
        return kan_size(widths, slot.rows, layer, by, **_kind(slot), **options) * slot.count

    def size(slot: Slot, hidden: int) -> float:
        return kan(slot, (slot.widths[0], hidden, slot.widths[-1]))

    def step(slot: Slot) -> float:
        return size(slot, base + 1) - size(slot, base)

    base = cost.RSWAF_NORMALISED  # below it the size is not on the line
    wanted = sum(mlp_size(slot, by) * slot.count for slot in slots)
    found: dict[int, int] = {}
    left = 0.0
    for slot in slots:
        if slot.name in direct:
            left += mlp_size(slot, by) * slot.count
            left -= kan(slot, (slot.widths[0], slot.widths[-1]))
    free = [index for index, slot in enumerate(slots) if slot.name not in direct]
    for index in sorted(free, key=lambda index: -step(slots[index])):
        slot = slots[index]
        left += mlp_size(slot, by) * slot.count
        found[index] = max(1, round((left - size(slot, base)) / step(slot)) + base)
        left -= size(slot, found[index])
    if abs(left) > TOLERANCE * wanted:
        what = "parameters" if by == "params" else "operations"
        raise UsageError(
            f"no hidden width gives {layer} KANs as many {what} as the MLPs ({100 * -left / wanted:+.0f} % at best):"
            " choose a smaller grid, or compare without matching"
        )
    return tuple(found[index] for index in free)


def matched(config: Any, by: str) -> Any:
    """The configuration with `kan_hidden` such that its KANs are as large as the MLPs in whose place they stand.

    Args:
        config: a `kansciml.models.base.VariantConfig` of a KAN variant.
        by: ``params`` or ``flops`` (of a forward pass).

    Raises:
        UsageError: an MLP variant, KANs added beside what they would have to match, or as in `matched_hidden`.
    """
    _measure(by)
    if config.kan_layer is None:
        raise UsageError(f"got variant {config.variant!r} to match: expected a KAN variant")
    if config.keeps_mlps:
        raise UsageError("got KANs beside what they are to match: expected them in its place (placement 'replace')")
    hidden = matched_hidden(config.slots(), config.kan_layer, by, tuple(config.SINGLE_LAYER), **_options(config))
    return dataclasses.replace(config, kan_hidden=hidden)


def mixing_size(config: Any, by: str) -> float | None:
    """Parameters, or forward FLOPs per sample, of the MLPs of a `kansciml.models.base.VariantConfig`, or of its KANs
    and what stands beside them; None without a formula (see `kan_size`)."""
    total = 0.0
    try:
        for place, slot in enumerate(config.slots()):
            if config.kan_layer is None or config.keeps_mlps:
                total += (mlp_size(slot, by) - (slot.lost if by == "params" else 0)) * slot.count
            if config.kan_layer is not None:
                how = {**_options(config), **_kind(slot)}
                total += kan_size(config.kan_widths()[place], slot.rows, config.kan_layer, by, **how) * slot.count
    except UsageError:  # other grids or orders than those that are counted
        return None
    return total


def _kind(slot: Slot) -> dict[str, Any]:
    """What not every kind of slot has to say."""
    return {"normalised": getattr(slot, "normalised", True), "pixels": getattr(slot, "pixels", None)}


def _options(config: Any) -> dict[str, Any]:
    return {"grid": config.kan_grid, "spline_order": config.spline_order, "bias": config.fair}


def _measure(by: str) -> None:
    if by not in MEASURES:
        raise unknown_name("measure to match", by, MEASURES)
