"""Theophylline in the blood of twelve subjects: learn nine of them, predict three that were never seen.

Run: python examples/theophylline.py [picture.png]
From the command line, with the hours as they are: kansciml ode --data theophylline.csv --id-column subject
     --time-column hours --inputs dose hours --test-trajectories 3
Expected: the unseen subjects to about 1.1 mg/l, a sixth of the variance, in a minute.

A long table: one row per subject and time, times of their own. The field is driven by the dose, which differs between
subjects, and by the logarithm of the time since then, as the drug that is still in the gut was not measured. Width and
penalty (`l1`) are those that predict three of the nine subjects best, trained on the other six, over three draws; the
unseen subjects are looked at once.
Source: Upton; Boeckmann, Sheiner & Beal, NONMEM Users Guide V (1994); the data set Theoph of R.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kansciml import ode
from kansciml.reporting.palette import SERIES

DATA = Path(__file__).parent / "data" / "theophylline.csv"
SETTINGS = [(width, l1) for width in (4, 8) for l1 in (1e-4, 1e-3, 1e-2)]


def trained(system: ode.System, width: int, l1: float, training: ode.FlatTraining) -> ode.OdeRun:
    return ode.train(system, "mlp", hidden=(width,), l1=l1, training=training)


def main(picture: Path = Path("theophylline.png"), adam_steps: int = 300, lbfgs_steps: int = 100) -> float:
    subjects = ode.read_table(DATA, "subject", time_column="hours", inputs=["dose", "hours"])
    driven = [replace(one, inputs=np.column_stack([one.inputs[:, 0], np.log1p(one.t)])) for one in subjects]
    system = ode.system_from_trajectories(driven, "theophylline", unseen=3, log=print)
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=lbfgs_steps)
    nine = [driven[k] for k in system.training]
    draws = [ode.system_from_trajectories(nine, "validation", unseen=3, seed=seed) for seed in range(3)]
    errors = {}
    for one in SETTINGS:
        errors[one] = np.mean([trained(draw, *one, training).metrics["unseen_mse"] for draw in draws])
        print(f"width {one[0]}, l1 {one[1]:g}: validation error {np.sqrt(errors[one]):.2f} mg/l")
    run = trained(system, *min(errors, key=errors.get), training)

    error = np.sqrt(run.metrics["unseen_mse"])
    print(
        f"{run.field.label()}: unseen subjects to {error:.2f} mg/l (RMS),"
        f" {run.metrics['unseen_relative_mse']:.2f} of the variance"
    )
    figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
    for k, axes in zip(system.unseen, panels):
        one = system.trajectories[k]
        hours = np.linspace(one.t[0], one.t[-1], 401)
        model = run.trajectory(hours, u0=one.states[0], t0=one.t[0], inputs=one.forcing)
        axes.plot(hours, model, color=SERIES[0], label="model")
        axes.plot(one.t, one.states, "o", color=SERIES[0], markersize=4, label="measured")
        axes.set(title=f"subject {one.name}, {one.inputs[0, 0]:g} mg/kg", xlabel="hours")
    panels[0].set(ylabel="theophylline (mg/l)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(picture, dpi=110)
    return float(error)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
