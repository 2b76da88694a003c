"""``kansciml bench vision --device cuda``: training steps of image classifiers on a GPU: steps/s and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks._cuda.device import chosen_device, facts, first_line, in_turns, peak_bytes
from kansciml.benchmarks._layer_cases import CPP
from kansciml.layers._kernels._triton import library
from kansciml.layers.spline_kan import set_backend
from kansciml.runs.progress import Progress
from kansciml.runs.tables import Table

TRITON = "SplineKAN, Triton"
KINDS = ("float32", "bfloat16")
"""The second by autocast, with weights in float32."""
COLUMNS = {
    "dtype": "type",
    "layer": "layers",
    "parameters": "parameters",
    "steps_per_s": "steps/s",
    "images_per_s": "images/s",
    "step_over_mlp": "step, x MLP",
    "step_over_textbook": "x textbook",
    "peak_bytes": "peak [MB]",
    "peak_over_mlp": "x MLP",
    "peak_over_textbook": "x textbook",
}


def run(
    models: Sequence[str],
    image_size: int,
    batch_size: int,
    rounds: int,
    loss: Callable[[Any, int], Callable[[nn.Module], Tensor]],
    rehearse: bool,
) -> tuple[dict[str, Any], list[Table]]:
    """Measure on this machine's GPU; returns the JSON document and the tables.

    Args:
        loss: makes the loss of one batch, on a device, from a network's configuration and `batch_size`.

    Raises:
        KansciError: there is no CUDA device, and it is no rehearsal.
    """
    device = chosen_device(rehearse)
    about = facts(device)
    document: dict[str, Any] = {"machine": {**measuring.facts(), "device": about, "triton": library.reason()}}
    document |= {"image_size": image_size, "batch_size": batch_size, "rounds": rounds, "results": []}
    tables = []
    with Progress() as progress, progress.task("bench vision", len(models) * len(KINDS)) as task:
        for model in models:
            rows: list[dict[str, Any]] = []
            for kind in KINDS:
                task.update(advance=0, now=f"{model} {kind}")
                rows += measure_model(model, kind, device, image_size, batch_size, rounds, loss)
                task.update(advance=1)
            document["results"].append({"model": model, "rows": rows})
            title = f"A training step of {model}, {batch_size} images of {image_size} x {image_size}, {about['name']}"
            notes = [
                "Forward, cross-entropy, backward, AdamW; by the device's clock, medians of interleaved rounds."
                " bfloat16 by autocast.",
                "Peak: of forward and backward pass, gradients counted; weights, AdamW's state and images not.",
            ]
            tables.append(measuring.table_of(title, rows, COLUMNS, notes))
    return document, tables


def measure_model(
    model: str,
    kind: str,
    device: torch.device,
    image_size: int,
    batch_size: int,
    rounds: int,
    loss: Callable[[Any, int], Callable[[nn.Module], Tensor]],
) -> list[dict[str, Any]]:
    """Rows of one model and type; layers that fail have a row with their ``error``."""
    ready: dict[str, steps.Case] = {}
    rows: list[dict[str, Any]] = []
    for name in (*(one for one in steps.VARIANTS if one != CPP), TRITON):
        try:
            case = _case(model, name, kind, device, image_size, batch_size, loss)
            case.step()
        except Exception as error:  # too little memory, or no Triton: the others are measured all the same
            rows.append({"dtype": kind, "layer": name, "error": f"{name}: {first_line(error)}"})
        else:
            ready[name] = case
    taken = in_turns({name: case.step for name, case in ready.items()}, rounds, device, 1)
    measured: list[dict[str, Any]] = []
    for name, case in ready.items():
        case.optimiser.zero_grad()
        step_s = float(np.median(taken[name])) / 1e3
        row = {
            "dtype": kind,
            "layer": name,
            "parameters": sum(p.numel() for p in case.network.parameters()),
            "step_ms": 1e3 * step_s,
            "steps_per_s": 1 / step_s,
            "images_per_s": batch_size / step_s,
            "peak_bytes": peak_bytes(case.gradient, device),
        }
        case.optimiser.zero_grad()
        for key, other in steps.REFERRED.items():
            row[f"step_over_{key}"] = measuring.ratio(taken[name], taken[other]) if other in ready else None
        measured.append(row)
    for key, other in steps.REFERRED.items():
        base = steps.row_of(measured, other).get("peak_bytes")
        for row in measured:
            row[f"peak_over_{key}"] = row["peak_bytes"] / base if base else None
    return measured + rows


def _case(
    model: str,
    name: str,
    kind: str,
    device: torch.device,
    image_size: int,
    batch_size: int,
    make_loss: Callable[[Any, int], Callable[[nn.Module], Tensor]],
) -> steps.Case:
    network = steps.build(model, steps.TORCH if name == TRITON else name, image_size=image_size).to(device)
    if name == TRITON:
        set_backend(network, "triton")
    with torch.device(device):
        loss = make_loss(steps.config_of(network), batch_size)

    def narrow(module: nn.Module) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            return loss(module)

    return steps.Case(network, narrow)
