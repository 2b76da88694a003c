"""Tiny trainings of image classifiers and of neural operators, and what is compared of their records."""

import json

import numpy as np

from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.runs.runner import run_experiment
from support.settings import changed

IMAGES = changed(
    VisionRunConfig("mixer"), width=8, depth=1, token_hidden=8, channel_hidden=8, subset=100, epochs=3, batch_size=32,
    clip=None, precision="64", accelerator="cpu",
)  # fmt: skip
OPERATORS = changed(
    FnoRunConfig(), resolution=57, subsample=4, eval_subsamples=(8, 2), n_train=10, n_test=5, epochs=3, batch_size=4,
    width=4, modes=(3, 3), iterations=2, projection=6, precision="64", accelerator="cpu",
)  # fmt: skip
TIMES = ("images_per_s", "samples_per_s", "seconds_per_step", "peak_memory_mb", "wall_s", "train_s", "cpu_s")


def run(experiment, config, folder):
    """The finished record."""
    return run_experiment(experiment, config, results=folder, log=lambda line: None)


def assert_same(a, b):
    """Two records hold the same bits, but for times and memory."""
    rows = [
        json.dumps([{k: v for k, v in row.items() if k not in TIMES} for row in one.result["runs"]], sort_keys=True)
        for one in (a, b)
    ]
    assert rows[0] == rows[1] and set(a.arrays) == set(b.arrays)
    for name, array in a.arrays.items():
        if not name.endswith(TIMES):
            np.testing.assert_array_equal(array, b.arrays[name], err_msg=name)
