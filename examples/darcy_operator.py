# %% [markdown]
# # A neural operator for Darcy flow
#
# The ground has a permeability a, the water in it a pressure u with -div(a grad u) = 1. A Fourier neural operator
# learns the map from a to u on a coarse grid, and is then asked on a finer one, which it has never seen.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from kansciml.models.registry import build_model
from kansciml.tasks.darcy.coefficient import coefficient
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.metrics import relative_l2
from kansciml.tasks.darcy.solver import solve

SAMPLES, EPOCHS = 64, 20
config = DarcyConfig(resolution=41, subsample=1)
fields = np.stack([coefficient(config, "train", index) for index in range(SAMPLES)])
a = torch.tensor(fields, dtype=torch.float32)[:, None] / 12
u = torch.tensor(np.stack([solve(one, config.forcing) for one in fields]), dtype=torch.float32)[:, None]
scale = u.std()
print(f"{SAMPLES} solutions on {u.shape[-1]} x {u.shape[-1]} nodes")

# %% [markdown]
# Lift and projection are spline KANs (`mlp`: MLPs); the layers between have one set of weights, applied twice.

# %%
options = {"residual": True, "width": 8, "modes": (5, 5), "padding": 3, "iterations": 2}
net = build_model("fno-wt", "kan-spline", torch.Generator().manual_seed(0), **options)
coarse, held_out = slice(None, None, 2), slice(-16, None)  # 21 x 21 of 41 x 41; the last 16 samples are not trained on
x, y = a[:-16, :, coarse, coarse], u[:-16, :, coarse, coarse]
optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, epochs=EPOCHS, steps_per_epoch=-(-len(x) // 8))
for epoch in range(EPOCHS):
    for batch in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(8):
        optimiser.zero_grad()
        loss = relative_l2(net(x[batch]) * scale, y[batch])
        loss.backward()
        optimiser.step()
        schedule.step()
print(f"last training loss: {loss.item():.3f}")

# %%
with torch.no_grad():
    for name, step in (("21 x 21, as trained", 2), ("41 x 41, never seen", 1)):
        part = (held_out, slice(None), slice(None, None, step), slice(None, None, step))
        guess = net(a[part]) * scale
        print(f"relative L2 of held-out samples, {name}: {relative_l2(guess, u[part]).item():.3f}")
figure, panels = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
for axes, field, title in zip(panels, (a, u, guess), ("permeability", "pressure", "predicted, 41 x 41")):
    axes.imshow(field[-1, 0].numpy(), origin="lower")
    axes.set(title=title, xticks=[], yticks=[])
