# %% [markdown]
# # A new experiment in one folder
#
# This is one: does a finer grid help at a kink? As `kansciml/experiments/kink/experiment.py`, with an empty
# `__init__.py` beside it, `kansciml run kink` runs it.

# %%
from dataclasses import dataclass

import torch

from kansciml import SplineKAN
from kansciml.runs.experiment import BEYOND, Experiment, Result
from kansciml.runs.tables import Table, save_tables


@dataclass(frozen=True)
class KinkConfig:
    """Settings: each is a flag of the command line."""

    grid: int = 20
    steps: int = 200


# %% [markdown]
# `run` computes, and draws nothing. `summary` and `render` read the record alone: both can be made anew at any time.


# %%
def run(config, context):
    x = torch.linspace(-1, 1, 201)[:, None]
    layer = SplineKAN(1, 1, grid=config.grid)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(config.steps):
        optimiser.zero_grad()
        loss = ((layer(x) - x.abs()) ** 2).mean()
        loss.backward()
        optimiser.step()
    return Result({"grid": config.grid, "loss": loss.item()}, {"error": (layer(x) - x.abs()).detach().numpy()})


def summary(record):
    worst = abs(record.arrays["error"]).max()
    return Table("|x|, learned", ["grid", "loss", "largest error"], [[*record.result.values(), worst]])


def render(record, folder):  # pictures: kansciml.reporting.style.save_report
    return save_tables([summary(record)], folder, "tables")


presets = {"smoke": KinkConfig(grid=5, steps=20), "paper": KinkConfig()}
EXPERIMENT = Experiment("kink", "A kink, learned", BEYOND, KinkConfig, presets, run, render, summary)

# %%
if __name__ == "__main__":  # without the command line; a finished run is not repeated, its record is read
    from kansciml.runs.runner import run_experiment

    for grid in (4, 20):
        summary(run_experiment(EXPERIMENT, KinkConfig(grid=grid), log=print)).print()
