"""Sharpness of the trained models of finished runs: one folder per run and settings, resumed, never repeated.

``RUN/hessian/<hash>/`` is a record like any other (see `kansciml.runs.records`), whose layout
`kansciml.experiments.hessian.report` describes. The hash covers the settings and the run's own record and arrays, so
that a run trained anew is measured anew; which models were asked for is not in it: those measured before are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kansciml._errors import UsageError, unknown_name
from kansciml._files import make_folder, to_jsonable
from kansciml.analysis.hessian._measures import ABSOLUTE, RELATIVE
from kansciml.analysis.hessian._product.plan import SHARE, available_memory
from kansciml.analysis.hessian.operator import HessianOperator
from kansciml.analysis.hessian.sharpness import DEFLATE, EXACT, EXACT_LIMIT, Sharpness, sharpness
from kansciml.analysis.hessian.verdicts import compare_sharpness
from kansciml.experiments.hessian import ranks as _hessian_ranks
from kansciml.runs import provenance
from kansciml.runs import ranks as _ranks
from kansciml.runs.lock import folder_lock
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record, find_record, load_record, reading, save_record
from kansciml.runs.registry import trained_models
from kansciml.runs.trained import FirstSamples, LoadedModel, TrainedModel, chosen_models

NAME = "hessian"
SMALL = 50_000
"""Parameters below which one thread does: a second one would wait for the first, and for long on a busy machine."""


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
    """auto (all eigenvalues where the model has at most 3000 parameters and that costs less than the quadrature), both
    (all eigenvalues and the quadrature, to check it), or never."""

    def __post_init__(self) -> None:
        for name in ("steps", "probes", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"got {name} {value}: expected at least 1")
        if self.exact not in EXACT:
            raise unknown_name("exact", self.exact, EXACT)
        if min(self.seed, self.deflate) < 0:
            raise UsageError(f"got seed {self.seed}, deflate {self.deflate}: expected numbers of at least 0")
        if not self.threshold or not all(0 < t < float("inf") for t in self.threshold):
            raise UsageError(f"got threshold {self.threshold}: expected positive numbers, such as 0.01 1")


def measure_run(
    run: Path,
    settings: HessianSettings,
    *,
    models: Sequence[str] = (),
    out: Path | None = None,
    force: bool = False,
    log: Callable[[str], None],
    progress: Progress | None = None,
) -> Record:
    """Measure the models of the run in folder `run`, resume that, or return the record at once.

    Args:
        models: names, groups or tasks; none: all. out: folder of the results; default ``run/hessian``.
        force: measure again what has been measured.

    Raises:
        UsageError: an unknown model. KansciError: no finished run with trained models there, or the folder is in use.
        KeyboardInterrupt: passed on; whatever probes are done are kept.
    """
    source = load_record(run)
    chosen = chosen_models(trained_models(source), models)
    folder = (out or Path(run) / NAME) / _hash({"settings": asdict(settings), "run": _digest(Path(run))})
    earlier = None if force else _earlier(folder)
    done = {row["name"] for row in earlier.result["models"]} if earlier else set()
    if {one.name for one in chosen} <= done and earlier.status == "finished":
        log(f"hessian: measured on {earlier.finished}, results in {folder} (--force measures again)")
        return earlier
    make_folder(folder)
    progress = progress or Progress()
    with folder_lock(folder), progress:
        earlier = None if force else _earlier(folder)  # another process may have added to it since
        done = {row["name"] for row in earlier.result["models"]} if earlier else set()
        if force:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        elif done:
            log(f"hessian: {len(done)} models were measured before, in {folder}")
        record = Record(
            folder=folder,
            experiment=NAME,
            config=to_jsonable(settings),
            config_hash=folder.name,
            status="running",
            result=earlier.result if earlier else {"models": [], "verdicts": []},
            arrays=earlier.arrays if earlier else {},
            versions=provenance.package_versions(),
            commit=provenance.package_commit(),
            seeds=(settings.seed,),
            started=earlier.started if earlier else _now(),
            wall_s=earlier.wall_s if earlier else 0.0,
            sessions=earlier.sessions + 1 if earlier else 1,
        )
        return _measure(record, source, [one for one in chosen if one.name not in done], settings, log, progress)


def merged(records: Sequence[Record], folder: Path | None = None) -> Record:
    """Several records of `measure_run` as one, with the verdicts between their models.

    Raises:
        UsageError: they were made with different settings.
    """
    first = records[0]
    if any(record.config != first.config for record in records):
        raise UsageError("the runs were measured with different settings: measure them together")
    rows = _told_apart([row for record in records for row in record.result["models"]])
    arrays = {name: array for record in records for name, array in record.arrays.items()}
    code = _hash([record.config_hash for record in records])
    result = {"models": rows, "verdicts": verdicts(rows)}
    place = (folder or first.folder.parent) / code
    return replace(first, folder=place, config_hash=code, result=result, arrays=arrays)


def _told_apart(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in which a group (and a label) that several runs have is followed by its run: they are not more seeds."""

    def named(row: Mapping[str, Any], key: str, gap: str) -> str:
        same = {one["run"] for one in rows if (one["task"], one[key]) == (row["task"], row[key])}
        return row[key] + (f"{gap}{row['run'][:6]}" if len(same) > 1 else "")

    return [{**row, "group": named(row, "group", " "), "label": named(row, "label", ", run ")} for row in rows]


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each group with one to be compared with, in the same task: one row per measure, in JSON types."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["group"], row["run"]), []).append(row)
    found = []
    for (task, group, _), own in groups.items():
        for (other_task, other_group, _), others in groups.items():
            if (other_task, other_group.partition(" ")[0]) == (task, own[0]["against"]):
                sides = [[Sharpness.from_json(row["sharpness"]) for row in side] for side in (own, others)]
                names = {"task": task, "group": group, "label": own[0]["label"], "against": other_group}
                names |= {"against_label": others[0]["label"]}
                found += [{**names, **to_jsonable(asdict(one))} for one in compare_sharpness(*sides)]
    return found


def _measure(
    record: Record,
    source: Record,
    models: Sequence[TrainedModel],
    settings: HessianSettings,
    log: Callable[[str], None],
    progress: Progress,
) -> Record:
    began, before = time.monotonic(), record.wall_s

    def now(status: str, message: str = "") -> Record:
        return replace(
            record, status=status, message=message, finished=_now(), wall_s=before + time.monotonic() - began,
            machine=provenance.machine(), peak_memory_mb=provenance.peak_memory_mb()[0],
        )  # fmt: skip

    save_record(now("running"))
    try:
        for row, arrays in _each(record.folder, source, models, settings, log, progress):
            rows = [*record.result["models"], row]
            record = replace(record, result={"models": rows, "verdicts": []}, arrays=record.arrays | arrays)
            save_record(now("running"))
            shutil.rmtree(record.folder / "checkpoints" / row["name"], ignore_errors=True)
        place = {one.name: i for i, one in enumerate(trained_models(source))}
        rows = sorted(record.result["models"], key=lambda row: place[row["name"]])
        record = replace(record, result={"models": rows, "verdicts": verdicts(rows)})
        record = now("finished")
        save_record(record)
    except KeyboardInterrupt:
        save_record(now("interrupted", "the same command resumes"))
        log(f"hessian: interrupted; the same command resumes it from {record.folder}")
        raise
    except Exception as error:
        save_record(now("failed", f"{type(error).__name__}: {error}"))
        raise
    shutil.rmtree(record.folder / "checkpoints", ignore_errors=True)
    return load_record(record.folder)


def _each(
    folder: Path,
    source: Record,
    models: Sequence[TrainedModel],
    settings: HessianSettings,
    log: Any,
    progress: Progress,
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Row and arrays of each model; under torchrun the other processes measure it along with this one."""
    for number, one in enumerate(models, 1):
        began = time.monotonic()
        made = _load(one, settings)  # before the others do: whatever it has to download is then there
        loaded, operator = made
        title = f"{one.name} ({number}/{len(models)})"
        with _threads(loaded.threads), progress.task(title, 1) as bar:
            plan = operator.memory_needed(settings.steps + settings.deflate)
            log(f"{title}: {_one_line(plan.text())}{_matrix_note(settings, operator.size)}{_ranks_note()}")

            def report(done: int, total: int, what: str, bar: Any = bar) -> None:
                bar.update(completed=done, total=total, now=what)

            with _hessian_ranks.offered((source.folder, one.name, settings)):
                _hessian_ranks.together(lambda made=made: made, _identity)
                found = _sharpness(loaded, operator, settings, folder / "checkpoints" / one.name, report)
        row = {
            "name": one.name,
            "run": source.config_hash,
            "task": one.task,
            "group": one.group,
            "label": one.label,
            "seed": one.seed,
            "against": one.against,
            "n_parameters": operator.size,
            "recorded_loss": one.loss,
            "metrics": dict(one.metrics),
            "fingerprint": operator.fingerprint,
            "memory_bytes": plan.total_bytes,
            "processes": _ranks.size(),
            "wall_s": time.monotonic() - began,
            "sharpness": to_jsonable(found.to_json()),
        }
        prefix = f"{source.config_hash}.{one.name}."
        yield row, {prefix + name: array for name, array in found.arrays().items()}


def follow() -> int:
    """On the other processes of torchrun: measure with the first what it measures; the exit code.

    Each takes its share of probes and columns; eigenpairs that are deflated and the ends of the spectra all find by
    themselves. It writes and says nothing that the first one does.

    Raises:
        KansciError: this process failed where the first cannot know why.
    """
    try:
        for run, name, settings in _hessian_ranks.jobs():

            def load(run: Path = run, name: str = name, settings: HessianSettings = settings) -> Any:
                return _load(next(one for one in trained_models(load_record(run)) if one.name == name), settings)

            loaded, operator = _hessian_ranks.together(load, _identity)
            with _threads(loaded.threads), _hessian_ranks.company():
                _sharpness(loaded, operator, settings, None, None)
    except _hessian_ranks.Gone:
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _load(one: TrainedModel, settings: HessianSettings) -> tuple[LoadedModel, HessianOperator]:
    loaded = one.load()
    if loaded.threads is None and sum(p.numel() for p in loaded.module.parameters()) < SMALL:
        loaded = replace(loaded, threads=1)
    batches = loaded.batches if settings.samples is None else FirstSamples(loaded.batches, settings.samples)
    sharing, memory = _hessian_ranks.share(), None
    place = next(loaded.module.parameters()).device
    if sharing > 1 and place.type == "cpu":
        memory = max(1, int(SHARE * available_memory(place) / sharing))
    with _threads(loaded.threads):
        return loaded, HessianOperator(loaded.module, loaded.loss, batches, memory=memory)


def _identity(made: tuple[LoadedModel, HessianOperator]) -> str:
    loaded, operator = made
    with _threads(loaded.threads):
        return operator.fingerprint


def _sharpness(
    loaded: LoadedModel, operator: HessianOperator, settings: HessianSettings, checkpoints: Path | None, report: Any
) -> Sharpness:
    return sharpness(
        operator,
        loaded.module,
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
        deflate=settings.deflate,
        exact="never" if operator.size > EXACT_LIMIT else settings.exact,
        relative=RELATIVE,
        absolute=settings.threshold,
        checkpoints=checkpoints,
        progress=report,
    )


def _ranks_note() -> str:
    return f"; {_ranks.size()} processes need that much each" if _ranks.size() > 1 else ""


def _matrix_note(settings: HessianSettings, size: int) -> str:
    if settings.exact == "never" or size > EXACT_LIMIT:
        return "" if settings.exact != "both" else f"; {size} parameters are more than {EXACT_LIMIT}: quadrature alone"
    return f"; where the matrix is formed, {4 * 8 * size**2 / 1e6:.3g} MB for it and its eigenvalues"


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines())


def _earlier(folder: Path) -> Record | None:
    found = find_record(folder)
    if found is not None:
        with reading(found):
            _ = [row["name"] for row in found.result["models"]]
    return found


def _digest(run: Path) -> str:
    found = hashlib.sha256()
    for name in ("record.json", "arrays.npz"):
        path = run / name
        if path.exists():
            found.update(path.read_bytes())
    return found.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(to_jsonable(value), sort_keys=True).encode()).hexdigest()[:12]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
