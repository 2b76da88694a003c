"""The settings of a neural ODE that are tuned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Settings of one trial; those that a model does not have stay at their defaults and mean nothing.

    Args:
        depth: hidden layers, all of one width, the largest with which the field has no more parameters than allowed.
        learning_rate: Adam's first one; its last is a tenth of it. scaling: how the state enters the network.
        activation: of an MLP. grid, spline_order: G and S of a KAN. reach: its grids cover [-reach, reach].
    """

    depth: int = 1
    learning_rate: float = 1e-2
    scaling: str = "affine"
    activation: str = "tanh"
    grid: int = 5
    spline_order: int = 3
    reach: float = 1.0

    def said(self, model: str) -> str:
        """``2 layers, tanh, learning rate 0.013``: what of it concerns a model."""
        own = [self.activation] if model == "mlp" else [f"G={self.grid}", f"S={self.spline_order}"]
        own += [f"grid to {self.reach:.3g}"] if model == "kan" else []
        layers = f"{self.depth} hidden layer{'s' if self.depth > 1 else ''}"
        return ", ".join([layers, *own, self.scaling, f"learning rate {self.learning_rate:.2g}"])
