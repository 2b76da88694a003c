"""Influenza in a boarding school, 1978: learn the first eleven days of the outbreak, predict the last three.

Run: python examples/influenza.py [picture.png]
Expected: the held-out days to about 9 of 763 boys, in a minute.

State: the logarithm of one plus the boys in bed and convalescent. With eleven rows a network must be small: the sum of
its weights is penalised (`l1`). Width and penalty are those that, trained on the first eight days, predict the next
three best; the last three days are looked at once.
Source: British Medical Journal 1 (4 March 1978) 587; numbers of the R package outbreaks.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kansciml import ode
from kansciml.reporting.palette import SERIES, SHADE

DATA = Path(__file__).parent / "data" / "influenza.csv"
SETTINGS = [(width, l1) for width in (3, 6) for l1 in (1e-4, 1e-3, 1e-2)]


def trained(data: ode.Trajectory, days: int, width: int, l1: float, training: ode.FlatTraining) -> ode.OdeRun:
    """Trained on the first days of the data, tested on the others."""
    system = ode.system_from_trajectory(data, "influenza", train_fraction=days / len(data))
    return ode.train(system, "mlp", hidden=(width,), l1=l1, training=training)


def main(picture: Path = Path("influenza.png"), adam_steps: int = 500, lbfgs_steps: int = 100) -> float:
    boys = ode.read_csv(DATA, time_column="day")
    logarithms = replace(boys, states=np.log1p(boys.states))
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=lbfgs_steps)
    early = {one: trained(logarithms.until(10), 8, *one, training).metrics["test_mse"] for one in SETTINGS}
    for (width, l1), error in early.items():
        print(f"width {width}, l1 {l1:g}: error on days 8 to 10, of logarithms: {np.sqrt(error):.2f}")
    run = trained(logarithms, 11, *min(early, key=early.get), training)
    system = run.system

    held_out = boys.t > system.train_end
    error = np.sqrt(np.mean((np.expm1(run.states) - boys.states)[held_out] ** 2))
    print(f"{run.field.label()}: held-out days after day {system.train_end:.0f} to {error:.1f} boys (RMS)")
    days = np.linspace(0, 13, 401)
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for label, measured, model, colour in zip(boys.labels, boys.states.T, np.expm1(run.trajectory(days)).T, SERIES):
        axes.plot(days, model, color=colour, label=f"{label.replace('_', ' ')}, model")
        axes.plot(boys.t, measured, "o", color=colour, markersize=4, label=f"{label.replace('_', ' ')}, counted")
    axes.axvspan(system.train_end, 13, color=SHADE, label="held out")
    axes.set(xlabel="days after 22 January 1978", ylabel="boys")
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(picture, dpi=110)
    return float(error)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
