"""A second derivative that PyTorch gets wrong is refused by name; one that it gets right is not."""

import pytest
import torch
from support.hessians import classes, cross_entropy, perceptron
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError
from kansciml.analysis.hessian import HessianOperator


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_wrong_double_backward_is_found_also_in_a_small_layer(norm, dtype):
    """PyTorch's fused weight_norm; with one norm for the whole matrix it is not fused, and right."""
    x, y = classes(30)
    net = perceptron(nn.Linear(5, 5), nn.ReLU(), nn.LayerNorm(5)).to(dtype)
    HessianOperator(net, cross_entropy, (x.to(dtype), y))
    for scale in (1.0, 1e-2):
        net = perceptron(nn.Linear(5, 5), nn.ReLU(), nn.LayerNorm(5)).to(dtype)
        norm(net[1])
        with pytest.raises(KansciError, match="not symmetric.*look at weight_norm") as caught:
            HessianOperator(net, lambda m, b, scale=scale: scale * cross_entropy(m, b), (x.to(dtype), y))
        assert "\n" not in str(caught.value)
    HessianOperator(net, cross_entropy, (x.to(dtype), y), parameters=["0", "5"])
    net = perceptron().to(dtype)
    net[0] = norm(net[0], dim=None)
    HessianOperator(net, cross_entropy, (x.to(dtype), y))


class Halved(torch.autograd.Function):
    """Product of a weight and an input, whose gradient by the weight forgets the input."""

    @staticmethod
    def forward(ctx, weight, x):
        ctx.save_for_backward(weight, x)
        return weight * x

    @staticmethod
    def backward(ctx, gradient):
        weight, x = ctx.saved_tensors
        return (gradient * x.detach()).sum(0), gradient * weight


def test_a_custom_function_that_detaches_is_named():
    net = perceptron()
    net.scale = nn.Parameter(torch.ones(3))

    def loss(module, batch):
        hidden = module[1](module[0](batch[0]))
        return F.cross_entropy(Halved.apply(module.scale, module[2](hidden)), batch[1])

    for kind in (torch.float32, torch.float64):
        x, y = classes(10)
        with pytest.raises(KansciError, match="not symmetric.*look at Halved"):
            HessianOperator(net.to(kind), loss, (x.to(kind), y))


class Square(torch.autograd.Function):
    """x^2, whose backward pass detaches x or not: then the Hessian lacks a term, and is symmetric all the same."""

    @staticmethod
    def forward(ctx, x, detach):
        ctx.save_for_backward(x)
        ctx.detach = detach
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * gradient * (x.detach() if ctx.detach else x), None


class Positive(torch.autograd.Function):
    """ReLU: its kinks are no fault."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_term_that_a_custom_function_drops_is_found(dtype):
    net, (x, y) = perceptron().to(dtype), classes(40)
    for batches in ((x.to(dtype), y), torch.utils.data.DataLoader([*zip(x.to(dtype), y)], batch_size=20)):
        with pytest.raises(KansciError, match="not differences of gradients.*backward pass of Square") as caught:
            HessianOperator(net, lambda m, b: F.cross_entropy(Square.apply(m(b[0]), True), b[1]), batches)
        assert "\n" not in str(caught.value)
        for right in (lambda z: Square.apply(z, False), Positive.apply):
            HessianOperator(net, lambda m, b, right=right: F.cross_entropy(right(m(b[0])), b[1]), batches)


def test_what_autograd_gets_right_is_symmetric_enough():
    """Kinks, statistics of the batch, half precision, autocast, checkpointing, complex weights."""
    x, y = classes(40)
    for net in (
        perceptron(nn.ReLU(), nn.Hardtanh()),
        perceptron(nn.BatchNorm1d(5, track_running_stats=False)),
        perceptron(nn.LayerNorm(5)).bfloat16(),
        perceptron(nn.LayerNorm(5)).half(),
        nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(4, 4), nn.GELU()))),
    ):
        HessianOperator(net, cross_entropy, (x.to(next(net.parameters()).dtype), y))
    HessianOperator(perceptron(nn.Dropout(0.5)), cross_entropy, (x, y), check=False)

    def autocast(module, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(module, batch)

    HessianOperator(perceptron(nn.Softplus()), autocast, [(x[:30], y[:30]), (x[30:], y[30:])])
    wave = nn.Linear(4, 3, dtype=torch.complex64)
    HessianOperator(wave, lambda m, b: F.cross_entropy(m(b[0]).abs(), b[1]), (x.to(torch.complex64), y))


def test_a_second_derivative_that_is_infinite_is_refused():
    def loss(module, batch):
        return module(batch).abs().sub(module(batch).abs().detach()).add(0).pow(1.5).sum()

    with pytest.raises(KansciError, match="a product with the Hessian is not finite"):
        HessianOperator(nn.Linear(4, 1), loss, torch.randn(5, 4))
