"""Any torch module as the field of a neural ODE, trained by the same exact and fast gradient.

Run: python examples/own_module.py
"""

import torch
from torch import nn

from kansciml import SplineKAN, ode


class GreyBox(nn.Module):
    """Known growth and decay of Lotka-Volterra; a KAN learns the interaction (a universal differential equation)."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.interaction = SplineKAN(2, 2, grid=5, grid_range=(0.0, 8.0))
        self.interaction.reset_parameters(torch.Generator().manual_seed(0))

    def forward(self, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return self.rates * u + u * self.interaction(u)


def main(adam_steps: int = 200, lbfgs_steps: int = 100) -> float:
    training = ode.FlatTraining(adam_steps=adam_steps, lbfgs_steps=lbfgs_steps)
    run = ode.train("lotka", GreyBox(), training=training)
    print(f"{run.field.n_parameters} parameters, train MSE {run.metrics['train_mse']:.2e}")
    return run.metrics["train_mse"]


if __name__ == "__main__":
    main()
