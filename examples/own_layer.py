"""Put a spline KAN layer into your own model: fit a function of two variables.

Run: python examples/own_layer.py
"""

import torch

from kansciml import SplineKAN


def main(steps: int = 300) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(512, 2, generator=generator) * 2 - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
    model = torch.nn.Sequential(SplineKAN(2, 5, grid=5), SplineKAN(5, 1, grid=5, grid_range=(-2.0, 2.0)))
    for layer in model:
        layer.reset_parameters(generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimiser.step()
    print(f"{sum(p.numel() for p in model.parameters())} parameters, MSE {loss.item():.2e}")
    return loss.item()


if __name__ == "__main__":
    main()
