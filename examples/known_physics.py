"""Known physics and a network for the rest: a universal differential equation (Rackauckas et al. 2020).

Prey grow up to what the land carries, predators die at a rate: these terms are known but for three numbers. How much
prey a predator eats is not known at all: a KAN learns it as a function of the prey, while the numbers are estimated.
The truth: 1.5, 12 and 3, and predators that get sated, x / (1 + 0.1 x) (Rosenzweig & MacArthur 1963).

Run: python examples/known_physics.py
The same from the command line: kansciml ode --system examples/known_physics.py --model kan --hidden 3 --shooting 6
(with --backend julia in Julia, with --backend both in torch and in Julia, compared)
"""

import math
from pathlib import Path

import numpy as np

from kansciml import ode

PICTURE = Path("known_physics.png")


def eaten_by_one(x):
    """What is not known to the model."""
    return x / (1.0 + 0.1 * x)


def truth(t, u):
    x, y = u[..., 0], u[..., 1]
    eaten = eaten_by_one(x) * y
    return np.stack([1.5 * x * (1.0 - x / 12.0) - eaten, eaten - 3.0 * y], axis=-1)


def known(t, u, network, p):
    x, y = u[..., 0], u[..., 1]
    eaten = network(x)[..., 0] * y
    return np.stack([p["birth"] * x * (1.0 - x / p["capacity"]) - eaten, eaten - p["death"] * y], axis=-1)


SYSTEM = ode.System(
    name="sated_predators",
    title="Sated predators",
    rhs=truth,
    u0=np.array([3.0, 1.0]),
    train_end=4.0,
    test_end=12.0,
    train_saveat=np.linspace(0.0, 4.0, 41),
    labels=("prey", "predators"),
    physics=ode.Physics(
        known,
        outputs=1,
        parameters={"birth": 1.0, "capacity": 20.0, "death": 2.0},  # first guesses
        bounds=dict.fromkeys(("birth", "capacity", "death"), (0.0, math.inf)),
    ),
)


def main(adam_steps: int = 150, lbfgs_steps: int = 200, picture: Path | None = PICTURE) -> dict[str, float]:
    training = ode.FlatTraining(adam_steps=adam_steps, learning_rate=0.03, lbfgs_steps=lbfgs_steps)
    run = ode.train(SYSTEM, "kan", hidden=(3,), shooting=6, training=training)
    told = ", ".join(f"{name} {value:.4f}" for name, value in run.estimates.items())
    print(f"{run.field.label()}: {told}; train MSE {run.metrics['train_mse']:.1e}, later {run.metrics['test_mse']:.1e}")
    if picture is not None:
        draw(run, picture)
    return run.estimates


def draw(run: ode.OdeRun, picture: Path) -> None:
    """The states, also beyond the training data, and what was learned of the predators' appetite."""
    from matplotlib.figure import Figure

    from kansciml.reporting.palette import KAN, SERIES

    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    states, response = figure.subplots(1, 2)
    t, data = np.linspace(0.0, 12.0, 601), run.problem.data
    for i, (label, colour) in enumerate(zip(SYSTEM.labels, SERIES)):
        states.plot(t, ode.reference_solution(SYSTEM, t)[:, i], color="black", linewidth=2.6)
        states.plot(t, run.trajectory(t)[:, i], color=colour, label=f"{label}, model")
        states.plot(
            run.problem.saveat,
            data[:, i],
            "o",
            color=colour,
            markersize=3,
            markerfacecolor="white",
            markeredgewidth=0.7,
        )
    states.axvline(4.0, color="grey", linewidth=0.7, linestyle=":")
    states.set(xlabel="t", ylabel="states", title="trained on t < 4; black: the truth")
    states.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    x = np.linspace(data[:, 0].min(), data[:, 0].max(), 201)
    birth, capacity = run.estimates["birth"], run.estimates["capacity"]
    prey_slope = run(np.column_stack([x, np.ones_like(x)]))[:, 0]  # with one predator
    learned = birth * x * (1.0 - x / capacity) - prey_slope
    response.plot(x, eaten_by_one(x), color="black", linewidth=2.2, label="truth")
    response.plot(x, learned, color=KAN, linestyle="--", label="learned by the KAN")
    response.set(xlabel="prey", ylabel="eaten by one predator", title="the unknown term")
    response.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main()
