"""Trained neural operators of any run that kept them: for ``kansciml evaluate``, and for studies of their minima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.fno.config import SamplesConfig
from kansciml.experiments.fno.jobs import Samples, read_split, samples_hash
from kansciml.experiments.fno.record import FnoRecord, OperatorRow
from kansciml.experiments.fno.runs import Encoded, RelativeError, errors_at
from kansciml.experiments.minibatch.jobs import network_of
from kansciml.experiments.minibatch.trained import SCORED, chosen_rows, load_network, trained_models
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.registry import get_experiment
from kansciml.runs.tables import Table
from kansciml.runs.trained import LoadedModel, NetworkScoringOptions, Scoring, TrainedModel, chosen_device, config_of
from kansciml.runs.typed import attributes
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

CHUNK = 8
"""Samples in one batch of those that a Hessian is taken over."""


def samples_of(record: Record) -> SamplesConfig:
    """Where the samples of a run come from.

    Raises:
        UsageError: a file of samples is no longer where it was. KansciError: settings of another version.
    """
    found: SamplesConfig = config_of(get_experiment(record.experiment).config, record.config).operator.samples
    return found


def test_samples(record: Record, subsample: int, data_dir: Path | None = None) -> DarcyData:
    """The test samples of a run with every `subsample`-th node, from `data_dir` or else from where the run had them.

    Raises:
        UsageError: a subsample that does not divide resolution - 1, or a file that is gone.
        KansciError: samples that are not there (nothing is generated here), or are not those of the run.
    """
    own = samples_of(record)
    wanted = own.at(subsample).for_tests()
    if data_dir is not None:
        wanted = replace(wanted, data_dir=data_dir)
    try:
        found = read_split(wanted, "test")
    except UsageError:
        raise
    except KansciError as error:
        raise KansciError(f"{error}, or name the folder that has them with --data-dir") from error
    if wanted.darcy.size == own.darcy.size and samples_hash(found) != FnoRecord.read(record).data[own.name].test_hash:
        raise KansciError(f"the test samples of {own.name} are not those of the run in {record.folder}: train again")
    return found


def evaluate_row(
    record: Record, row: OperatorRow, data: DarcyData, accelerator: str = "auto", batch_size: int | None = None
) -> np.ndarray:
    """Relative L2 error of a trained network for each of the samples `data`, at their own resolution, (N,) float64.

    `batch_size`: samples at once (default: as at the end of training).

    Raises:
        UsageError: an accelerator that is not there, or samples of fewer nodes than the network's modes need.
    """
    config = network_of(row.model, row.network)
    config.check_side(data.size, f"{data.size} nodes along a side")
    mean_a, std_a, mean_u, std_u = record.arrays[f"{row.data}.normaliser"]
    known = PointwiseNormaliser(mean_a, std_a), PointwiseNormaliser(mean_u, std_u)
    network = load_network(record, row).to(chosen_device(accelerator))
    return errors_at(network, data, known, batch_size)


def trained_networks(record: Record) -> list[TrainedModel]:
    """The networks of a run whose training ended, for `kansciml hessian`.

    The loss is the mean relative L2 error over `Samples.minimum`: training samples that are the same for all models, at
    most 32. What the network recomputes in training is kept here, as derivatives of derivatives need it.
    """
    fno = FnoRecord.read(record)

    @cache
    def data_of(name: str) -> Samples:
        """Read, or made again, when the first model asks for them."""
        config = samples_of(record)
        if config.data is None:  # the test samples are not needed
            config = replace(config, darcy=replace(config.darcy, n_test=0))
        samples = Samples.load(config)
        if samples_hash(samples.minimum) != fno.data[name].minimum_hash:
            raise KansciError(f"the samples of {name} are not those of the run in {record.folder}: train again")
        return samples

    def load(row: OperatorRow) -> LoadedModel:
        samples = data_of(row.data)
        network = load_network(record, row, recompute=False)
        dtype = next(network.parameters()).dtype
        of_a, of_u = samples.normalisers
        minimum, error = Encoded(samples.minimum, of_a), RelativeError(of_u)
        batches = [(a.to(dtype), u.to(dtype)) for a, u in zip(minimum.a.split(CHUNK), minimum.u.split(CHUNK))]
        return LoadedModel(network, lambda module, batch: error(module, batch)[0], batches)

    return trained_models(fno.rows, load, "relative_l2 train_loss")


@dataclass(frozen=True, kw_only=True)
class OperatorScoring(NetworkScoringOptions):
    """Which neural operators are scored, and on what."""

    subsample: tuple[int, ...] = ()
    """Every how many-th node of the test samples is kept; several in turn (default: as the run was tested)."""
    worst: int = 5
    """Test samples with the largest errors to list, of each model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.worst < 0:
            raise UsageError(f"got worst {self.worst}: expected 0 or more")
        if len(set(self.subsample)) < len(self.subsample):
            raise UsageError(f"got subsample {self.subsample}: expected different ones")


def score(record: Record, options: OperatorScoring, progress: Progress) -> tuple[dict[str, Any], list[Table]]:
    """Every chosen model over the test samples, at every resolution that was asked for."""
    rows = chosen_rows(FnoRecord.read(record).rows, options.model)
    samples = samples_of(record)
    factors = options.subsample or (samples.darcy.subsample, *samples.eval_subsamples)
    models: dict[str, dict[str, Any]] = {row.id: {**attributes(row, SCORED), "scores": []} for row in rows}
    with progress.task("evaluating", len(factors) * len(rows)) as bar:
        for factor in factors:
            data = test_samples(record, factor, options.data_dir)
            for row in rows:
                errors = evaluate_row(record, row, data, options.accelerator, options.batch_size)
                own = _document(errors, row.relative_l2_at.get(str(data.size)), options.worst)
                models[row.id]["scores"].append({"subsample": factor, "size": data.size, **own})
                bar.update(advance=1)
    found = list(models.values())
    tables = [_scores_table(found)] + ([_worst_table(found)] if options.worst else [])
    return {"split": "test", "models": found}, tables


def _document(errors: np.ndarray, recorded: float | None, worst: int) -> dict[str, Any]:
    order = np.argsort(-errors, kind="stable")[:worst]
    return {
        "n": len(errors),
        "relative_l2": float(errors.mean()),
        "median": float(np.median(errors)),
        "largest": float(errors.max()),
        "recorded": recorded,
        "worst": [{"sample": int(place), "relative_l2": float(errors[place])} for place in order],
        "errors": errors.tolist(),
    }


def _scores_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [one["id"], one["label"], one["parameters"], at["size"],
         *(at[key] for key in ("relative_l2", "median", "largest", "recorded"))]
        for one in found
        for at in one["scores"]
    ]  # fmt: skip
    columns = ["Run", "Model", "Parameters", "Nodes along a side", "Relative L2", "median", "largest", "recorded"]
    note = f"Mean, median and largest error of {found[0]['scores'][0]['n']} test samples; recorded: the mean."
    return Table("Relative L2 error on the test samples", columns, rows, [note])


def _worst_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [one["id"], at["size"], ", ".join(f"{bad['sample']} ({bad['relative_l2']:.3g})" for bad in at["worst"])]
        for one in found
        for at in one["scores"]
    ]
    note = "Samples are counted from 0, in the order of the data set."
    return Table("Worst test samples", ["Run", "Nodes along a side", "sample (relative L2)"], rows, [note])


SCORING = Scoring(OperatorScoring, score)
