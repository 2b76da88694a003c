"""``kansciml darcy``: generate the data of Darcy flow, coefficient fields and their solutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, flags_of, parse

SUMMARY = "generate Darcy flow data: kansciml darcy --n-train 1024 --n-test 500 --resolution 421"
EXAMPLES = (
    "kansciml darcy  # the data of Figure 5, 421 x 421",
    "kansciml darcy --resolution 57 --subsample 4 --n-train 64 --n-test 16 --out data  # a small set",
)


@dataclasses.dataclass(frozen=True)
class Where(JsonFlag):
    """Where the data go, and how."""

    out: Path | None = None
    """Folder of data sets (default: where the training looks, the user's cache)."""
    workers: int | None = None
    """Worker processes (default: the processors)."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.runs.progress import Progress
    from kansciml.runs.tables import Table
    from kansciml.tasks.darcy.dataset import DarcyConfig, dataset_folder, generate

    if any(argument.partition("=")[0] == "--seed" for argument in arguments):
        raise UsageError("--seed of kansciml darcy is now called --data-seed, as in kansciml fno")
    doc = "Generate Darcy flow data. What is there already is kept: a killed run goes on where it was."
    options: Any = parse(flags_of(doc, config=DarcyConfig(), where=Where()), arguments, "darcy")
    config = options.config
    folder = dataset_folder(config, options.where.out)
    with Progress() as progress:
        done = generate(config, folder, options.where.workers, progress, progress.log)
    document = {
        "folder": str(done.folder),
        "config": config,
        "size": config.size,
        "made": done.made,
        "kept": done.kept,
        "seconds": done.seconds,
    }
    nodes = f"{config.resolution} x {config.resolution} to {config.size} x {config.size}"
    row = [nodes, str(config.n_train), str(config.n_test), str(done.made), f"{done.seconds:.1f}"]
    table = Table("Darcy flow", ["nodes", "training", "test", "made now", "seconds"], [row])
    out.result(document, [table], [f"data: {done.folder}"])
    return 0
