"""``kansciml evaluate`` of neural operators: the errors of the record, at any resolution; each kind scores its own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import command_line
from support.minibatch import OPERATORS
from support.relative_l2 import relative_l2_errors
from support.settings import changed

from kansciml import KansciError
from kansciml.experiments.fig5 import experiment as fig5
from kansciml.experiments.fno.experiment import EXPERIMENT
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.minibatch.trained import load_network
from kansciml.runs import registry
from kansciml.runs.registry import available_experiments, get_experiment
from kansciml.runs.runner import run_experiment
from kansciml.tasks.darcy.dataset import dataset_folder, generate, load
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

TINY = changed(OPERATORS, eval_subsamples=(8,), n_train=6, epochs=2, batch_size=3, precision="32")


def run(capsys, *arguments):
    return command_line.run(capsys, "evaluate", *map(str, arguments))


def one_line(err, message):
    return err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def record(tmp_path_factory, data_dir):
    """MLP and KAN, one seed, tested at 15 x 15 and 8 x 8."""
    config = changed(TINY, data_dir=data_dir)
    return run_experiment(EXPERIMENT, config, results=tmp_path_factory.mktemp("runs"), log=lambda line: None)


def test_the_errors_are_those_of_the_record_at_every_resolution_it_was_tested_at(capsys, record):
    code, out, _ = run(capsys, record.folder, "--json")
    document = json.loads(out)
    assert code == 0 and document["split"] == "test"
    assert [one["id"] for one in document["models"]] == [row["id"] for row in record.result["runs"]]
    for one, row in zip(document["models"], record.result["runs"]):
        assert [(at["subsample"], at["size"]) for at in one["scores"]] == [(4, 15), (8, 8)]
        for at in one["scores"]:
            known = record.arrays[f"{row['id']}.errors.{at['size']}"]
            np.testing.assert_allclose(at["errors"], known, rtol=1e-6)
            assert at["relative_l2"] == pytest.approx(at["recorded"], rel=1e-6)
            assert at["recorded"] == row["relative_l2_at"][str(at["size"])]
            assert (at["n"], at["largest"]) == (5, max(at["errors"]))
            assert [bad["sample"] for bad in at["worst"]] == np.argsort(-np.array(at["errors"])).tolist()


def predicted(record, row, a):
    """Solutions of a trained network at another resolution, by hand."""
    size = a.shape[-1]
    stacked = record.arrays[f"{row.data}.normaliser"]
    of_a, of_u = (PointwiseNormaliser(*pair).resampled(size) for pair in (stacked[:2], stacked[2:]))
    with torch.no_grad():
        z = load_network(record, row)(torch.from_numpy(of_a.encode(a))[:, None])
    return of_u.decode(z[:, 0].numpy())


def test_another_resolution_a_model_and_the_worst_samples_can_be_asked_for(capsys, record, data_dir):
    darcy = replace(TINY.operator.samples.darcy, subsample=14, n_train=0)  # 5 x 5, which the run was not tested at
    generate(darcy, dataset_folder(darcy, data_dir))
    flags = ["--subsample", "14", "4", "--model", "kan-spline", "--worst", "2", "--batch-size", "1"]
    code, out, _ = run(capsys, record.folder, *flags, "--json")
    (model,) = json.loads(out)["models"]
    coarse, own = model["scores"]
    assert code == 0 and model["group"] == "kan-spline"
    test = load(darcy, data_dir, "test")
    known = relative_l2_errors(predicted(record, FnoRecord.read(record).rows[1], test.a), test.u)
    assert (coarse["size"], coarse["recorded"]) == (5, None)
    np.testing.assert_allclose(coarse["errors"], known, rtol=1e-5)
    assert own["relative_l2"] == pytest.approx(own["recorded"], rel=1e-4)  # in batches of one
    assert [len(at["worst"]) for at in (coarse, own)] == [2, 2]
    code, out, _ = run(capsys, record.folder, *flags)
    assert "Worst test samples" in out and f"{own['worst'][0]['sample']} (" in out
    code, out, _ = run(capsys, record.folder, "--worst", "0")
    assert code == 0 and "Worst" not in out


def test_data_that_are_not_there_or_are_others_are_one_line(capsys, record, data_dir, tmp_path):
    code, out, err = run(capsys, record.folder, "--data-dir", tmp_path / "nowhere")
    assert code == 1 and out == "" and one_line(err, "holds 0 of 5 test samples: generate them with kansciml darcy")
    assert "--data-dir" in err and not (tmp_path / "nowhere").exists()  # nothing is made
    code, _, err = run(capsys, record.folder, "--subsample", "1")
    assert code == 1 and one_line(err, "holds 0 of 5 test samples")
    darcy = TINY.operator.samples.darcy
    shutil.copytree(dataset_folder(darcy, data_dir), dataset_folder(darcy, tmp_path / "copy"))
    assert run(capsys, record.folder, "--data-dir", tmp_path / "copy", "--subsample", "4")[0] == 0
    record.result["data"]["darcy15"]["test_hash"], known = "other", record.result["data"]["darcy15"]["test_hash"]
    try:
        with pytest.raises(KansciError, match="are not those of the run"):
            scoring = registry.scoring_of(record)
            scoring.score(record, scoring.options(subsample=(4,)), NoProgress())
    finally:
        record.result["data"]["darcy15"]["test_hash"] = known


class NoProgress:
    """Bars that nobody sees."""

    def task(self, *_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, **_):
        pass


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--subsample 3", "got subsample 3 of 57 nodes: expected a divisor of 56"),
        ("--subsample 4 4", "expected different ones"),
        ("--worst -1", "got worst -1: expected 0 or more"),
        ("--model cnn", "unknown model 'cnn' of this run: expected one of mlp, kan-spline"),
        ("--accelerator tpu", "unknown accelerator 'tpu'"),
        ("--split train", "--split"),
    ],
)
def test_a_mistake_is_one_line(capsys, record, flags, message):
    code, out, err = run(capsys, record.folder, *flags.split())
    assert code == 2 and out == "" and one_line(err, message)


def test_weights_that_are_gone_are_one_line(capsys, record, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(record.folder, copy)
    for path in copy.glob("checkpoints/*/weights.safetensors"):
        path.unlink()
    code, _, err = run(capsys, copy)
    assert code == 1 and one_line(err, "is missing: restore it, or train again")


def test_what_keeps_its_models_is_scored_and_the_rest_is_refused(record):
    kinds = {name for name in available_experiments() if get_experiment(name).scoring is not None}
    assert kinds == {"vision", "fig3", "mnist", "table1", "fno", "fig2", "fig5", "ode", "tune"}
    assert fig5.EXPERIMENT.scoring is EXPERIMENT.scoring
    with pytest.raises(
        KansciError, match=r"is a run of fig1, which keeps no weights .* expected a run of fig2, fig3, fig5"
    ):
        registry.scoring_of(replace(record, experiment="fig1"))
    with pytest.raises(KansciError, match=r"\(interrupted\) without trained neural operators"):
        other = replace(record, status="interrupted", result={})
        EXPERIMENT.scoring.score(other, EXPERIMENT.scoring.options(), NoProgress())
