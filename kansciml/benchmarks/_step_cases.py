"""Training steps of a network in its variants, shared by ``kansciml bench vision`` and ``kansciml bench fno``.

A step is what a training does between two batches: forward pass, loss, backward pass, AdamW.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kansciml._errors import check_names
from kansciml.analysis.memory import MemoryUse, measure
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._layer_cases import CPP, RSWAF, TEXTBOOK, TORCH
from kansciml.benchmarks._measuring import Report, Row
from kansciml.layers.spline_kan import set_backend
from kansciml.layers.textbook_kan import to_textbook
from kansciml.models.base import Model
from kansciml.models.registry import find
from kansciml.runs.tables import Table
from kansciml.training.optim import adamw

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MLP = "MLP"
OURS = (TORCH, CPP, RSWAF)
VARIANTS = {MLP: "mlp", TEXTBOOK: "kan-spline", TORCH: "kan-spline", CPP: "kan-spline", RSWAF: "kan-rswaf"}
"""What is compared -> the variant of `kansciml.models` that it is built as; the first is what ratios refer to."""
REFERRED = {"mlp": MLP, "textbook": TEXTBOOK}
"""What ratios are to, and what their keys end with."""
LEARNING_RATE = 1e-3


def available() -> list[str]:
    """Those of `VARIANTS` that can run here: the C++ kernels are not built everywhere."""
    return [name for name in VARIANTS if name != CPP or measuring.cpp_available()]


def build(model: str, name: str, kind: str = "vision", **options: Any) -> nn.Module:
    """The model of this name with one of `VARIANTS` in it, in training mode; all from one seed.

    Raises:
        UsageError: an unknown model, or sizes that do not fit it.
    """
    family, preset = find(model, kind=kind)
    config = family.config(preset, VARIANTS[name], **options)
    network = family.build(config, torch.Generator().manual_seed(0))
    if name == TEXTBOOK:
        return to_textbook(network)
    set_backend(network, "cpp" if name == CPP else "torch")
    return network


def config_of(network: nn.Module) -> Any:
    """The configuration that `build` made a network of."""
    return network.config


@dataclass
class Case:
    """A network, its optimiser, and the loss of one batch.

    Args:
        network: in training mode.
        loss: ``loss(network)``, a scalar.
    """

    network: nn.Module
    loss: Callable[[nn.Module], Tensor]
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = adamw(self.network, LEARNING_RATE)

    def gradient(self) -> None:
        """Forward and backward pass."""
        self.loss(self.network).backward()

    def step(self) -> None:
        """A full training step."""
        self.optimiser.zero_grad()
        self.gradient()
        self.optimiser.step()

    def activations(self) -> MemoryUse:
        """What forward and backward pass take besides weights, gradients and AdamW's state.

        The gradients are there before, so that the pass adds to them in place and leaves none behind.
        """
        for parameter in self.network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        return measure(self.gradient, apart=self.network.buffers())


def make_cases(
    model: str, loss: Callable[[Any, int], Callable[[nn.Module], Tensor]], batch_size: int, **options: Any
) -> dict[str, Case]:
    """One case per candidate that can run here.

    Args:
        model, options: see `build`.
        loss: makes the loss of one batch from the network's configuration and `batch_size`.
    """
    networks = {name: build(model, name, **options) for name in available()}
    return {name: Case(network, loss(config_of(network), batch_size)) for name, network in networks.items()}


def measure_fake(network: nn.Module, make_loss: Callable[[], Callable[[nn.Module], Tensor]]) -> MemoryUse:
    """`Case.activations` on tensors without data, whatever their sizes; `network` itself stays as it is.

    Args:
        network: with kernels in plain PyTorch.
        make_loss: makes the batch, so that it is without data too, and returns the loss.
    """
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    mode = FakeTensorMode()
    with FakeCopyMode(mode):  # layers look at their knots while they are made, which fake tensors refuse
        fake = copy.deepcopy(network)
    with mode:
        return Case(fake, make_loss()).activations()


def measure_cases(cases: Mapping[str, Case], rounds: int, report: Report = measuring.silent) -> list[dict[str, Any]]:
    """One row per case: milliseconds of a step, bytes of its activations, and ratios to the MLP and the textbook KAN.

    Args:
        cases: by the names of `VARIANTS`; a ratio to one that is left out is None.
        rounds: timed ones; each step is taken once before.
        report: told what is being measured.
    """
    seconds = measuring.in_turns({name: case.step for name, case in cases.items()}, rounds, report)
    rows: dict[str, dict[str, Any]] = {}
    for name, case in cases.items():
        report(f"memory: {name}")
        use = case.activations()
        rows[name] = {
            "layer": name,
            **measuring.quartiles("step_", seconds[name]),
            "saved_bytes": use.saved_bytes,
            "peak_bytes": use.peak_bytes,
            "parameters": sum(p.numel() for p in case.network.parameters()),
        }
    for key, other in REFERRED.items():
        for name, row in rows.items():
            row[f"step_over_{key}"] = measuring.ratio(seconds[name], seconds[other]) if other in rows else None
    return with_memory_ratios(list(rows.values()))


def with_memory_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with each one's bytes over the MLP's and over the textbook KAN's; None where those are left out."""
    for key, other in REFERRED.items():
        base = row_of(rows, other)
        for row in rows:
            for what in ("saved", "peak"):
                row[f"{what}_over_{key}"] = row[f"{what}_bytes"] / base[f"{what}_bytes"] if base else None
    return rows


def row_of(rows: Iterable[Row], layer: str) -> Row:
    """The row of a layer; an empty one where it was not measured."""
    return next((row for row in rows if row["layer"] == layer), {})


def targets(document: Row, key: str, what: str, wanted: float) -> list[dict[str, Any]]:
    """A target per model and layer of ours, see `at_most`, on the numbers of that key."""
    return [
        measuring.at_most(f"{what}, {result['model']}: {name}", wanted, row_of(result["rows"], name).get(key))
        for result in document["results"]
        for name in OURS
    ]


def filled(options: DataclassInstance, *values: Mapping[str, Any]) -> Any:
    """The options with `values`, of several the first, for those that are None, which nobody gave."""
    known = {name: value for some in reversed(values) for name, value in some.items()}
    left = {name: value for name, value in known.items() if getattr(options, name) is None}
    return dataclasses.replace(options, **left)


def check_models(models: tuple[str, ...], kind: str) -> list[tuple[Model, str]]:
    """Family and preset of each name.

    Raises:
        UsageError: no names, one of them twice, or one that no model of this kind has.
    """
    check_names("model", models)
    return [find(name, kind=kind) for name in models]


COLUMNS = {
    "layer": "layers",
    "parameters": "parameters",
    "step_ms": "step [ms]",
    "step_low_ms": "25 % [ms]",
    "step_high_ms": "75 % [ms]",
    "step_over_mlp": "x MLP",
    "step_over_textbook": "x textbook",
    "saved_bytes": "saved [MB]",
    "saved_over_textbook": "x textbook",
    "peak_bytes": "peak [MB]",
    "peak_over_textbook": "x textbook",
}


def how(document: Row) -> str:
    """How the times of a document were taken."""
    machine = document["machine"]
    return (
        f"{document['dtype']}, one thread ({machine['cpu_capability']}), PyTorch {machine['torch']}: processor time,"
        f" interleaved medians of {document['rounds']} rounds."
    )


def steps_table(title: str, document: Row, rows: Iterable[Row]) -> Table:
    """Times and memory as `measure_cases` gives them."""
    memory = (
        "Saved for backward, and the peak of forward and backward pass, without weights, gradients and AdamW's state;"
        " what the C++ kernels take for themselves (a few MB) is not seen."
    )
    return measuring.table_of(title, rows, COLUMNS, [how(document), memory])
