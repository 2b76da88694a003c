"""Fourier neural operators: counted numbers, the layers written out with FFTs, equilibria, other grids."""

import json
import math

import pytest
import torch
from support.models import SMALL, fields, small
from support.written_out import gelu, mixing

from kansciml import cli
from kansciml.analysis.memory import measure
from kansciml.models.base import VARIANTS, count_parameters
from kansciml.models.fno import with_coordinates
from kansciml.models.registry import build_model, find, model_config


@pytest.mark.parametrize("blocks, real, numel", [(1, 2376449, 1196801), (2, 4155425, 2091041), (4, 7713377, 3879521)])
@pytest.mark.parametrize("name", ["fno-plain", "fno-injection", "fno-wt", "fno-deq"])
def test_parameters_as_published(name, blocks, real, numel):
    """Injection, ties and equilibria take none. PyTorch's numel counts a complex weight once."""
    model, preset = find(name, kind="operator")
    config = model.config(preset, blocks=blocks)
    assert model.count(config).active == real and real - config.complex_weights == numel


def test_parameters_of_the_original_and_in_memory():
    model, preset = find("fno-original", kind="operator")
    assert model.count(model.config(preset)).active == 2_368_001  # printed by the code of Li et al. (2021)
    network = build_model("fno-wt")
    assert count_parameters(network).active == sum(p.numel() for p in network.parameters()) == 2_376_449


@pytest.mark.parametrize("variant, expected", [("mlp", 4_481), ("kan-spline", 43_200), ("kan-rswaf", 34_880)])
def test_parameters_of_lift_and_projection(variant, expected):
    """RSWAF: 8 weights an edge (4,320 edges), and two LayerNorms, over 32 and 128 features."""
    network = build_model("fno-wt", variant)
    assert sum(p.numel() for part in (network.lift, network.projection) for p in part.parameters()) == expected


def test_cost_prints_both_counts(capsys):
    assert cli.main(["cost", "--model", "fno-wt", "--variant", "mlp", "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)["variants"].values()
    assert (figures["parameters"], figures["numel_with_complex"]) == (2_376_449, 1_196_801)
    assert cli.main(["cost", "--model", "fno-wt", "--blocks", "4", "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert variants["mlp"]["parameters"] == 7_713_377
    assert [variants[v]["mixing_parameters"] for v in VARIANTS] == [4_481, 43_200, 34_880]
    assert cli.main(["cost", "--model", "fno-wt", "--resolution", "421"]) == 0
    assert "fno-wt: 421 x 421 points, 1 -> 1 fields" in capsys.readouterr().out
    assert cli.main(["cost", "--model", "fno-wt", "--match", "params"]) == 2
    assert capsys.readouterr().err == "error: got --match with fno-wt: expected a vision model\n"


def pointwise(state, prefix, x):
    """A 1x1 convolution or a linear layer, over the channels of (B, I, H, W)."""
    weight = state[f"{prefix}weight"].flatten(1)
    return torch.einsum("oi,bihw->bohw", weight, x) + state[f"{prefix}bias"][:, None, None]


def fourier_layer(state, prefix, z, m1, m2, injection=0):
    (_, _, h, w), weight = z.shape, torch.complex(*state[f"{prefix}spectral.weight"])  # (2 m1, m2, I, O)
    modes = torch.fft.rfft2(z)
    out = torch.zeros_like(modes)
    for rows, part in ((slice(0, m1), weight[:m1]), (slice(h - m1, h), weight[m1:])):
        out[:, :, rows, :m2] = torch.einsum("bixy,xyio->boxy", modes[:, :, rows, :m2], part)
    y = torch.fft.irfft2(out, s=(h, w))
    if f"{prefix}mlp.0.weight" in state:
        y = pointwise(state, f"{prefix}mlp.2.", gelu(pointwise(state, f"{prefix}mlp.0.", y)))
    return y + pointwise(state, f"{prefix}pointwise.", z) + injection


def written_out(state, a, config, iterations):
    (b, _, h, w), (m1, m2) = a.shape, config.modes
    x = torch.linspace(0, 1, h, dtype=a.dtype)[:, None].expand(b, 1, h, w)
    y = torch.linspace(0, 1, w, dtype=a.dtype).expand(b, 1, h, w)
    lifted = torch.zeros(b, config.width, h + config.padding, w + config.padding, dtype=a.dtype)
    lifted[:, :, :h, :w] = pointwise(state, "lift.layers.0.", torch.cat([a, x, y], 1))
    z, injection = lifted * (not config.from_zero), lifted * config.injection
    for _ in range(iterations):
        for k in range(config.blocks):
            before = z
            for j in range(3):
                z = gelu(fourier_layer(state, f"blocks.{k}.layers.{j}.", z, m1, m2, injection))
            z = before + z if config.residual else z
    z = fourier_layer(state, "last.", z, m1, m2)[:, :, :h, :w]
    return pointwise(state, "projection.layers.1.", gelu(pointwise(state, "projection.layers.0.", z)))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name, blocks", [("fno-original", 1), ("fno-plain", 2), ("fno-injection", 2), ("fno-wt", 1)])
def test_it_is_the_operator_written_out(name, blocks, residual):
    model = small(name, blocks=blocks, residual=residual)
    a = fields(12, 9)
    expected = written_out(model.state_dict(), a, model.config, 3 if name == "fno-wt" else 1)
    with torch.no_grad():
        torch.testing.assert_close(model(a), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_kans_lift_and_project(variant):
    """Only they differ from the MLP variant; truth by SciPy's splines and RSWAF written out."""
    model = small("fno-plain", variant)
    a, seen = fields(), {}
    hook = model.projection.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0].detach()))
    with torch.no_grad():
        y = model(a)
        lifted = model.lift(with_coordinates(a))
    hook.remove()
    state = model.state_dict()
    torch.testing.assert_close(y.movedim(1, -1), mixing(state, "projection.", seen["x"], variant))
    if variant == "kan-spline":
        torch.testing.assert_close(lifted, mixing(state, "lift.", with_coordinates(a), variant))


def test_an_rswaf_lift_with_layer_norm_would_see_one_number_of_three():
    """Why it has none: a, x, y less their mean and over their spread lie on a circle."""
    features = with_coordinates(fields())
    assert build_model("fno-wt", "kan-rswaf").lift.layers[0].layernorm is None
    assert build_model("fno-wt", "kan-rswaf").projection.layers[0].layernorm is not None
    normed = torch.nn.functional.layer_norm(features, (3,), eps=0.0).flatten(0, 2)
    torch.testing.assert_close(normed.sum(1), torch.zeros_like(normed[:, 0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(normed.norm(dim=1), torch.full_like(normed[:, 0], math.sqrt(3)))


def test_numbers_without_effect_where_the_blocks_start_once_from_zero():
    """The source's FNO++: weights of the first layer that only see z = 0. Tied ones see more later."""
    d, m1, m2 = SMALL[1]["width"], *SMALL[1]["modes"]
    for iterations, expected in ((1, 4 * m1 * m2 * d * d + 2 * d * d), (2, 0)):
        model = small("fno-injection", from_zero=True, iterations=iterations)
        model(fields()).square().sum().backward()
        silent = [p for p in model.parameters() if not p.grad.any()]
        assert sum(p.numel() for p in silent) == expected
    assert 4 * 12 * 12 * 32 * 32 + 2 * 32 * 32 == 591_872  # at the published sizes


def test_single_and_double_precision_agree():
    model, a = small("fno-wt"), fields()
    expected = model(a)
    torch.testing.assert_close(model.float()(a.float()).double(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(a.float())
    torch.testing.assert_close(low.double(), expected, rtol=0.1, atol=0.05)


def test_the_equilibrium_is_that_of_many_iterations_and_so_is_its_gradient():
    options = {"tolerance": 1e-12, "max_steps": 200}
    deq, tied = small("fno-deq", **options), small("fno-wt", iterations=150)
    tied.load_state_dict(deq.state_dict())
    a, target = fields(), fields()
    results = []
    for model in (deq, tied):
        y = model(a)
        ((y - target) ** 2).sum().backward()
        results.append((y.detach(), *(p.grad for p in model.parameters())))
    assert deq.status.forward.converged and deq.status.backward.converged
    assert deq.status.forward.residual.shape == (2,) and tied.status is None
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_an_equilibrium_that_is_not_found_is_told_in_the_status():
    model = small("fno-deq", max_steps=2, tolerance=1e-9)
    with torch.no_grad():
        assert bool(model(fields()).isfinite().all())
    assert not model.status.forward.converged and model.status.forward.steps == 2


def test_recomputing_changes_memory_alone():
    a, results, kept = fields(24, 24), [], []
    for recompute in (False, True):
        torch.manual_seed(3)
        model = small("fno-wt", recompute=recompute, iterations=6)
        model(a).square().sum().backward()
        results.append([p.grad for p in model.parameters()])
        kept.append(measure(lambda model=model: model(a)).saved_bytes)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    assert kept[1] < kept[0] / 3


def test_splines_keep_no_more_for_backward_than_the_mlps():
    """Lift and projection: one input per layer, where the MLP keeps its GELU's input too."""
    kept = {}
    for variant in VARIANTS[:2]:
        model = build_model("fno-plain", variant, **{**SMALL[1], "width": 32, "projection": 128})
        a = fields(24, 24, dtype=torch.float32)
        kept[variant] = measure(lambda model=model, a=a: model(a), apart=model.buffers()).saved_bytes
    assert kept["kan-spline"] <= kept["mlp"]


def test_kan_hidden_is_the_projections():
    config = model_config("fno-wt", "kan-spline", kan_hidden=(11,))
    assert config.kan_widths() == ((3, 32), (32, 11, 1))
    network = build_model("fno-wt", "kan-spline", kan_hidden=(11,))
    assert sum(p.numel() for part in (network.lift, network.projection) for p in part.parameters()) == 4_590


class OnceGelu:
    """GELU at every other call: neuraloperator 2.0.0 applies its activation twice where a block has no channel MLP."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return torch.nn.functional.gelu(x) if self.calls % 2 else x


def test_it_is_neuraloperators_fno():
    """Block for block, with copied weights; an even number of rows (see tests/layers/test_spectral_conv.py)."""
    neuralop = pytest.importorskip("neuralop.models")
    options = {"width": 8, "modes": (6, 5), "padding": 0, "projection": 16}
    ours, activation = small("fno-original", dtype=torch.float32, **options), OnceGelu()
    theirs = neuralop.FNO(
        n_modes=(12, 8), in_channels=3, out_channels=1, hidden_channels=8, n_layers=4, lifting_channel_ratio=0,
        projection_channel_ratio=2, positional_embedding=None, use_channel_mlp=False, fno_skip="linear",
        non_linearity=activation,
    )  # fmt: skip
    with torch.no_grad():
        pairs = [(theirs.lifting.fcs[0], ours.lift.layers[0]), *zip(theirs.projection.fcs, ours.projection.layers)]
        for target, source in pairs:
            target.weight.copy_(source.weight.unsqueeze(-1))
            target.bias.copy_(source.bias)
        blocks = theirs.fno_blocks
        for conv, skip, layer in zip(blocks.convs, blocks.fno_skips, [*ours.blocks[0].layers, ours.last]):
            conv.weight.tensor.copy_(layer.spectral.complex_weight.roll(6, 2))
            conv.bias.copy_(layer.pointwise.bias[:, None, None])
            skip.conv.weight.copy_(layer.pointwise.weight[..., 0])
        for size in ((32, 32), (20, 33)):
            a, activation.calls = fields(*size, dtype=torch.float32), 0
            expected = theirs(with_coordinates(a).permute(0, 3, 1, 2))
            torch.testing.assert_close(ours(a), expected, rtol=1e-5, atol=1e-5)
