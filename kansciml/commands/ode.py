"""``kansciml ode``: train KAN and MLP neural ODEs on one system, in PyTorch or Julia."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kansciml.commands._experiments import run_from_flags
from kansciml.commands._output import Output

SUMMARY = "train KAN and MLP neural ODEs on a system or on your own data"


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.experiments._ode_runs import close_backends, shared_backend
    from kansciml.experiments.ode import EXPERIMENT, OdeConfig, jobs

    def adjust(config: OdeConfig, out: Output) -> OdeConfig:
        """Replace `auto` by the backend that starts; a bad request is reported before anything is started."""
        jobs(replace(config, backend="torch"))
        if config.backend == "auto":
            config = replace(config, backend=shared_backend("auto", None, out.log).name)
        elif config.backend in ("julia", "both"):
            shared_backend("julia", config.sensealg, out.log)
        return config

    try:
        return run_from_flags(EXPERIMENT, arguments, out, "ode", adjust)
    finally:
        close_backends()
