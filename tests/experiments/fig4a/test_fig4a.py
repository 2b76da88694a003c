"""Figure 4a: the paper's mixers take what was measured independently, and a curve ends where memory does."""

import pytest

from kansciml import UsageError
from kansciml.experiments.fig4a.experiment import EXPERIMENT, REFERENCES, Fig4aConfig, measured
from kansciml.experiments.memory.record import GB, MemoryRecord, Reference
from kansciml.experiments.memory.steps import IMAGES, measure_fake
from kansciml.runs.runner import run_experiment

MODEL = "conv-mixer-128-4"
CONFIG = Fig4aConfig(models=(MODEL,), variants=("mlp", "textbook"), batches=(1, 2, 4, 8, 16), limit_gb=0.25)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return MemoryRecord.read(run_experiment(EXPERIMENT, CONFIG, results=folder, log=lambda line: None))


@pytest.mark.parametrize(
    "name, variant, tolerance",
    [("mixer-nano-c512", "mlp", 2e-3), ("mixer-nano", "mlp", 2e-3), ("mixer-nano", "textbook", 1.5e-2)],
)
def test_the_papers_mixers_take_what_was_measured_independently(name, variant, tolerance):
    network = measured(name).network(variant)
    low, high = (measure_fake(network, IMAGES, size).peak_bytes for size in (8, 16))
    assert (high - low) / 8 / 1e6 == pytest.approx(REFERENCES[name][variant][0], rel=tolerance)


def test_a_curve_ends_with_its_first_point_out_of_memory(memory):
    mlp, textbook = memory.of(MODEL)
    totals = textbook.total / GB
    assert (totals[:-1] <= CONFIG.limit_gb).all() and totals[-1] > CONFIG.limit_gb
    assert tuple(mlp.batch) == CONFIG.batches
    assert mlp.reference == textbook.reference == Reference()  # nothing is known of this model


def test_the_full_batch_fits_and_one_more_does_not(memory):
    curve, network = memory.of(MODEL)[1], measured(MODEL).network("textbook")
    fixed = curve.resident_bytes + curve.optimiser_bytes
    assert fixed == sum(3 * p.nbytes for p in network.parameters()) + sum(b.nbytes for b in network.buffers())
    totals = []
    for size in (curve.full_batch, curve.full_batch + 1):
        given = size * (4 * 3 * 32 * 32 + 8)  # pixels and a label
        totals.append(fixed + given + measure_fake(network, IMAGES, size).peak_bytes)
    assert totals[0] <= CONFIG.limit_gb * GB < totals[1]


@pytest.mark.parametrize("models", [(), ("mixer", "mixer")])
def test_models_are_some_and_different(models):
    with pytest.raises(UsageError, match="got models .*: expected one or more different ones"):
        Fig4aConfig(models=models)


def test_an_unknown_model_is_refused_before_anything_is_measured():
    with pytest.raises(UsageError, match="unknown model 'mixer'.*mixer-nano"):
        EXPERIMENT.check(Fig4aConfig(models=("mixer",)))
    EXPERIMENT.check(Fig4aConfig())


def test_titles_tell_the_sizes_of_the_mlps(memory):
    assert memory.titles == {MODEL: f"{MODEL}: channels (append) 128-128"}
