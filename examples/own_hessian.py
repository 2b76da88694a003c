# %% [markdown]
# # The Hessian of your model
#
# Two classifiers of handwritten digits, a KAN and an MLP. Which of them ends in the sharper minimum? It depends on
# what one calls sharp, so all measures are shown, each with its error.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from kansciml import KAN
from kansciml.analysis.hessian import HessianOperator, sharpness, supervised

STEPS, WIDTHS = 150, (28, 3)  # of the MLP, of the KAN: as many parameters
digits = load_digits()
x = torch.nn.functional.avg_pool2d(torch.tensor(digits.images / 8 - 1)[:, None], 2).flatten(1)[:300]  # 4 x 4 pixels
y = torch.tensor(digits.target[:300])

# %%
torch.manual_seed(0)
models = {
    "MLP": torch.nn.Sequential(
        torch.nn.Linear(16, WIDTHS[0]), torch.nn.GELU(), torch.nn.Linear(WIDTHS[0], 10)
    ).double(),
    "KAN": KAN((16, WIDTHS[1], 10), outside="linear").double(),
}
criterion = torch.nn.CrossEntropyLoss()
for name, model in models.items():
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimiser.step()
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, loss {loss.item():.3f}")

# %% [markdown]
# `HessianOperator` multiplies vectors by the Hessian and checks the loss first. `sharpness` takes all eigenvalues of
# models of up to 10,000 parameters, and Lanczos quadrature beyond. The adaptive measures do not change when one
# layer's weights are scaled up and the next one's down.

# %%
found = {}
for name, model in models.items():
    operator = HessianOperator(model.eval(), supervised(criterion), (x, y))
    found[name] = sharpness(operator, model)
for measure in ("top", "trace", "positive_exact", "adaptive_top", "adaptive_trace"):
    print(f"{measure:15}", *(f"{name} {one.measures[measure].value:10.4g}" for name, one in found.items()), sep="   ")

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, one in found.items():
    axes.plot(one.eigenvalues["plain"][::-1], label=name)
axes.set(xlabel="number of eigenvalue", ylabel="eigenvalue", xscale="symlog", title="Spectra of the Hessian")
axes.set_yscale("symlog", linthresh=1e-4)
axes.legend()
