# %% [markdown]
# # Your own data: hare and lynx
#
# Pelts of the Hudson Bay, 1900 to 1920, in thousands: learn 16 years, predict the last five. Your table goes in the
# place of this one: a column of times, and a column for each state. (Elton & Nicholson, Journal of Animal Ecology 11
# (1942) 215-244; table of Howard, Modeling Basics (2009).)

# %%
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kansciml
from kansciml import ode
from kansciml.reporting.palette import SERIES, SHADE

ADAM_STEPS, WIDTHS = 600, (4, 6, 10)
pelts = ode.read_csv(Path(kansciml.__file__).parents[1] / "examples" / "data" / "hare_lynx.csv", time_column="year")
logarithms = replace(pelts, states=np.log(pelts.states))  # makes errors relative
print(pelts.labels, pelts.t[[0, -1]], len(pelts))

# %% [markdown]
# The counts are noisy, so the initial state is learned with the field (`learn_u0`). The horizon grows (`curriculum`),
# as a first guess leaves an oscillation within a few years. The same from the command line: `kansciml ode --data
# hare_lynx.csv --time-column year --train-fraction 0.76 --learn-u0`


# %%
def trained(data, years, width):
    """Trained on the first years of the data, tested on the others."""
    system = ode.system_from_trajectory(data, "hare_lynx", train_fraction=years / len(data))
    training = ode.FlatTraining(adam_steps=ADAM_STEPS, lbfgs_steps=0, curriculum=(0.4, 0.7))
    return ode.train(system, "mlp", hidden=(width,), learn_u0=True, training=training)


# %% [markdown]
# The width is the one that, trained on the first 12 years, predicts the next four best. The last five are looked at
# once.

# %%
early = {width: trained(logarithms.until(1915), 12, width).metrics["test_mse"] for width in WIDTHS}
print("error on 1912 to 1915, of logarithms:", *(f"width {w}: {np.sqrt(error):.2f}," for w, error in early.items()))
run = trained(logarithms, 16, min(early, key=early.get))
held_out = pelts.t > run.system.train_end
error = np.sqrt(np.mean((np.exp(run.states) - pelts.states)[held_out] ** 2))
print(f"{run.field.label()}: the held-out years, 1916 to 1920, to {error:.1f} thousand pelts (RMS)")

# %%
years = np.linspace(1900, 1920, 401)
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for label, measured, model, colour in zip(pelts.labels, pelts.states.T, np.exp(run.trajectory(years)).T, SERIES):
    axes.plot(years, model, color=colour, label=f"{label}, model")
    axes.plot(pelts.t, measured, "o", color=colour, markersize=4, label=f"{label}, counted")
axes.axvspan(run.system.train_end, 1920, color=SHADE, label="held out")
axes.set(xlabel="year", ylabel="pelts, thousands", xticks=range(1900, 1921, 4))
figure.legend(loc="outside right center", frameon=False)
figure.savefig("hare_lynx.png", dpi=110)
