"""Networks of fast-kan, InKAN and FlashKAN: the numbers of their formulas, written out here; others are refused."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from support.spline_layers import normal

from kansciml import KAN, RSWAFKAN

WIDTHS, GRID, ENDS = (3, 4, 2), 5, (-1.5, 1.0)
SPLINES = GRID + 3


def silu(x):
    return x / (1 + np.exp(-x))


def single(*shape, seed):
    """Numbers of float32, as arrays of float64."""
    return normal(*shape, seed=seed, dtype=torch.float32).double().numpy()


def tensors(state):
    return {key: torch.tensor(np.ascontiguousarray(value), dtype=torch.float32) for key, value in state.items()}


POINTS = np.concatenate([1.2 * single(200, 3, seed=9), [[30.0, -30.0, 0.1], [-1.5, 1.0, -2.9], [2.4, -1.0, -0.5]]])


def cubic_network():
    """One dictionary per layer, and the outputs at POINTS: sum of w silu(x) + c B(x), B from its own five knots."""
    width, x, found = (ENDS[1] - ENDS[0]) / GRID, POINTS, []
    starts = np.float32(ENDS[0] + width * np.arange(-3, GRID))
    for index, (n_in, n_out) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:])):
        spline, base = single(n_out, n_in, SPLINES, seed=index), single(n_out, n_in, seed=10 + index)
        found.append({"grid_starts": starts, "spline_weight": spline, "base_weight": base})
        y = silu(x) @ base.T
        for k, start in enumerate(starts):
            values = BSpline.basis_element(float(start) + width * np.arange(5), extrapolate=False)(x)
            y += np.nan_to_num(values) @ spline[:, :, k].T
        x = y
    return found, x


def packed(layer):
    """As InKAN has it from 0.4 on."""
    spline = layer["spline_weight"].reshape(len(layer["spline_weight"]), -1)
    weight = np.concatenate([spline, layer["base_weight"]], 1)
    return {"grid_starts": layer["grid_starts"], "weight": weight}


def network_state(layers):
    return tensors({f"layers.{i}.{key}": value for i, layer in enumerate(layers) for key, value in layer.items()})


@pytest.mark.parametrize("read, layout", [(KAN.from_flashkan, dict), (KAN.from_inkan, dict), (KAN.from_inkan, packed)])
def test_cubic_layers_are_the_sum_of_the_splines_that_begin_where_they_say(read, layout):
    layers, expected = cubic_network()
    found = read(network_state(map(layout, layers)))
    assert found.widths == WIDTHS and all(layer.spec.uniform and layer.grid == GRID for layer in found.layers)
    assert found.layers[0].grid_range == pytest.approx(ENDS, abs=1e-6)
    assert not any(layer.bias is not None or layer.spline_scale is not None for layer in found.layers)
    y = found(torch.tensor(POINTS, dtype=torch.float32)).detach()
    np.testing.assert_allclose(y, expected, atol=2e-6 * np.abs(expected).max())
    double = found.double()(torch.tensor(POINTS)).detach()
    np.testing.assert_allclose(double, expected, atol=5e-7 * np.abs(expected).max())


def gaussian_network(norm, base):
    """One dictionary per layer, and the outputs: w silu(x) + b + sum of c exp(-((z - g) / h)^2), z = LayerNorm(x)."""
    points, x, found = np.float32(np.linspace(-2.0, 2.0, 6)), POINTS[:200], []
    for index, (n_in, n_out) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:])):
        weight, z, y = single(n_out, n_in * 6, seed=index), x, np.zeros(n_out)
        layer = {"rbf.grid": points, "spline_linear.weight": weight}
        if norm:
            scale, shift = single(n_in, seed=20), single(n_in, seed=21)
            layer |= {"layernorm.weight": scale, "layernorm.bias": shift}
            z = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + shift
        if base:
            slope, shift = single(n_out, n_in, seed=22), single(n_out, seed=23)
            layer |= {"base_linear.weight": slope, "base_linear.bias": shift}
            y = silu(x) @ slope.T + shift
        for i in range(n_in):
            for k in range(6):  # the functions of an input stand next to each other
                y = y + np.exp(-(((z[:, i] - float(points[k])) / 0.8) ** 2))[:, None] * weight[:, i * 6 + k]
        found.append(layer)
        x = y
    return found, x


@pytest.mark.parametrize("norm, base", [(True, True), (False, True), (True, False), (False, False)])
def test_gaussian_layers_are_fast_kans_formula(norm, base):
    layers, expected = gaussian_network(norm, base)
    found = KAN.from_fast_kan(network_state(layers))
    assert found.widths == WIDTHS
    y = found(torch.tensor(POINTS[:200], dtype=torch.float32)).detach()
    np.testing.assert_allclose(y, expected, atol=5e-6 * np.abs(expected).max())
    double = found.double()(torch.tensor(POINTS[:200])).detach()
    np.testing.assert_allclose(double, expected, atol=1e-7 * np.abs(expected).max())  # the width is of float32 points
    state = {f"linear_q.{key}": value for key, value in tensors(layers[0]).items()}
    one = RSWAFKAN.from_fast_kan(state, "linear_q.", denominator=0.3)
    assert one.denominator == 0.3 and torch.equal(one.spline_weight.float(), found.layers[0].spline_weight.float())


def changed(layer, **changes):
    return {key: value for key, value in {**layer, **changes}.items() if value is not None}


FLAT = {"grid_starts": np.arange(8.0), "weight": np.zeros((2, 27))}
FAST = {"rbf.grid": np.arange(4.0), "spline_linear.weight": np.zeros((2, 12))}


@pytest.mark.parametrize(
    "read, layer, message",
    [
        (KAN.from_inkan, {"w": np.zeros(3), "t": np.zeros(3)}, "got keys w, t: expected grid_starts and weight, as"),
        (KAN.from_inkan, changed(FLAT, weight=np.zeros((2, 28))), r"weight \(2, 28\): expected grid_starts \(K,\)"),
        (KAN.from_inkan, changed(FLAT, weight=np.zeros((2, 66))), r"two inputs at once \(dim=2\): expected"),
        (
            KAN.from_flashkan,
            changed(FLAT, weight=None, spline_weight=np.zeros((2, 8, 8)), base_weight=np.zeros((2, 2))),
            r"two inputs at once \(dim=2\): expected",
        ),
        (KAN.from_inkan, {"grid_starts": np.arange(3.0), "weight": np.zeros((2, 4))}, "with K > 3"),
        (KAN.from_inkan, changed(FLAT, grid_starts=np.arange(8.0) ** 2), "grid_starts that are not evenly spaced"),
        (KAN.from_inkan, changed(FLAT, grid_starts=-np.arange(8.0)), "grid_starts that are not evenly spaced"),
        (KAN.from_fast_kan, changed(FAST, **{"rbf.inv_denominator": np.ones(1)}), "got key 'rbf.inv_denominator'"),
        (KAN.from_fast_kan, FLAT, "got key 'grid_starts': expected fast-kan's, rbf.grid"),
        (KAN.from_fast_kan, changed(FAST, **{"rbf.grid": None}), "got a state without rbf.grid"),
        (KAN.from_fast_kan, changed(FAST, **{"rbf.grid": np.zeros(5)}), r"expected \(G,\) and \(O, I G\)"),
        (KAN.from_fast_kan, changed(FAST, **{"rbf.grid": np.zeros(1)}), "one grid point, .* expected a denominator"),
        (KAN.from_fast_kan, changed(FAST, **{"base_linear.bias": np.zeros(2)}), "a state without base_linear.weight"),
        (KAN.from_fast_kan, changed(FAST, **{"base_linear.weight": np.zeros((2, 4))}), "does not fit 3 inputs and 2"),
    ],
)
def test_other_states_are_refused_in_one_line(read, layer, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(network_state([layer]))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="got key 'weight': expected .* such as layers.0"):
        read({"weight": torch.zeros(1)})


def test_options_without_weights_and_layers_of_other_widths_are_refused_in_one_line():
    cubic, gaussian = network_state(map(packed, cubic_network()[0])), network_state(gaussian_network(True, True)[0])
    efficient = {"base_weight": torch.zeros(2, 3), "spline_weight": torch.zeros(2, 3, 8)}
    efficient["grid"] = torch.arange(12.0).expand(3, -1)
    efficient = {f"layers.{i}.{key}": value for i in range(2) for key, value in efficient.items()}
    for read, state, options in (
        (KAN.from_inkan, cubic, {"spline_scale": True}),
        (KAN.from_inkan, cubic, {"base_activation": None}),
        (KAN.from_efficient_kan, efficient, {"bias": True}),
        (KAN.from_fast_kan, gaussian, {"base_activation": None}),
    ):
        with pytest.raises(
            ValueError, match=r"does not fit 3 inputs and \d outputs with these options: .* key"
        ) as refused:
            read(state, **options)
        assert "\n" not in str(refused.value)
    for read, state in ((KAN.from_inkan, cubic), (KAN.from_efficient_kan, efficient), (KAN.from_fast_kan, gaussian)):
        one = {key: value for key, value in state.items() if key.startswith("layers.0.")}
        again = {key.replace("layers.0.", "layers.1."): value for key, value in one.items()}
        with pytest.raises(ValueError, match=r"got layers.1 of 3 inputs: expected \d, the outputs before"):
            read({**one, **again})
