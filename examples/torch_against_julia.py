# %% [markdown]
# # Torch against Julia
#
# The same neural ODE, trained by PyTorch and by Julia from the same parameters. Losses agree to the tolerance of the
# solver at first, and part as rounding grows. Where Julia does not start, the reason is printed and torch is alone.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from kansciml import BackendUnavailable, ode

TRAINING = ode.FlatTraining(adam_steps=100, lbfgs_steps=50)
runs = {}
for backend in ("torch", "julia"):
    try:
        opened = ode.open_backend(backend)  # Julia starts here, in a process of its own
    except BackendUnavailable as reason:
        print(f"{backend}: {reason}")
        continue
    began = time.perf_counter()
    run = ode.train("lotka", model="kan", match="params", seed=0, backend=opened, training=TRAINING)
    seconds = time.perf_counter() - began
    runs[backend] = run
    print(f"{backend}: {run.field.label()}, {run.method}, train MSE {run.metrics['train_mse']:.3g} in {seconds:.1f} s")

# %% [markdown]
# Both losses, and their relative difference step by step. The last digits of the first loss are those that the
# solver's tolerance, 1e-7, leaves open.

# %%
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
losses = {backend: run.fit.history["loss"] for backend, run in runs.items()}
for (backend, loss), style in zip(losses.items(), ("-", "--")):
    axes.plot(loss, style, label=f"loss, {backend}")
if len(losses) == 2:
    rows = min(map(len, losses.values()))
    torch_loss, julia_loss = (loss[:rows] for loss in losses.values())
    apart = np.abs(torch_loss - julia_loss) / torch_loss
    print(f"relative difference of the losses: {apart[0]:.1e} at the start, {apart[20]:.1e} after 20 steps")
    axes.plot(apart, color="0.5", linewidth=0.8, label="relative difference")
axes.set(xlabel="step of Adam, then of L-BFGS", yscale="log")
axes.legend()

# %% [markdown]
# `kansciml crosscheck` makes a gate of every such comparison; `kansciml ode --backend both` trains on both.
