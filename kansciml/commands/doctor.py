"""``kansciml doctor``: what is installed, what was found, and whether each backend works here."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kansciml._errors import BackendUnavailable, KansciError
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "what was found (versions, paths, device, threads) and a verdict per backend"
EXAMPLES = (
    "kansciml doctor",
    "kansciml doctor --start  # also starts Julia and computes a gradient",
)


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Look at this installation."""

    start: bool = False
    """Also start Julia and compute a gradient; exit code 1 if that fails. Otherwise Julia is only looked for."""


def check_torch() -> dict[str, Any]:
    """A gradient by the torch backend against central differences on a tiny problem."""
    import torch

    facts = {
        "version": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "path": str(torch.__path__[0]),
    }
    from kansciml.backends.torch import TorchBackend

    error = _gradient_error(TorchBackend())
    return {**facts, "works": error < 1e-5, "verdict": f"works (gradient against differences: {error:.0e})"}


def _gradient_error(backend: Any) -> float:
    import numpy as np

    from kansciml.backends.base import OdeProblem
    from kansciml.models.field_spec import FieldSpec

    spec = FieldSpec("kan", (1, 2, 1))
    problem = OdeProblem.single(
        spec, np.array([0.5]), np.array([0.0, 0.5]), np.array([[0.5], [0.4]]), rtol=1e-10, atol=1e-10
    )
    solver = backend.solver(problem)
    params = spec.initial_parameters(0)
    gradient = solver.value_and_grad(params)[1]
    direction = np.random.default_rng(0).standard_normal(len(params))
    h = 1e-5
    slope = solver.value_and_grad(params + h * direction)[0] - solver.value_and_grad(params - h * direction)[0]
    return abs(slope / (2 * h) - float(gradient @ direction)) / float(np.linalg.norm(gradient))


def check_kernels() -> dict[str, dict[str, Any]]:
    """What runs the spline layers on a CPU, on a GPU, and the neural ODEs' built-in fields; without C++ or Triton
    they work as well.
    """
    from kansciml.backends._engines import native
    from kansciml.layers._kernels import cpp_library
    from kansciml.layers._kernels._triton import library as triton

    facts = {}
    for what, kernels, without in (("KAN layers", cpp_library, "torch"), ("ODE fields", native, "numpy")):
        chosen = "cpp" if kernels.available() else without
        facts[what] = {"backend": chosen, "works": True, "verdict": f"{chosen} ({kernels.reason()})"}
    verdict = f"torch; triton on request ({triton.reason()})"
    facts["KAN layers, CUDA"] = {"backend": "torch", "works": True, "verdict": verdict}
    return facts


def check_julia(start: bool, log: Any) -> dict[str, Any]:
    """Whether Julia is there, and with `start` whether it runs."""
    from kansciml.backends.julia import JuliaBackend, find_julia

    try:
        found = find_julia()
    except BackendUnavailable as error:
        return {"works": False, "verdict": f"not available: {error}"}
    facts = {key: str(value) for key, value in vars(found).items() if value is not None}
    if not start:
        return {**facts, "works": None, "verdict": "found, not started (kansciml doctor --start tries it)"}
    began = time.monotonic()
    try:
        with contextlib.closing(JuliaBackend().start(log)) as backend:
            difference = _gradient_error(backend)
            facts |= {key: str(value) for key, value in backend.versions.items()}
    except KansciError as error:
        return {**facts, "works": False, "verdict": f"does not work: {error}"}
    seconds = time.monotonic() - began
    verdict = f"works (first gradient after {seconds:.1f} s; against differences: {difference:.0e})"
    return {**facts, "works": difference < 1e-5, "verdict": verdict}


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml import __version__
    from kansciml.runs.provenance import machine, package_commit, package_versions
    from kansciml.runs.tables import Table

    options = parse(Arguments, arguments, "doctor")
    torch_facts, julia_facts = check_torch(), check_julia(options.start, out.log)
    versions = {name: value or "not installed" for name, value in package_versions().items()}
    about, backends = machine(), {"torch": torch_facts, "julia": julia_facts, **check_kernels()}
    document = {
        "kansciml": __version__,
        "commit": package_commit(),
        "python": {"version": platform.python_version(), "path": sys.executable},
        "versions": versions,
        "machine": about,
        "backends": backends,
    }
    rows = [["kansciml", __version__], ["python", f"{platform.python_version()} ({sys.executable})"]]
    rows += [[name, version] for name, version in versions.items() if name not in ("python", "kansciml")]
    rows += [[name, str(value)] for name, value in about.items()]
    lines = [
        [name, key, str(value)]
        for name, facts in backends.items()
        for key, value in facts.items()
        if key not in ("works",)
    ]
    tables = [Table("Installation", ["what", "found"], rows), Table("Backends", ["backend", "what", "found"], lines)]
    out.result(document, tables)
    asked = [torch_facts, julia_facts] if options.start else [torch_facts]
    return 0 if all(facts["works"] for facts in asked) else 1
