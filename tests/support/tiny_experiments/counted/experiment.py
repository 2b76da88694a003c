"""Adds up seeded numbers, step by step with a checkpoint each, and logs what it does."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kansciml import KansciError, UsageError
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import COUNTS_IF_SET, seed_range
from kansciml.runs.tables import Table


@dataclass(frozen=True)
class Inner:
    """A nested group."""

    scale: float = 1.0


@dataclass(frozen=True)
class CountedConfig:
    """Settings."""

    grid: int = 5
    widths: tuple[int, ...] = (2, 2)
    seeds: int = 2
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    steps: int = 3
    step_s: float = field(default=0.0, compare=False)
    """So that a sweep which was slow enough to be interrupted is resumed at once."""
    fail_grid: int = 0
    """The grid at which every attempt fails."""
    flaky: bool = False
    """Whether the first attempt of each task fails."""
    events: Path | None = field(default=None, compare=False)
    """File that takes a line for every start and end."""
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise UsageError(f"got grid {self.grid}: expected at least 1")


def run(config: CountedConfig, context: RunContext) -> Result:
    rows, arrays = [], {}
    for seed in seed_range(config):
        checkpoint = context.checkpoints / f"{seed}.json"
        first = not checkpoint.exists()
        values = [] if first else json.loads(checkpoint.read_text())
        _event(config, "begin", seed, len(values))
        if first:
            checkpoint.write_text("[]")
        if config.grid == config.fail_grid or (config.flaky and first):
            raise KansciError(f"grid {config.grid} failed\nfor a reason of two lines")
        while len(values) < config.steps:
            time.sleep(config.step_s)
            values.append(float(np.random.default_rng([seed, len(values)]).random() * config.inner.scale / config.grid))
            temporary = checkpoint.with_suffix(".part")
            temporary.write_text(json.dumps(values))
            os.replace(temporary, checkpoint)
            if len(values) == 1:
                _event(config, "kept", seed, 1)
        _event(config, "end", seed, len(values))
        rows.append(
            {"id": f"sum.{seed}", "task": "sum", "variant": "plain", "seed": seed, "status": "finished",
             "final_loss": sum(values), "wall_s": 0.1}
        )  # fmt: skip
        arrays[f"sum.{seed}.values"] = np.array(values)
    return Result({"runs": rows}, arrays)


def _event(config: CountedConfig, what: str, seed: int, at: int) -> None:
    if config.events is not None:
        line = f"{what} grid={config.grid} seed={seed} at={at} pid={os.getpid()}"
        with open(config.events, "ab") as file:  # a short line is appended in one piece
            file.write(f"{line} threads={os.environ['OMP_NUM_THREADS']}\n".encode())


EXPERIMENT = Experiment(
    name="counted",
    title="Sums of seeded numbers",
    item="none",
    config=CountedConfig,
    presets={"smoke": CountedConfig(steps=2)},
    run=run,
    render=lambda record, folder: [],
    summary=lambda record: Table("sums", ["seed"], [[row["seed"]] for row in record.result["runs"]]),
)
