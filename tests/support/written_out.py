"""Parts of networks written out from their states: truth apart from the package's layers."""

import math

import numpy as np
import torch
from scipy.interpolate import BSpline


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(state, prefix, x, eps=1e-5):
    """Over the last axis; without a shift where the state has none."""
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return normed * state[f"{prefix}.weight"] + state.get(f"{prefix}.bias", 0)


def linear(state, prefix, x):
    return x @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"]


def patches(state, prefix, x, patch):
    """Embeddings of an image's patches, one by one: (B, C, H, H) -> (B, N, D)."""
    size, kernel = x.shape[-1], state[f"{prefix}.weight"].flatten(1)  # (D, C P P)
    cut = [x[:, :, i : i + patch, j : j + patch] for i in range(0, size, patch) for j in range(0, size, patch)]
    return torch.stack([part.flatten(1) @ kernel.T + state[f"{prefix}.bias"] for part in cut], 1)


def spline_layer(w, x, order=3):
    """y_o = b_o + sum_i w_io SiLU(x_i) + s_io sum_m c_imo B_m(x_i), the splines by SciPy; (..., I) -> (..., O)."""
    flat = x.reshape(-1, x.shape[-1])
    y = (flat * torch.sigmoid(flat)) @ w["base_weight"]
    for i, knots in enumerate(w["knots"].numpy()):
        coefficients = (w["spline_weight"][i] * w["spline_scale"][i]).numpy()  # (P, O)
        # zeros beyond both ends, so that SciPy's splines fade out as the layer's do
        step = knots[1] - knots[0]
        longer = np.concatenate([knots[0] - step * np.arange(order, 0, -1), knots, knots[-1] + step * np.arange(1, 4)])
        padded = np.pad(coefficients, ((order, order), (0, 0)))
        values = BSpline(longer, padded, order, extrapolate=False)(flat[:, i].numpy())
        y = y + torch.from_numpy(np.nan_to_num(values))
    return (y + w.get("bias", 0)).reshape(*x.shape[:-1], -1)


def rswaf_layer(w, x, denominator=0.33):
    """b_o + sum_ik c_iko (1 - tanh^2((z_i - g_k) / h)), z = LayerNorm(x)."""
    z = torch.nn.functional.layer_norm(x, x.shape[-1:], w["layernorm.weight"], w["layernorm.bias"])
    phi = 1 - torch.tanh((z.unsqueeze(-1) - w["grid_points"]) / denominator) ** 2
    return torch.einsum("...ig,igo->...o", phi, w["spline_weight"]) + w.get("bias", 0)


def mixing(state, prefix, x, variant):
    """The MLP with GELU, or the KAN, whose layers are ``<prefix>layers.0.`` ...; over the last axis."""
    names = [name.removeprefix(f"{prefix}layers.") for name in state if name.startswith(f"{prefix}layers.")]
    for k in range(1 + max(int(name.partition(".")[0]) for name in names)):
        if variant == "mlp":
            x = linear(state, f"{prefix}layers.{k}", gelu(x) if k else x)
            continue
        start = f"{prefix}layers.{k}."
        weights = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        x = (spline_layer if variant == "kan-spline" else rswaf_layer)(weights, x)
    return x
