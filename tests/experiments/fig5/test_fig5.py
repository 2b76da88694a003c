"""Figure 5: which networks are trained, by which recipe, and that their runs make one record."""

from dataclasses import replace

import pytest
from support.settings import changed

from kansciml import UsageError
from kansciml.experiments.fig5.experiment import EXPERIMENT, Fig5Config, jobs
from kansciml.runs.registry import trained_models
from kansciml.runs.runner import run_experiment

TINY = changed(
    Fig5Config(), resolution=57, subsample=4, n_train=6, n_test=3, epochs=1, batch_size=3, width=4, modes=(3, 3),
    iterations=2, projection=6, seeds=1, accelerator="cpu",
)  # fmt: skip


def test_the_defaults_are_the_recipe_of_the_sources():
    found = jobs(Fig5Config())
    assert len(found) == 4 * 12 == len({job.id for job in found})
    for job in found:
        training, darcy = job.training, job.data.darcy
        assert (darcy.resolution, darcy.size, darcy.n_train, darcy.n_test) == (421, 85, 1024, 500)
        assert (training.epochs, training.batch_size, training.schedule) == (500, 32, "cosine")
        assert (training.learning_rate, training.weight_decay, training.clip) == (1e-3, 1e-4, None)
        assert (job.network.iterations, job.network.width, job.network.modes) == (12, 32, (12, 12))
    for job in found[::5]:
        assert job.sizes()["parameters"] == 2_376_449 - (job.network.variant == "kan-spline") * (4_481 - 43_200)


def test_networks_of_one_seed_differ_in_what_is_compared_alone():
    groups = {job.group: job.network for job in jobs(changed(Fig5Config(), seeds=1))}
    assert list(groups) == ["mlp", "kan-spline", "mlp-residual", "kan-spline-residual"]
    assert replace(groups["kan-spline-residual"], variant="mlp", grid=None) == groups["mlp-residual"]
    assert replace(groups["mlp-residual"], residual=False) == groups["mlp"]
    assert [job.group for job in jobs(changed(Fig5Config(), seeds=1, residual="with"))] == list(groups)[2:]
    assert [job.group for job in jobs(changed(Fig5Config(), seeds=1, variants=("kan-rswaf",), residual="without"))] == [
        "kan-rswaf"
    ]


def test_a_run_holds_all_of_them_and_a_hessian_can_be_taken(tmp_path):
    config = changed(TINY, data_dir=tmp_path / "data")
    record = run_experiment(EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    rows = record.result["runs"]
    assert [row["group"] for row in rows] == ["mlp", "kan-spline", "mlp-residual", "kan-spline-residual"]
    assert len({row["relative_l2"] for row in rows}) == 4
    models = trained_models(record)
    assert [model.against for model in models] == [None, "mlp", None, "mlp-residual"]
    loaded = models[3].load()
    (batch,) = loaded.batches
    assert loaded.loss(loaded.module, batch).item() == pytest.approx(rows[3]["minimum_loss"], rel=1e-5)
    assert {path.name for path in EXPERIMENT.render(record, record.folder)} >= {"curves.svg", "prediction_3.svg"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variants": ()}, "got variants"),
        ({"variants": ("mlp", "mlp")}, "got variants"),
        ({"variants": ("kan",)}, "unknown variant 'kan'"),
        ({"residual": "yes"}, "unknown residual 'yes': expected one of without, with, both"),
        ({"model": "fno-deq"}, "equilibrium with residual"),
        ({"subsample": 4096}, "got subsample 4096"),
        ({"n_train": 8}, "got batch_size 32"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        run_experiment(EXPERIMENT, changed(Fig5Config(), **wrong), results=tmp_path, log=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_presets_fit():
    for config in EXPERIMENT.presets.values():
        EXPERIMENT.check(config)
    assert EXPERIMENT.presets["small"].operator.seeds >= 4  # fewer decide nothing
