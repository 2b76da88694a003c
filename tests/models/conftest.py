"""KANs written out from their states: truth apart from the package's layers."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline


def spline_layer(state, prefix, x, order=3):
    """y_o = b_o + sum_i w_io SiLU(x_i) + s_io sum_m c_imo B_m(x_i), the splines by SciPy; (..., I) -> (..., O)."""
    w = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
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
    if "bias" in w:
        y = y + w["bias"]
    return y.reshape(*x.shape[:-1], -1)


def rswaf_layer(state, prefix, x, denominator=0.33):
    """sum_ik c_iko (1 - tanh^2((z_i - g_k) / h)), z = LayerNorm(x)."""
    w = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    z = torch.nn.functional.layer_norm(x, x.shape[-1:], w["layernorm.weight"], w["layernorm.bias"])
    phi = 1 - torch.tanh((z.unsqueeze(-1) - w["grid_points"]) / denominator) ** 2
    y = torch.einsum("...ig,igo->...o", phi, w["spline_weight"])
    return y + w["bias"] if "bias" in w else y


@pytest.fixture
def plain_kan():
    """(state, prefix, x, variant) -> the whole KAN's output."""

    def run(state, prefix, x, variant):
        layer = {"kan-spline": spline_layer, "kan-rswaf": rswaf_layer}[variant]
        for k in range(len({name.split(".layers.")[1][0] for name in state if name.startswith(f"{prefix}layers.")})):
            x = layer(state, f"{prefix}layers.{k}.", x)
        return x

    return run
