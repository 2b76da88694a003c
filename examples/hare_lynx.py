"""Hare and lynx of the Hudson Bay, 1900 to 1920: learn 16 years of pelts, predict the last five.

Run: python examples/hare_lynx.py [picture.png]
Expected: the held-out years to about 6 thousand pelts, in a minute.

The counts are noisy, so that the initial state is learned with the field (`learn_u0`), and the logarithm makes errors
relative. The horizon grows, as a first guess leaves an oscillation within a few years (`curriculum`). The width is the
one that, trained on the first 12 years, predicts the next four best; the last five years are looked at once.
Source: Elton & Nicholson, Journal of Animal Ecology 11 (1942) 215-244; table of Howard, Modeling Basics (2009).
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kansciml import ode

DATA = Path(__file__).parent / "data" / "hare_lynx.csv"
WIDTHS = 4, 6, 10


def trained(data: ode.Trajectory, years: int, width: int, adam_steps: int) -> ode.OdeRun:
    """Trained on the first years of the data, tested on the others."""
    system = ode.system_from_trajectory(data, "hare_lynx", train_fraction=years / len(data))
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=0, curriculum=(0.4, 0.7))
    return ode.train(system, "mlp", hidden=(width,), learn_u0=True, training=training)


def main(picture: Path = Path("hare_lynx.png"), adam_steps: int = 600) -> float:
    pelts = ode.read_csv(DATA, time_column="year")
    logarithms = replace(pelts, states=np.log(pelts.states))
    early = {width: trained(logarithms.until(1915), 12, width, adam_steps).metrics["test_mse"] for width in WIDTHS}
    print("error on 1912 to 1915, of logarithms:", *(f"width {w}: {np.sqrt(error):.2f}," for w, error in early.items()))
    run = trained(logarithms, 16, min(early, key=early.get), adam_steps)
    system = run.system

    held_out = pelts.t > system.train_end
    error = np.sqrt(np.mean((np.exp(run.states) - pelts.states)[held_out] ** 2))
    print(f"{run.field.label()}: held-out years {system.train_end + 1:.0f} to 1920 to {error:.1f} thousand pelts (RMS)")
    years = np.linspace(1900, 1920, 401)
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for label, measured, model in zip(pelts.labels, pelts.states.T, np.exp(run.trajectory(years)).T):
        (line,) = axes.plot(years, model, label=label)
        axes.plot(pelts.t, measured, "o", color=line.get_color(), markersize=4)
    axes.axvspan(system.train_end, 1920, color="0.92", label="held out")
    axes.set(xlabel="year", ylabel="pelts, thousands", xticks=range(1900, 1921, 4))
    axes.legend()
    figure.savefig(picture, dpi=110)
    return float(error)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
