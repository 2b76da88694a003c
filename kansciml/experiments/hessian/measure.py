"""Measuring under torchrun: all processes load the same model, and an end of one of them is the end of all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from kansciml._errors import KansciError, UsageError, check_name
from kansciml._files import make_folder, to_jsonable, write_json
from kansciml.analysis.hessian import HessianOperator, available_memory, sharpness
from kansciml.analysis.hessian._measures import ABSOLUTE
from kansciml.analysis.hessian._product.plan import SHARE
from kansciml.analysis.hessian.sharpness import DEFLATE, EXACT, EXACT_LIMIT, exact_bytes, exact_seconds
from kansciml.experiments.hessian.record import HessianRecord, MeasuredModel
from kansciml.runs import ranks
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.records import Record
from kansciml.runs.registry import trained_models
from kansciml.runs.settings import settings_json
from kansciml.runs.trained import FirstSamples, InFloat64, LoadedModel, TrainedModel
from kansciml.runs.typed import attributes, read

T = TypeVar("T")
SMALL = 50_000
"""Parameters below which one thread does: a second one would wait for the first, and for long on a busy machine."""


def together(load: Callable[[], tuple[LoadedModel, HessianOperator]]) -> tuple[LoadedModel, HessianOperator]:
    """load(), in all processes: the first one's before the others', who find what it downloaded.

    Raises:
        KansciError: another process loaded something else.
    """
    if ranks.size() == 1:
        return load()
    from torch import distributed

    if ranks.rank() > 0:
        ranks.agree(None)
    loaded, operator = load()
    if ranks.rank() == 0:
        ranks.agree(None)
    found = [""] * ranks.size()
    with threads(loaded.threads):
        distributed.all_gather_object(found, operator.fingerprint)
    if len(set(found)) > 1:
        raise KansciError("the processes have loaded different models or data: expected the same on all machines")
    return loaded, operator


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Within, the loss of another process is one line of the first process, and silently ends the others."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if ranks.size() == 1 or not any(word in text for word in ("gloo", "nccl", "connection")):
            raise
        if ranks.rank() > 0:
            ranks.end(1)
        raise KansciError("another process of torchrun has ended: see its message; the same command resumes") from error


@dataclass(frozen=True)
class HessianSettings:
    """What determines the numbers of one model."""

    steps: int = 100
    """Lanczos steps of each probe."""
    probes: int = 10
    """Random vectors."""
    seed: int = 0
    """Of the random vectors."""
    deflate: int = DEFLATE
    """Largest eigenpairs that are found first and counted exactly."""
    samples: int | None = None
    """Only the first so many training samples; None: all."""
    threshold: tuple[float, ...] = ABSOLUTE
    """Eigenvalues above these are counted."""
    exact: str = "auto"
    """auto (all eigenvalues, in float64, of models of at most 10,000 parameters), both (all eigenvalues and the
    quadrature, to check it), or never. 10,000 parameters take 3.2 GB, 10,000 products and then five minutes."""

    def __post_init__(self) -> None:
        for name in ("steps", "probes", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"got {name} {value}: expected at least 1")
        check_name("exact", self.exact, EXACT)
        if min(self.seed, self.deflate) < 0:
            raise UsageError(f"got seed {self.seed}, deflate {self.deflate}: expected numbers of at least 0")
        if not self.threshold or not all(0 < t < float("inf") for t in self.threshold):
            raise UsageError(f"got threshold {self.threshold}: expected positive numbers, such as 0.01 1")


@company()
def measure(
    models: Sequence[TrainedModel], settings: HessianSettings, context: RunContext, folder: Path, run: str
) -> HessianRecord:
    """Measure `models`, and compare those of each group with those that it is to be compared with.

    Args:
        folder: of finished measurements and of single probes, from which the same call resumes.
        run: hash of the configuration of the run that the models are of.

    Raises:
        KansciError: a model that cannot be loaded or measured.
        KeyboardInterrupt: passed on; whatever probes are done are kept.
    """
    found: list[MeasuredModel] = []
    arrays: dict[str, np.ndarray] = {}
    known = sum(is_measured(folder, one) for one in models)
    if known:
        context.log(f"hessian: {known} of {len(models)} models were measured before")
    for number, one in enumerate(models, 1):
        if not ranks.agree(is_measured(folder, one)):
            _measure_one(one, settings, context, folder, run, f"{one.name} ({number}/{len(models)})")
        if ranks.rank() == 0:
            row, own = _read(_done(folder, one))
            found.append(replace(row, against=one.against))  # it may have been measured apart from the others
            arrays |= own
    return HessianRecord(tuple(found), arrays)


def with_spectra(
    experiment: str,
    config: Any,
    result: Result,
    settings: HessianSettings,
    context: RunContext,
    chosen: Callable[[TrainedModel], bool] = lambda model: True,
) -> Result:
    """The result of a run's trainings with measurements of those models of it that are `chosen`.

    Raises:
        KansciError, KeyboardInterrupt: as for `measure`.
    """
    own = ranks.agree(result.result)
    record = Record(context.folder, experiment, settings_json(config), context.folder.name, "finished", result=own)
    models = [model for model in trained_models(record) if chosen(model)]
    measured = measure(models, settings, context, context.checkpoints / "spectra", record.config_hash).to_result()
    return Result(own | measured.result, result.arrays | measured.arrays)


def is_measured(folder: Path, model: TrainedModel) -> bool:
    """Whether `measure` has finished the model in this folder."""
    return _done(folder, model).is_file()


def load(one: TrainedModel, settings: HessianSettings) -> tuple[LoadedModel, HessianOperator]:
    """The model and its Hessian, with threads and memory that suit it; in float64 if all eigenvalues are taken."""
    loaded = one.load()
    size, kinds = sum(p.numel() for p in loaded.module.parameters()), {p.dtype for p in loaded.module.parameters()}
    if loaded.threads is None and size < SMALL:
        loaded = replace(loaded, threads=1)
    if settings.exact != "never" and size <= EXACT_LIMIT and kinds == {torch.float32}:
        loaded = replace(loaded, module=loaded.module.double(), batches=InFloat64(loaded.batches))
    batches = loaded.batches if settings.samples is None else FirstSamples(loaded.batches, settings.samples)
    sharing, memory = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if ranks.size() > 1 else 1, None
    place = next(loaded.module.parameters()).device
    if sharing > 1 and place.type == "cpu":
        memory = max(1, int(SHARE * available_memory(place) / sharing))
    with threads(loaded.threads):
        return loaded, HessianOperator(loaded.module, loaded.loss, batches, memory=memory)


def _measure_one(
    one: TrainedModel, settings: HessianSettings, context: RunContext, folder: Path, run: str, title: str
) -> None:
    """Measure a model and keep that in `folder`."""
    began = time.monotonic()
    loaded, operator = together(lambda: load(one, settings))
    with threads(loaded.threads), context.progress.task(title, 1) as bar:
        plan = operator.memory_needed(settings.steps + settings.deflate)
        needed = "; ".join(line.strip() for line in plan.text().splitlines())
        each = f"; {ranks.size()} processes need that much each" if ranks.size() > 1 else ""
        context.log(f"{title}: {needed}{_matrix_note(settings, operator.size)}{each}")
        found = sharpness(
            operator,
            loaded.module,
            steps=settings.steps,
            probes=settings.probes,
            seed=settings.seed,
            deflate=settings.deflate,
            exact="never" if operator.size > EXACT_LIMIT else settings.exact,
            absolute=settings.threshold,
            checkpoints=folder / one.name,
            progress=lambda done, total, what: bar.update(completed=done, total=total, now=what),
        )
    if ranks.rank() > 0:
        return
    row = MeasuredModel(
        **attributes(one, "name task group label seed against"),
        run=run,
        n_parameters=operator.size,
        sharpness=found,
        recorded_loss=one.loss,
        metrics=dict(one.metrics),
        fingerprint=operator.fingerprint,
        memory_bytes=plan.total_bytes,
        processes=ranks.size(),
        wall_s=time.monotonic() - began,
    )
    arrays = {f"{run}.{one.name}.{name}": array for name, array in found.arrays().items()}
    write_json(_done(make_folder(folder), one), to_jsonable({"row": row.to_json(), "arrays": arrays}))
    shutil.rmtree(folder / one.name, ignore_errors=True)


def _done(folder: Path, model: TrainedModel) -> Path:
    return folder / f"{model.name}.json"


def _read(path: Path) -> tuple[MeasuredModel, dict[str, np.ndarray]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        arrays = {name: np.array(values, dtype=np.float64) for name, values in content["arrays"].items()}
        return read(MeasuredModel, content["row"]), arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KansciError(f"{path} cannot be read ({error}): delete it to measure that model again") from error


def _matrix_note(settings: HessianSettings, size: int) -> str:
    if settings.exact == "never" or size > EXACT_LIMIT:
        return "" if settings.exact != "both" else f"; {size} parameters are more than {EXACT_LIMIT}: quadrature alone"
    return (
        f"; all eigenvalues: {exact_bytes(size) / 1e6:.3g} MB, {size} products, and then about"
        f" {exact_seconds(size):.2g} s on one core"
    )


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within, PyTorch has so many threads; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
