"""Made-up records of Figure 1."""

import numpy as np

from kansciml.analysis.cost import equation_1, equation_2
from kansciml.experiments.fig1.record import Fig1Config, Maps
from kansciml.runs.records import Record


def make(folder, widths=(64, 128), ratio=6.0, grid=5, batches=(16, 128)):
    """A record in which the textbook layer takes `ratio` times Equation (2) everywhere, and SplineKAN twice it."""
    config = Fig1Config(widths, batches, grid=grid)
    found = {}
    for name, rows in config.maps.items():
        printed = 4 * np.array([[equation_2(sizes) for sizes in row] for row in rows])
        right = 4 * np.array([[equation_1(sizes, corrected=True).total for sizes in row] for row in rows])
        found[name] = {
            "equation_2": printed, "corrected": right, "textbook": (ratio * printed).astype(np.int64),
            "ours": 2 * printed,
        }  # fmt: skip
    result = Maps(config, found, {"linear": 2.0, "textbook": 76.0, "ours": 1.0}).result()
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}
    return Record(folder, "fig1", settings, "0" * 12, "finished", result=result.result, arrays=result.arrays)
