"""Glucose in the blood after an injection, driven by the measured insulin: an input to the learned field.

Run: python examples/glucose.py [picture.png]
From the command line, without the first four rows: kansciml ode --data mixed.csv --time-column minutes --inputs insulin
Expected: the held-out last hour to about 5 mg/dl, in half a minute.

The first eight minutes, while the glucose spreads through the body, are left out, as usual for this test. Insulin is
linear between its measurements; what is predicted is the glucose, given the insulin. The width is the one that, trained
on the first 12 rows, predicts the next four best; the last four rows are looked at once.
Source: Pacini & Bergman, MINMOD, Computer Methods and Programs in Biomedicine 23 (1986) 113-122.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kansciml import ode
from kansciml.reporting.palette import SERIES, SHADE

DATA = Path(__file__).parent / "data" / "glucose.csv"
WIDTHS = 2, 3, 5


def trained(data: ode.Trajectory, rows: int, width: int, training: ode.FlatTraining) -> ode.OdeRun:
    """Trained on the first rows of the data, tested on the others."""
    system = ode.system_from_trajectory(data, "glucose", train_fraction=rows / len(data))
    return ode.train(system, "mlp", hidden=(width,), training=training)


def main(picture: Path = Path("glucose.png"), adam_steps: int = 300, lbfgs_steps: int = 50) -> float:
    (blood,) = ode.read_table(DATA, time_column="minutes", inputs=["insulin"])
    mixed = replace(blood, t=blood.t[4:], states=blood.states[4:], inputs=blood.inputs[4:])
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=lbfgs_steps)
    early = {width: trained(mixed.until(mixed.t[15]), 12, width, training).metrics["test_mse"] for width in WIDTHS}
    print("error on rows 13 to 16, mg/dl:", *(f"width {w}: {np.sqrt(error):.1f}," for w, error in early.items()))
    run = trained(mixed, 16, min(early, key=early.get), training)
    system = run.system

    error = np.sqrt(run.metrics["test_mse"])
    print(f"{run.field.label()}: glucose after {system.train_end:.0f} min, held out, to {error:.1f} mg/dl (RMS)")
    minutes = np.linspace(mixed.t[0], mixed.t[-1], 401)
    figure, (above, below) = plt.subplots(2, figsize=(7, 4.5), sharex=True, height_ratios=(2, 1), layout="constrained")
    above.plot(minutes, run.trajectory(minutes, inputs=mixed.forcing), color=SERIES[0], label="model")
    above.plot(blood.t, blood.states, "o", color=SERIES[0], markersize=4, label="measured")
    above.axvspan(system.train_end, mixed.t[-1], color=SHADE, label="held out")
    above.set(ylabel="glucose (mg/dl)", xlim=(0, 186))
    figure.legend(loc="outside right center", frameon=False)
    below.plot(blood.t, blood.inputs, "o-", color=SERIES[1], markersize=4)
    below.set(xlabel="minutes after the injection", ylabel="insulin (µU/ml)")
    figure.savefig(picture, dpi=110)
    return float(error)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
