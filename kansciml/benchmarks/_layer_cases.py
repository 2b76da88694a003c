"""The layers that ``kansciml bench layers`` compares, the bytes they keep for backward, and grid refits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.analysis.memory import saved_for_backward
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Report
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._refit.refit import refit
from kansciml.layers.bspline import SplineSpec, uniform_knots
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN

SHAPES: dict[str, tuple[int, int, int]] = {
    "S1": (64, 64, 256),
    "S2": (192, 768, 1024),
    "S3": (256, 256, 4096),
    "S4": (768, 3072, 256),
    "S5": (784, 64, 64),
}
"""Name -> (inputs, outputs, batch)."""
SPLINE_ORDER = 3
BASELINE = "Linear + SiLU"
TEXTBOOK = "textbook KAN"
TORCH, CPP = "SplineKAN, torch", "SplineKAN, C++"
FLOOR = "the GEMMs alone"
EFFICIENT = "efficient-kan"
OVER = {"over_peer": EFFICIENT, "over_textbook": TEXTBOOK, "over_floor": FLOOR}
"""Keys of a row: ratios of its time, forward + backward, to those of another layer."""
RSWAF = "RSWAFKAN"
UNSCALED = ", no edge scale"
COMPILED = ", compiled"
layers_in_turns = functools.partial(measuring.in_turns, shortest_s=0.004, slow_s=2.0, budget_s=20.0)
REFIT_FEATURES, REFIT_OUTPUTS, REFIT_SAMPLES = 32, 64, 1024
REFIT_MORE_SAMPLES = 4096
"""Where the refit's own work, which hardly grows with the samples, counts less."""
REFIT_GRIDS = 5, 8
PER_EDGE, PER_FEATURE = "lstsq, one problem per edge", "lstsq, one problem per feature"
Build = Callable[[int, int, int], nn.Module]
"""(in_features, out_features, grid) -> layer."""
PYKAN_EDGE_LIMIT = 200_000_000
"""pykan holds several tensors of batch x inputs x outputs: above this many elements a layer is left out."""


@dataclass
class Case:
    """One candidate at one shape: a module and its input, which wants a gradient as it would inside a network."""

    module: nn.Module
    x: Tensor
    parameters: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        with torch.no_grad():
            self.cotangent = torch.ones_like(self.module(self.x))

    def forward(self) -> Tensor:
        return self.module(self.x)

    def both(self) -> tuple[Tensor | None, ...]:
        """Forward, and backward to the input and to every parameter."""
        return torch.autograd.grad(self.module(self.x), [self.x, *self.parameters], self.cotangent, allow_unused=True)


class Product(nn.Module):
    """x W with x of K = I (G + S + 1) columns: forward and backward are the three products of a KAN layer."""

    def __init__(self, columns: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, out_features) / math.sqrt(columns))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def modules(shape: tuple[int, int, int], grid: int, compiled: bool = False) -> dict[str, Callable[[], nn.Module]]:
    """Every candidate that can run here, by name, as a function that makes it; the baseline comes first."""
    inputs, outputs, _ = shape

    def spline(backend: str, scale: bool) -> Callable[[], nn.Module]:
        return lambda: SplineKAN(inputs, outputs, grid, SPLINE_ORDER, spline_scale=scale, backend=backend)

    found: dict[str, Callable[[], nn.Module]] = {
        BASELINE: lambda: nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU()),
        TEXTBOOK: lambda: TextbookKAN(inputs, outputs, grid, SPLINE_ORDER),
    }
    for name, backend in ((TORCH, "torch"), (CPP, "cpp")):
        if backend == "torch" or measuring.cpp_available():
            found[name] = spline(backend, True)
            found[name + UNSCALED] = spline(backend, False)
    found[RSWAF] = lambda: RSWAFKAN(inputs, outputs, grid + SPLINE_ORDER)
    found[FLOOR] = lambda: Product(inputs * (grid + SPLINE_ORDER + 1), outputs)
    if compiled:
        for name in (TEXTBOOK, TORCH):
            found[name + COMPILED] = functools.partial(_compiled, found[name])
    for name, build in installed_peers(shape, compiled).items():
        found[name] = functools.partial(build, inputs, outputs, grid)
    return found


def _compiled(make: Callable[[], nn.Module]) -> nn.Module:
    made = make()
    made.compile(dynamic=False)
    return made


def make_case(
    name: str,
    make: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    grid: int,
    dtype: Any,
    device: torch.device | str = "cpu",
) -> Case:
    """The candidate's module and its input, 0.5 N(0, 1)."""
    columns = shape[0] * (grid + SPLINE_ORDER + 1) if name == FLOOR else shape[0]
    x = 0.5 * torch.randn(shape[2], columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Case(make().to(device, dtype), x.to(device, dtype).requires_grad_())


def saved_per_input(case: Case, inputs: int) -> tuple[float, float]:
    """Bytes saved for backward per input element, and bytes saved whatever the batch (copies of weights).

    Two batches tell them apart: what grows with the batch is counted per input, the rest is not.
    """
    apart = [*case.module.parameters(), *case.module.buffers()]
    batch = len(case.x)
    half = case.x.detach()[: batch // 2].clone().requires_grad_()
    whole = saved_for_backward(case.forward, apart=apart)
    part = saved_for_backward(lambda: case.module(half), apart=apart)
    per_row = (whole - part) / (batch - len(half))
    return per_row / inputs, whole - per_row * batch


def refit_against_lstsq(rounds: int, report: Report = measuring.silent) -> dict[str, Any]:
    """A grid refit against a batched `torch.linalg.lstsq` of the edges' values, in float64 at the same samples.

    The refit also weighs points of its own a little, so its change over the samples may be larger by a trace. The
    rivals fit each edge by itself (as pykan does), or all edges of a feature at once (as efficient-kan does). All
    evaluate both grids' splines at the samples; the refit tells its error too.

    Returns:
        Sizes, ``ms`` and ``error`` (rms change of the splines over the samples) of the refit, and per rival its own,
        ``speed_ratio`` (rival / refit) and ``error_ratio`` (refit / rival). ``more_samples`` holds the same for more
        samples, one problem per feature (per edge would take gigabytes).
    """
    found = _refits(REFIT_SAMPLES, (PER_EDGE, PER_FEATURE), rounds, report)
    return {**found, "more_samples": _refits(REFIT_MORE_SAMPLES, (PER_FEATURE,), rounds, report)}


def _refits(samples: int, rivals: tuple[str, ...], rounds: int, report: Report) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    order = SPLINE_ORDER
    old, new = (
        torch.from_numpy(uniform_knots(grid, order, (-1.0, 1.0))).repeat(REFIT_FEATURES, 1) for grid in REFIT_GRIDS
    )
    shape = (REFIT_FEATURES, REFIT_GRIDS[0] + order, REFIT_OUTPUTS)
    coefficients = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = 2 * torch.rand(samples, REFIT_FEATURES, generator=generator, dtype=torch.float64) - 1

    def values(knots: Tensor) -> Tensor:
        spec = SplineSpec(knots.shape[1] - 2 * order - 1, order, False, "zero", None)
        return evaluate(spec, x.t(), knots)[0].transpose(1, 2)  # (I, N, P)

    def fitted() -> Tensor:
        return refit(coefficients, old, new, order, x)[0]

    def per_feature() -> Tensor:
        return torch.linalg.lstsq(values(new), values(old) @ coefficients).solution

    def per_edge() -> Tensor:
        matrices = values(new).unsqueeze(1).expand(-1, REFIT_OUTPUTS, -1, -1)
        curves = (values(old) @ coefficients).transpose(1, 2).unsqueeze(-1)  # (I, O, N, 1)
        return torch.linalg.lstsq(matrices, curves).solution.squeeze(-1).transpose(1, 2)

    methods = {PER_EDGE: per_edge, PER_FEATURE: per_feature}
    calls = {"refit": fitted, **{name: methods[name] for name in rivals}}
    seconds = layers_in_turns(calls, rounds, lambda name: report(f"grid refit, {samples} samples: {name}"))
    target, basis = values(old) @ coefficients, values(new)
    errors = {name: float((basis @ call() - target).square().mean().sqrt()) for name, call in calls.items()}
    middle = {name: 1e3 * float(np.median(taken)) for name, taken in seconds.items()}
    rows = [
        {
            "method": name,
            "ms": middle[name],
            "error": errors[name],
            "speed_ratio": middle[name] / middle["refit"],
            "error_ratio": errors["refit"] / errors[name],
        }
        for name in rivals
    ]
    sizes = {"inputs": REFIT_FEATURES, "outputs": REFIT_OUTPUTS, "samples": samples, "grids": list(REFIT_GRIDS)}
    return {**sizes, "ms": middle["refit"], "error": errors["refit"], "rivals": rows}


class FirstOutput(nn.Module):
    """A layer that returns a tuple, cut to its first entry."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _adapter(module: str, layer: str, options: Callable[[int], dict[str, Any]]) -> tuple[str, Build]:
    """The module, and what makes its layer with the `options` of a grid."""
    return module, lambda inputs, outputs, grid: getattr(import_module(module), layer)(inputs, outputs, **options(grid))


class Uncompiled(nn.Module):
    """A FlashKAN layer without torch.compile, which the package knows no option for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        home: Any = import_module("flashkan.layer")
        compiled, home.bspline_basis = home.bspline_basis, import_module("flashkan.basis").bspline_basis_eager
        try:
            return self.layer(x)
        finally:
            home.bspline_basis = compiled


_FLASHKAN, _FLASHKAN_LAYER = _adapter("flashkan", "KANLayer", lambda grid: {"grid_size": grid})
_PYKAN, _PYKAN_LAYER = _adapter("kan", "KANLayer", lambda grid: {"num": grid, "k": 3})
_ADAPTERS: dict[str, tuple[str, Build]] = {
    EFFICIENT: _adapter("efficient_kan", "KANLinear", lambda grid: {"grid_size": grid}),
    "InKAN": _adapter("inkan", "KANLayer", lambda grid: {"grid_size": grid, "compile_basis": False}),
    f"InKAN{COMPILED}": _adapter("inkan", "KANLayer", lambda grid: {"grid_size": grid, "compile_basis": True}),
    "FlashKAN": (_FLASHKAN, lambda *sizes: Uncompiled(_FLASHKAN_LAYER(*sizes))),
    f"FlashKAN{COMPILED}": (_FLASHKAN, _FLASHKAN_LAYER),
    "pykan KANLayer": (_PYKAN, lambda *sizes: FirstOutput(_PYKAN_LAYER(*sizes))),
    "fast-kan": _adapter(
        "fastkan", "FastKANLayer", lambda grid: {"grid_min": -1.0, "grid_max": 1.0, "num_grids": grid + 3}
    ),
}
"""Name -> the module to import, and its layer."""
PACKAGES = ("efficient-kan", "flashkan", "inkan", "pykan", "fastkan")
"""The distributions that hold them."""


def installed_peers(shape: tuple[int, int, int], compiled: bool) -> dict[str, Build]:
    """Adapters of the packages that can be imported here, for a shape (in, out, batch)."""
    found = {name: build for name, (module, build) in _ADAPTERS.items() if find_spec(module) is not None}
    found = {name: build for name, build in found.items() if compiled or not name.endswith(COMPILED)}
    if torch.Size(shape).numel() > PYKAN_EDGE_LIMIT:
        found.pop("pykan KANLayer", None)
    return found


def third_party(name: str) -> bool:
    """Whether a candidate of this name is another package's."""
    return name in _ADAPTERS
