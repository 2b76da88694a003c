"""AdamW: which parameters are decayed, the step itself, and the learning rate against closed forms and torch."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import UsageError
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.models.registry import available_families, build_model, get_family
from kansciml.training.optim import adamw, parameter_groups, rate


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch = nn.BatchNorm2d(4)
        self.layer = nn.LayerNorm((4, 5))
        self.group = nn.GroupNorm(2, 4)
        self.linear = nn.Linear(4, 2)
        self.position = nn.Parameter(torch.zeros(1, 7, 4))
        self.bias = nn.Parameter(torch.zeros(2, 2))
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
        self.spectral = nn.Parameter(torch.zeros(2, 2, 3, dtype=torch.complex64))

    def no_weight_decay(self):
        return {"position"}


def names(model):
    groups = parameter_groups(model, 0.1)
    return {group["weight_decay"]: set(group["names"]) for group in groups}


def test_weights_are_decayed_and_nothing_else():
    found = names(Everything())
    assert found[0.1] == {"conv.weight", "linear.weight", "spectral"}
    everything = {name for name, p in Everything().named_parameters() if p.requires_grad}
    assert found[0.0] == everything - found[0.1] and "frozen" not in everything


def test_coefficients_and_scales_of_a_kan_are_weights():
    assert names(SplineKAN(3, 2))[0.1] >= {"spline_weight"}
    assert names(TextbookKAN(3, 2))[0.1] == {"base_weight", "spline_weight", "spline_scale"}


@pytest.mark.parametrize("variant", ["mlp", "kan-spline", "kan-rswaf"])
@pytest.mark.parametrize("kind", ["vision", "operator"])
def test_the_weights_of_every_model_are_decayed_by_name(kind, variant):
    """A weight is what a matrix product, a convolution or a sum of splines multiplies its input by."""
    weights = {"weight", "base_weight", "spline_weight", "spline_scale"}
    for family in available_families(kind=kind):
        model = get_family(family, kind=kind)
        with torch.device("meta"):
            network = model.module(model.config(next(iter(model.presets)), variant))
        norms = {name for name, part in network.named_modules() if "norm" in type(part).__name__.lower()}
        owners = {name: name.rpartition(".")[::2] for name, _ in network.named_parameters()}
        expected = {name for name, (owner, last) in owners.items() if last in weights and owner not in norms}
        found = names(network)
        assert found[0.1] == expected and found[0.0] == set(owners) - expected, family


def tokens():
    return build_model("deit-tiny", depth=1, image_size=16, width=12)


class Ours(nn.Module):
    """A model of a user around another one, with names of its own."""

    def __init__(self):
        super().__init__()
        self.backbone, self.query = tokens(), nn.Parameter(torch.zeros(2, 12))

    def no_weight_decay(self):
        return ["query", "backbone.head.weight", "absent"]


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda net: net, ""),
        (nn.DataParallel, "module."),
        (torch.optim.swa_utils.AveragedModel, "module."),
        (lambda net: nn.Sequential(nn.Identity(), net), "1."),
        (lambda net: nn.DataParallel(torch.compile(net)), "module._orig_mod."),
        (torch.compile, "_orig_mod."),
    ],
)
def test_wrappers_change_nothing_about_what_is_decayed(wrap, prefix):
    for make in (tokens, Ours):
        bare, wrapped = names(make()), names(wrap(make()))
        assert {rate: {prefix + name for name in own} for rate, own in bare.items()} == wrapped
    assert {"cls_token", "pos_embed"} <= names(tokens())[0.0]
    assert {"query", "backbone.head.weight", "backbone.cls_token", "backbone.pos_embed"} <= names(Ours())[0.0]


def test_names_reach_through_wrappers_and_parametrisations_inside():
    model = Ours()
    model.backbone = torch.compile(nn.DataParallel(model.backbone))
    nn.utils.parametrizations.weight_norm(model.backbone.module.head)
    head = "backbone._orig_mod.module.head.parametrizations.weight.original"
    assert {head + "0", head + "1", "backbone._orig_mod.module.cls_token"} <= names(model)[0.0]


def test_a_tied_parameter_is_left_out_by_either_name():
    for named in ("first", "second"):
        model = nn.Module()
        model.first = model.second = nn.Parameter(torch.zeros(2, 2))
        model.no_weight_decay = lambda named=named: {named}
        assert names(model) == {0.0: {"first"}}


def test_learned_grid_points_and_scales_are_not_decayed():
    found = names(RSWAFKAN(3, 2, learn_grid=True, bias=True))
    assert found == {0.1: {"spline_weight"}, 0.0: {"grid_points", "bias", "layernorm.weight", "layernorm.bias"}}


@pytest.mark.parametrize("wrong", ["position", None, [3]])
def test_what_names_no_parameters_is_refused(wrong):
    model = Everything()
    model.no_weight_decay = lambda: wrong
    with pytest.raises(UsageError, match=r"from no_weight_decay\(\) of Everything: expected a set"):
        parameter_groups(model, 0.1)


def test_a_parameter_without_a_shape_is_refused():
    with pytest.raises(UsageError, match="0.weight without a shape yet: call the model on a batch first"):
        parameter_groups(nn.Sequential(nn.LazyLinear(3)), 0.1)


def test_a_tied_weight_is_one_parameter():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert names(model) == {0.1: {"0.weight"}}


def test_a_zero_gradient_leaves_the_decay_alone():
    model = Everything()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimiser = adamw(model, 0.5, weight_decay=0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        expected = 1 - 0.5 * 0.2 if name in ("conv.weight", "linear.weight", "spectral") else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_that_of_the_paper(dtype, layout):
    """Loshchilov and Hutter 2019, algorithm 2; the fused kernel for real weights, also in channels-last layout."""
    model = nn.ParameterList([torch.randn(4, 3, 2, 2, dtype=dtype).to(memory_format=layout)])
    weight = model[0].detach().contiguous()
    optimiser = adamw(model, 0.1, weight_decay=0.3, betas=(0.8, 0.9))
    assert bool(optimiser.defaults["fused"]) == (dtype == torch.float64)
    parts = torch.view_as_real if dtype.is_complex else torch.clone
    theta = parts(weight).numpy().copy()
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t in range(1, 6):
        gradient = torch.randn(4, 3, 2, 2, dtype=dtype)
        model[0].grad = gradient.to(memory_format=layout)
        optimiser.step()
        g = parts(gradient).numpy()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        theta = theta - 0.1 * 0.3 * theta
        theta = theta - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    np.testing.assert_allclose(parts(model[0].detach().contiguous()).numpy(), theta, rtol=1e-12)


def test_cosine_rises_in_a_line_and_falls_in_half_a_cosine():
    rates = [rate(step, 100, peak=0.2, warmup=10, minimum=0.02) for step in range(100)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], 0.02 + 0.09 * (1 + np.cos(np.pi * np.arange(90) / 89)))
    assert rates[-1] == 0.02 and max(rates) == rates[9] == rates[10] == 0.2


def test_constant_stays_at_its_peak_after_the_warm_up():
    assert [rate(s, 6, peak=1.0, warmup=2, schedule="constant") for s in range(6)] == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("total", "warmup"), [(100, 0), (37, 0), (50, 10), (50, 50 * 0.3)])
def test_onecycle_is_torchs(total, warmup):
    parameter = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        0.3,
        total_steps=total,
        pct_start=warmup / total if warmup else 0.3,
        cycle_momentum=False,
        final_div_factor=0.3 / 25 / 1e-4,
    )
    for step in range(total):
        expected = optimiser.param_groups[0]["lr"]
        assert math.isclose(
            rate(step, total, peak=0.3, warmup=warmup, schedule="onecycle", minimum=1e-4), expected, rel_tol=1e-9
        ), step
        optimiser.step()
        if step < total - 1:
            scheduler.step()


@pytest.mark.parametrize("schedule", ["cosine", "constant", "onecycle"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 1), (7, 7)])
def test_the_shortest_trainings_have_learning_rates(schedule, total, warmup):
    rates = [rate(step, total, peak=1.0, warmup=warmup, schedule=schedule) for step in range(total)]
    assert all(0 <= value <= 1 for value in rates) and max(rates) > 0
