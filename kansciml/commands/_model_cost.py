"""``kansciml cost --model deit-tiny --variant kan-spline``: parameters and operations of a whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.commands._output import JsonFlag, Output, parse

NOTES = (
    "ours: parameters of kansciml's model, all of which the forward pass uses; RSWAF grid points count, as in Table 1.",
    "printed: Table 1 of Pal & Das 2024. dead: parameters that its source builds in every block and never uses.",
    "with dead: ours and the dead ones; what is printed, before rounding.",
    "mixing: learnable ones in the MLPs, or in the KANs in their place; with KANs beside what they augment, in both.",
    "mixing FLOPs: forward, per image; an activation counts as SiLU does in kansciml cost --in.",
)
OPERATOR_NOTES = (
    "ours: real parameters, a complex weight being two; RSWAF grid points count.",
    "as numel: with complex weights counted once, as PyTorch counts them where they are held as complex numbers.",
    "mixing: learnable ones in lift and projection, as MLPs or as KANs. mixing FLOPs: forward, per sample of"
    " resolution^2 points.",
)
COLUMNS = ("variant", "ours", "mixing", "printed", "dead", "with dead", "ours / MLP", "mixing FLOPs", "widths")
KEYS = ("parameters", "mixing_parameters", "printed", "dead", "with_dead", "over_mlp", "mixing_flops", "widths")
OPERATOR_COLUMNS = ("variant", "ours", "as numel", "mixing", "ours / MLP", "mixing FLOPs", "widths")
OPERATOR_KEYS = ("parameters", "numel_with_complex", "mixing_parameters", "over_mlp", "mixing_flops", "widths")
SIZES = ("image_size", "channels", "classes", "patch", "placement", "blocks", "resolution")


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Cost of a whole model."""

    model: str = ""
    """Its name, such as deit-tiny, mixer-nano, conv-mixer-256-8 or fno-wt."""
    variant: str = ""
    """mlp, kan-spline or kan-rswaf (default: all three)."""
    fair: bool = False
    """Give the KANs biases as the MLPs have them."""
    match: str = ""
    """params or flops: hidden widths that make the KANs as large as the MLPs."""
    placement: str = ""
    """Of the KANs in conv-mixer: append, replace or head."""
    image_size: int | None = None
    """Height and width of the images (default: the model's)."""
    channels: int | None = None
    """Channels of the images."""
    classes: int | None = None
    """Number of classes."""
    patch: int | None = None
    """Height and width of a patch."""
    blocks: int | None = None
    """Blocks of a Fourier neural operator."""
    resolution: int | None = None
    """Points per side where the operations of a neural operator are counted."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.models.base import VARIANTS
    from kansciml.models.registry import available_families, find
    from kansciml.runs.tables import Table

    options = parse(Arguments, arguments, "cost")
    model, preset = find(options.model, kind=None)
    operator = model.name in available_families(kind="operator")
    if options.variant and options.variant not in VARIANTS:
        raise unknown_name("variant", options.variant, VARIANTS)
    if options.match and options.variant == "mlp":
        raise UsageError("got --match with --variant mlp: expected a KAN variant, whose size can be matched to it")
    if options.match and operator:
        raise UsageError(f"got --match with {options.model}: expected a vision model")
    chosen = {name: getattr(options, name) for name in SIZES if getattr(options, name) not in (None, "")}
    wanted = [options.variant] if options.variant else list(VARIANTS)
    found = {}
    for variant in dict.fromkeys(["mlp", *wanted]):
        config = model.config(preset, variant, fair=options.fair, **chosen)
        if options.match and variant != "mlp":
            from kansciml.analysis.matching import matched

            config = matched(config, options.match)
        as_published = config == model.config(preset, variant)
        found[variant] = _figures(model, config, model.printed.get((preset, variant)) if as_published else None)
    for figures in found.values():
        figures["over_mlp"] = figures["parameters"] / found["mlp"]["parameters"]
    keys, columns, notes = (OPERATOR_KEYS, OPERATOR_COLUMNS, OPERATOR_NOTES) if operator else (KEYS, COLUMNS, NOTES)
    rows = [[variant, *(found[variant][key] for key in keys)] for variant in wanted]
    for row in rows:
        row[-1] = "; ".join("-".join(map(str, widths)) for widths in row[-1])
    document = {
        "model": options.model,
        "options": {**chosen, "fair": options.fair, "match": options.match or None},
        "variants": {variant: found[variant] for variant in wanted},
        "notes": list(notes),
    }
    title = f"{options.model}: {model.config(preset, **chosen).data}"
    out.result(document, [Table(title, list(columns), rows, notes)])
    return 0


def _figures(model: Any, config: Any, printed: int | None) -> dict[str, Any]:
    from kansciml.analysis.matching import mixing_size

    counts, dead, slots = model.count(config), config.dead_parameters(), config.slots()
    widths = config.kan_widths() if config.kan_layer else [slot.widths for slot in slots]
    return {
        "parameters": counts.active,
        "numel_with_complex": counts.active - config.complex_weights,
        "trainable": counts.trainable,
        "grid_points": counts.grid_points,
        "mixing_parameters": round(mixing_size(config, "params") or 0),
        "mixing_flops": round(mixing_size(config, "flops") or 0),
        "printed": printed,
        "dead": dead,
        "with_dead": counts.active + dead,
        "widths": [list(found) for found in widths],
        "config": dataclasses.asdict(config),
    }
