"""Learn a neural ODE from your own measurements: a CSV file with a column t, the others being the states.

Run: python examples/train_on_own_data.py [file.csv]
The same from the command line: kansciml ode --data file.csv --train-fraction 0.8
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from kansciml import ode


def write_example(path: Path) -> Path:
    """A damped oscillator with a little noise, in place of your measurements."""
    t = np.linspace(0.0, 6.0, 61)
    noise = np.random.default_rng(0).normal(0.0, 1e-3, (61, 2))
    x, v = np.exp(-0.2 * t) * np.cos(2 * t), np.exp(-0.2 * t) * (-0.2 * np.cos(2 * t) - 2 * np.sin(2 * t))
    table = np.column_stack([t, np.column_stack([x, v]) + noise])
    np.savetxt(path, table, delimiter=",", header="t,position,velocity", comments="")
    return path


def main(path: Path | None = None, adam_steps: int = 300, lbfgs_steps: int = 200) -> float:
    path = path or write_example(Path(tempfile.mkdtemp()) / "oscillator.csv")
    system = ode.system_from_trajectory(ode.read_csv(path), path.stem, train_fraction=0.8)
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=lbfgs_steps)
    run = ode.train(system, model="kan", match="params", training=training)
    print(f"{run.field.label()}: train MSE {run.metrics['train_mse']:.2e}, held out {run.metrics['test_mse']:.2e}")
    print("state at t = 1.23:", run.trajectory([1.23])[0])
    return run.metrics["train_mse"]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
