# %% [markdown]
# # A KAN layer in your model
#
# Fit a function of two variables with two spline KAN layers. Change the target or the data, and it is yours.

# %%
# %matplotlib inline
import torch

from kansciml import KAN
from kansciml.training.refinement import train_refined

STEPS = 25  # of L-BFGS on each grid
generator = torch.Generator().manual_seed(0)
x = torch.rand(1024, 2, generator=generator) * 2 - 1  # the grid covers -1 to 1
y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
train, test = slice(None, 512), slice(512, None)

# %% [markdown]
# A `KAN` is a stack of `SplineKAN` layers; either goes into any torch module. Hidden values leave the grid of the
# second layer, where `outside="linear"` lets the splines go on straight.

# %%
net = KAN((2, 5, 1), grid=5, outside="linear")
for layer in net.layers:
    layer.reset_parameters(generator)
print(net)
print(sum(p.numel() for p in net.parameters()), "parameters")


# %% [markdown]
# Train on a coarse grid, refine it without changing the function, and train on. `net` trains with any optimiser; here
# `train_refined` takes L-BFGS.


# %%
def loss(part=train):
    return torch.nn.functional.mse_loss(net(x[part]), y[part])


for stage in train_refined(net, loss, grids=(5, 10), steps=STEPS, x=x[train]):
    print(f"grid {stage.grid}: {stage.parameters} parameters, MSE {stage.start:.1e} -> {stage.end:.1e}")
error = loss(test).item()
print(f"on points that were not trained on: {error:.1e}")

# %% [markdown]
# Every edge is a function that one can look at, over the data that reach it; the stronger, the darker.
# The sine and the square of the target are in the first layer.

# %%
figure = net.plot(x[train], outputs=["y"])
figure  # noqa: B018  (a notebook shows it)
