"""Hessian-vector products equal the exact Hessian of every kind of model, to 1e-12 in float64."""

import copy

import pytest
import torch
from support.hessians import F64, Mixer, classes, cross_entropy, exact_hessian, relative, squares
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchdiffeq import odeint

from kansciml.analysis.hessian import HessianOperator, hvp
from kansciml.layers._kernels import cpp_library
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN

TOLERANCE = 1e-12
"""Relative, of the whole matrix: what the same sums in another order leave is near 1e-15."""


def net_with_unused_and_frozen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.unused, self.last = nn.Linear(4, 5), nn.Linear(2, 2), nn.Linear(5, 3)
            self.frozen = nn.Linear(5, 5).requires_grad_(False)

        def forward(self, x):
            return self.last(torch.tanh(self.frozen(torch.tanh(self.first(x)))))

    return Net().double()


class PlainSplines(nn.Module):
    """SplineKAN layers by their formula: a dense basis, one einsum, no kernels; parameters in the same order."""

    def __init__(self, layers):
        super().__init__()
        self.layers = copy.deepcopy(layers)

    def forward(self, x):
        for layer in self.layers:
            weight = layer.spline_weight
            if layer.spline_scale is not None:
                weight = weight * layer.spline_scale.unsqueeze(1)
            x = torch.einsum("nip,ipo->no", layer.basis(x), weight) + F.silu(x) @ layer.base_weight
        return x


class Attention(nn.Module):
    """One head of self-attention; `fused` by PyTorch's function, otherwise by its formula."""

    def __init__(self, width=4, classes=3):
        super().__init__()
        self.qkv, self.head, self.fused = nn.Linear(width, 3 * width), nn.Linear(width, classes), True

    def forward(self, x):
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)  # (B, heads, T, C)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        return self.head(mixed.squeeze(1).mean(1))


class MultiHead(nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head, self.weights = nn.Linear(width, classes), False

    def forward(self, x):
        # with weights, PyTorch multiplies the matrices out; without, it calls a fused kernel
        return self.head(self.attention(x, x, x, need_weights=self.weights)[0].mean(1))


class Spectral(nn.Module):
    """A spectral convolution with complex weights (2, 2, 3, 2) on the lowest modes, and a pointwise nonlinearity."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(1, 2)
        self.weight = nn.Parameter(torch.randn(2, 2, 3, 2, dtype=torch.complex128) / 2)
        self.project = nn.Linear(2, 1)

    def forward(self, x):
        z = self.lift(x.unsqueeze(-1)).movedim(-1, 1)
        modes = torch.fft.rfft2(z)
        out = torch.zeros_like(modes)
        out[:, :, :3, :2] = torch.einsum("bixy,ioxy->boxy", modes[:, :, :3, :2], self.weight)
        z = F.gelu(torch.fft.irfft2(out, s=z.shape[-2:]))
        return self.project(z.movedim(1, -1)).squeeze(-1)


def dense(operator):
    return operator.matvec(torch.eye(operator.size, dtype=operator.dtype))


def require_exact(module, loss, batch, truth_module=None, **options):
    """Both ways of doing products against the exact Hessian, and symmetric."""
    truth = exact_hessian(truth_module or module, loss, batch)
    assert truth.abs().max() > 1e-6
    for keep in (True, False):
        operator = HessianOperator(module, loss, batch, keep_graph=keep, **options)
        found = dense(operator)
        assert relative(found, truth) <= TOLERANCE
        assert relative(found, found.t()) <= TOLERANCE


def test_perceptron_with_unused_and_frozen_parameters():
    net, batch = net_with_unused_and_frozen(), classes(20, dtype=F64)
    require_exact(net, cross_entropy, batch)
    operator = HessianOperator(net, cross_entropy, batch)
    assert operator.names == ("first.weight", "first.bias", "unused.weight", "unused.bias", "last.weight", "last.bias")
    unused = operator.split(torch.arange(operator.size, dtype=F64))["unused.weight"].long().reshape(-1)
    found = dense(operator)
    assert not found[unused].any() and not found[:, unused].any()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_spline_kan(backend, scale):
    if backend == "cpp" and not cpp_library.available():
        pytest.skip("the C++ kernels were not built")
    shape = {"grid": 3, "spline_order": 3, "spline_scale": scale, "backend": backend, "dtype": torch.float64}
    net = nn.Sequential(SplineKAN(3, 4, **shape), SplineKAN(4, 3, **shape))
    require_exact(net, cross_entropy, classes(15, 3, dtype=F64), PlainSplines(net))


@pytest.mark.parametrize(
    "options", [{}, {"layer_norm": False}, {"learn_grid": True}, {"grid_range": (-12, 12)}], ids=str
)
def test_rswaf_kan(options):
    """One exponential for all grid points, or, on a grid that is wide for its functions, one for each."""
    shape = {"grid": 4, "bias": True, "dtype": torch.float64, **options}
    net = nn.Sequential(RSWAFKAN(3, 4, **shape), RSWAFKAN(4, 3, **shape))
    require_exact(net, cross_entropy, classes(15, 3, dtype=F64))


class Last(nn.Module):
    """A recurrent layer, read at its last step."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Checkpointed(nn.Module):
    """The forward pass runs again in every backward pass, also through a kept graph."""

    def __init__(self):
        super().__init__()
        self.attention = Attention()

    def forward(self, x):
        return checkpoint(self.attention, x, use_reentrant=False)


def changed(net, **attributes):
    """A copy of a module with other attributes: the same function by operations that have second derivatives."""
    plain = copy.deepcopy(net)
    for name, value in attributes.items():
        setattr(plain, name, value)
    return plain


def encoder():
    """In eval mode PyTorch would take a fused inference path."""
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3)).double().eval()
    return net, copy.deepcopy(net).train(), (3, 4)


def normed():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.SiLU(), nn.Flatten(), nn.Linear(12, 3)).double()
    net(torch.randn(8, 2, 4, 4, dtype=F64))  # running statistics other than 0 and 1
    return net.eval(), None, (2, 4, 4)


def attention():
    net = Attention().double()
    return net, changed(net, fused=False), (5, 4)


def multi_head(training):
    net = MultiHead().double().train(training)
    return net, changed(net, weights=True), (5, 4)


def checkpointed():
    net = Checkpointed().double()
    return net, changed(net.attention, fused=False), (5, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (Mixer().double(), None, (4, 6)),
        attention,
        lambda: multi_head(True),
        lambda: multi_head(False),
        encoder,
        normed,
        lambda: (Last().double(), None, (4, 2)),
        checkpointed,
    ],
    ids=["mixer", "attention", "multi-head", "multi-head, eval", "encoder", "batch norm", "recurrent", "checkpointed"],
)
def test_networks_of_other_layers(make):
    net, plain, shape = make()
    require_exact(net, cross_entropy, classes(6, *shape, dtype=F64), plain)


def test_complex_parameters_count_as_pairs_of_reals():
    net = Spectral().double()
    batch = torch.randn(3, 6, 6, dtype=F64), torch.randn(3, 6, 6, dtype=F64)
    require_exact(net, squares, batch)
    operator = HessianOperator(net, squares, batch)
    assert operator.size == 4 + 2 * 24 + 3
    vector = torch.randn(operator.size, dtype=F64)
    assert operator.split(vector)["weight"].dtype == torch.complex128
    assert torch.equal(operator.join(operator.split(vector)), vector)
    # real coordinates in the order Re, Im: by central differences of the gradient in one imaginary part
    index = operator.join({name: torch.zeros_like(p) for name, p in net.named_parameters()})
    entry = int(operator.split(torch.arange(operator.size, dtype=F64))["weight"][0, 0, 1, 1].imag)
    index[entry] = 1
    slopes = []
    for step in (1e-5, -1e-5):
        moved = copy.deepcopy(net)
        moved.weight.data[0, 0, 1, 1] += step * 1j
        slopes.append(HessianOperator(moved, squares, batch).gradient())
    assert relative((slopes[0] - slopes[1]) / 2e-5, operator.matvec(index)) < 1e-8


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_ode_solved_inside_the_loss(method):
    field = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    times = torch.linspace(0, 1, 5, dtype=F64)
    batch = torch.randn(3, 2, dtype=F64), torch.randn(5, 3, 2, dtype=F64).transpose(0, 1)

    def loss(module, batch):
        path = odeint(lambda t, u: module(u), batch[0], times, method=method, rtol=1e-6, atol=1e-8)
        return F.mse_loss(path.transpose(0, 1), batch[1])

    require_exact(field, loss, batch)


def test_loss_that_uses_function_transforms():
    """As physics-informed losses do: the derivative in x by torch.func, which refuses hooks on saved tensors."""
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def loss(module, x):
        slope = torch.func.vmap(torch.func.grad(lambda point: module(point).squeeze()))(x)
        return ((slope - torch.cos(x)) ** 2).mean()

    points = torch.linspace(-1, 1, 7, dtype=F64).unsqueeze(-1)
    require_exact(net, loss, points)

    def by_autograd(module, x):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        return ((slope - torch.cos(x)) ** 2).mean()

    require_exact(net, by_autograd, points, micro_batch=3)


def test_float32_products_are_exact_to_float32():
    net, (x, y) = net_with_unused_and_frozen(), classes(20, dtype=F64)
    truth = exact_hessian(net, cross_entropy, (x, y))
    operator = HessianOperator(net.float(), cross_entropy, (x.float(), y))
    assert operator.dtype == torch.float32
    assert relative(dense(operator).double(), truth) < 1e-5


def test_batches_and_uneven_micro_batches_equal_one_batch():
    net, (x, y) = Mixer(3, 4, 3).double(), classes(23, 3, 4, dtype=F64)
    columns = torch.randn(sum(p.numel() for p in net.parameters()), 3, dtype=F64)
    truth = exact_hessian(net, cross_entropy, (x, y)) @ columns
    data = torch.utils.data.TensorDataset(x, y)
    ways = [
        ((x, y), 5),
        ([(x[:9], y[:9]), (x[9:], y[9:])], None),
        ([(x[:9], y[:9]), [x[9:], y[9:]]], 4),
        (torch.utils.data.DataLoader(data, batch_size=6), None),
        (torch.utils.data.DataLoader(data, batch_size=6, shuffle=True), 4),
    ]
    prints = set()
    for keep in (True, False):
        for batches, micro in ways:
            operator = HessianOperator(net, cross_entropy, batches, micro_batch=micro, keep_graph=keep)
            assert relative(operator.matvec(columns), truth) <= TOLERANCE
            assert operator.loss_value() == pytest.approx(cross_entropy(net, (x, y)).item(), rel=1e-14)
            prints.add((keep, micro, operator.fingerprint))
    assert len(prints) == len(ways) * 2


def test_losses_without_data():
    net, (x, y) = net_with_unused_and_frozen(), classes(12, dtype=F64)
    operator = HessianOperator(net, lambda m, b: F.cross_entropy(m(x), y), None)
    assert relative(dense(operator), exact_hessian(net, cross_entropy, (x, y))) <= TOLERANCE


def test_a_choice_of_parameters_gives_the_block_of_the_hessian():
    net, batch = net_with_unused_and_frozen(), classes(20, dtype=F64)
    truth = exact_hessian(net, cross_entropy, batch)
    for choice in (["last"], ["last.weight", "last.bias"], lambda name, p: name.startswith("last")):
        operator = HessianOperator(net, cross_entropy, batch, parameters=choice)
        assert operator.names == ("last.weight", "last.bias")
        assert relative(dense(operator), truth[-operator.size :, -operator.size :]) <= TOLERANCE
    assert net.first.weight.requires_grad and not net.frozen.weight.requires_grad


def test_gradient_and_hvp_in_the_form_of_the_vector():
    net, batch = net_with_unused_and_frozen(), classes(20, dtype=F64)
    operator = HessianOperator(net, cross_entropy, batch)
    cross_entropy(net, batch).backward()
    for name, part in operator.split(operator.gradient()).items():
        grad = dict(net.named_parameters())[name].grad
        assert torch.allclose(part, torch.zeros_like(part) if grad is None else grad, rtol=1e-13, atol=1e-16)
    # leftover gradients change nothing
    vector = torch.randn(operator.size, dtype=F64)
    truth = exact_hessian(net, cross_entropy, batch) @ vector
    assert relative(hvp(net, cross_entropy, batch, vector), truth) <= TOLERANCE
    by_name = hvp(net, cross_entropy, batch, operator.split(vector))
    assert relative(operator.join(by_name), truth) <= TOLERANCE
