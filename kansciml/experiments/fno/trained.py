"""Trained neural operators of any run that `run_jobs` recorded: to predict with, and for studies of their minima."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.fno.data import Fields, FieldsSpec, fields_hash, normalisers_of, resampled
from kansciml.experiments.fno.jobs import RESIDUAL, network_of
from kansciml.experiments.fno.steps import RelativeError, Samples, errors, predictions
from kansciml.layers.spectral_conv import fourier_basis
from kansciml.models.registry import find
from kansciml.runs.records import Record
from kansciml.runs.scoring import chosen_device, rows_with
from kansciml.runs.trained import LoadedModel, TrainedModel, config_of
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.training._checkpoint import load_tensors

METRICS = ("relative_l2", "train_loss")
CHUNK = 8
"""Samples in one batch of those that a Hessian is taken over."""


def rows_of(record: Record) -> list[dict[str, Any]]:
    """The trained neural operators of a run, as rows of its record.

    Raises:
        KansciError: the run is of another kind, or not finished.
    """
    return rows_with(record, "neural operators", "kansciml fno", ("network", "relative_l2"))


def run_config(record: Record) -> Any:
    """The settings of a run, which know its samples by ``fields()``.

    Raises:
        UsageError: a file of samples is no longer where it was. KansciError: settings of another version.
    """
    from kansciml.runs.registry import get_experiment

    return config_of(get_experiment(record.experiment).config, record.config)


def load_network(record: Record, row: Mapping[str, Any], **changed: Any) -> nn.Module:
    """The network of a row with its final weights, in eval mode; `changed`: fields of its configuration.

    Raises:
        KansciError: the file of weights is gone or damaged, or of another version's model.
    """
    path = Path(record.folder) / row["weights"]
    if not path.is_file():
        raise KansciError(f"{path} is missing: restore it, or train again with --force")
    network = find(row["model"], kind="operator")[0].build(network_of(row["model"], row["network"], **changed))
    if row["precision"] == "64":
        network.double()
    try:
        network.load_state_dict(load_tensors(path).tensors)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise KansciError(f"{path} belongs to another version of {row['model']} ({reason}): train it again") from error
    return network.eval()


def predict(record: Record, row: Mapping[str, Any], a: np.ndarray) -> np.ndarray:
    """Solutions (N, s, s) of a trained network for coefficients (N, s, s), float32, at any resolution s.

    Raises:
        UsageError: another shape. KansciError: as for `load_network`.
    """
    a = np.ascontiguousarray(a, np.float32)
    if a.ndim != 3 or a.shape[1] != a.shape[2] or a.shape[1] < 2:
        raise UsageError(f"got coefficients of shape {a.shape}: expected (N, s, s)")
    known = normalisers_of(record.arrays[f"{row['data']}.normaliser"])
    of_a, of_u = (resampled(one, a.shape[1]) for one in known)
    samples = Samples(DarcyData(a, np.zeros_like(a)), of_a)
    return predictions(load_network(record, row), samples, RelativeError(of_u), len(a))


def test_samples(record: Record, subsample: int, data_dir: Path | None = None) -> DarcyData:
    """The test samples of a run with every `subsample`-th node, from `data_dir` or else from where the run had them.

    Raises:
        UsageError: a subsample that does not divide resolution - 1, or a file that is gone.
        KansciError: samples that are not there (nothing is generated here), or are not those of the run.
    """
    own: FieldsSpec = run_config(record).fields()
    spec = own.at(subsample).for_tests()
    if data_dir is not None:
        spec = replace(spec, data_dir=data_dir)
    try:
        found = spec.split("test")
    except UsageError:
        raise
    except KansciError as error:
        raise KansciError(f"{error}, or name the folder that has them with --data-dir") from error
    if spec.darcy.size == own.darcy.size and fields_hash(found) != record.result["data"][own.name]["test_hash"]:
        raise KansciError(f"the test samples of {own.name} are not those of the run in {record.folder}: train again")
    return found


def evaluate_row(
    record: Record, row: Mapping[str, Any], data: DarcyData, accelerator: str = "auto", batch_size: int | None = None
) -> np.ndarray:
    """Relative L2 error of a trained network for each of the samples `data`, at their own resolution, (N,) float64.

    Args:
        batch_size: samples at once (default: as at the end of training).

    Raises:
        UsageError: an accelerator that is not there, or samples of fewer nodes than the network's modes need.
        KansciError: as for `load_network`.
    """
    device = chosen_device(accelerator)
    network = load_network(record, row).to(device)
    points = data.size + network.config.padding
    try:
        fourier_basis((points, points), network.config.modes)
    except ValueError as error:
        raise UsageError(f"{data.size} nodes along a side, with padding {network.config.padding}: {error}") from None
    known = normalisers_of(record.arrays[f"{row['data']}.normaliser"])
    of_a, of_u = (resampled(one, data.size) for one in known)
    found = errors(network, Samples(data, of_a, device), RelativeError(of_u, device), batch_size)
    return found.double().cpu().numpy()


def trained_networks(record: Record) -> list[TrainedModel]:
    """The networks of a run whose training ended, for `kansciml hessian`.

    The loss is the mean relative L2 error over `Fields.minimum`: training samples that are the same for all models, at
    most 32. What the network recomputes in training is kept here, as derivatives of derivatives need it.

    Raises:
        KansciError: the run is of another kind.
    """
    rows = rows_of(record)
    minimum = _Minimum(record)
    groups = {(row["task"], row["group"]) for row in rows}
    found = []
    for row in rows:
        base = "mlp" + RESIDUAL * row["residual"]
        if row["status"] == "finished":
            found.append(
                TrainedModel(
                    name=row["id"],
                    label=row["label"],
                    group=row["group"],
                    seed=row["seed"],
                    load=_loader(record, row, minimum),
                    task=row["task"],
                    against=base if row["group"] != base and (row["task"], base) in groups else None,
                    metrics={name: row[name] for name in METRICS},
                    loss=row["minimum_loss"],
                )
            )
    return found


class _Minimum:
    """Samples at which minima are studied; read, or made again, when the first model asks for them."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.found: Fields | None = None

    def fields(self, name: str) -> Fields:
        if self.found is None:
            spec: FieldsSpec = run_config(self.record).fields()
            if spec.data is None:  # the test samples are not needed
                spec = replace(spec, darcy=replace(spec.darcy, n_test=0))
            self.found = Fields.load(spec)
        if fields_hash(self.found.minimum) != self.record.result["data"][name]["minimum_hash"]:
            raise KansciError(f"the samples of {name} are not those of the run in {self.record.folder}: train again")
        return self.found


def _loader(record: Record, row: Mapping[str, Any], minimum: _Minimum) -> Callable[[], LoadedModel]:
    def load() -> LoadedModel:
        network = load_network(record, row, recompute=False)
        fields, dtype = minimum.fields(row["data"]), next(network.parameters()).dtype
        of_a, of_u = fields.normalisers
        samples = Samples(fields.minimum, of_a)
        error = RelativeError(of_u)
        batches = [(a.to(dtype), u.to(dtype)) for a, u in zip(samples.a.split(CHUNK), samples.u.split(CHUNK))]
        return LoadedModel(network, lambda module, batch: error(module, batch)[0], batches)

    return load
