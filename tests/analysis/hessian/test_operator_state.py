"""The operator refuses what has no Hessian in one line, and leaves everything as it found it."""

import random

import numpy as np
import pytest
import torch
from support.hessians import classes, cross_entropy, perceptron
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian import HessianOperator, hvp, supervised


def state_of(net):
    """Everything that must stay: random numbers to come, modes, gradients, flags, parameters and buffers."""
    numbers = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    modes = [(part.training, part) for part in net.modules()]
    parameters = [(id(p), id(p.grad), p.requires_grad, p._version, p.detach().clone()) for p in net.parameters()]
    return numbers, modes, parameters, [(id(b), b.clone()) for b in net.buffers()]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def prepared_net():
    """Mixed modes, a leftover gradient, a frozen parameter, running statistics."""
    net = perceptron(nn.BatchNorm1d(5), nn.Dropout(0.3))
    F.cross_entropy(net(torch.randn(9, 4)), torch.randint(3, (9,))).backward()
    net[0].bias.requires_grad_(False)
    return net


def test_everything_is_left_as_it_was():
    net, batch = prepared_net(), classes(10)
    net[1].eval(), net[2].eval()
    before = state_of(net)
    assert same(before, state_of(net))
    with torch.no_grad():
        operator = HessianOperator(net, cross_entropy, batch, parameters=["0"], micro_batch=3)
        operator.matvec(torch.randn(operator.size, generator=torch.Generator()))
    operator.gradient(), operator.memory_needed(), operator.fingerprint
    assert same(before, state_of(net))
    with torch.inference_mode():
        assert not operator.gradient().is_inference()
        column = torch.ones(operator.size, 1)
        assert torch.equal(operator.matvec(column)[:, 0], operator.matvec(column[:, 0]))


@pytest.mark.parametrize("check", [True, False])
def test_everything_is_left_as_it_was_also_after_an_exception_and_without_the_check(check):
    net, batch = prepared_net(), classes(10)
    before = state_of(net)
    calls = []

    def loss(module, batch):
        calls.append(1)
        module.eval() if len(calls) % 2 else module.train()
        value = cross_entropy(module, batch) + random.random() * np.random.rand()  # noqa: NPY002
        if len(calls) > 2:
            raise ArithmeticError("half-way")
        return value

    with pytest.raises((ArithmeticError, KansciError)):
        hvp(net, loss, [batch, batch, batch], torch.ones(48), check=check)
    assert len(calls) > 2 and same(before, state_of(net))


def random_dropout(module, batch):
    return F.cross_entropy(F.dropout(module(batch[0])), batch[1])


@pytest.mark.parametrize(
    ("middle", "loss", "message"),
    [
        (nn.Dropout(0.2), cross_entropy, r"evaluated twice.*1 \(Dropout, train mode\); call module.eval\(\)"),
        (nn.BatchNorm1d(5), cross_entropy, r"1\.running_mean.*1 \(BatchNorm1d, train mode\); call module.eval\(\)"),
        (nn.Identity(), random_dropout, "random operation in the loss"),
        (nn.Identity(), lambda m, b: cross_entropy(m, b) * random.random(), "random operation in the loss"),
    ],
    ids=["dropout", "batch norm", "dropout as a function", "random"],
)
def test_what_is_random_or_changes_buffers_is_refused_by_name_with_the_remedy(middle, loss, message):
    net, batch = perceptron(middle), classes(10)
    with pytest.raises(KansciError, match=message):
        HessianOperator(net, loss, batch)
    HessianOperator(net.eval(), cross_entropy, batch)


def test_without_the_check_random_numbers_are_the_same_in_every_product():
    net, batch = perceptron(nn.Dropout(0.2)), classes(10)
    vector = torch.randn(43)
    for keep in (True, False):
        operator = HessianOperator(net, cross_entropy, batch, check=False, keep_graph=keep)
        first = operator.matvec(vector)
        torch.rand(7)
        assert torch.equal(operator.matvec(vector), first)


def test_a_loader_that_shuffles_with_its_own_generator_keeps_it():
    x, y = classes(12)
    generator = torch.Generator().manual_seed(3)
    data = torch.utils.data.TensorDataset(x.double(), y)
    loader = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True, generator=generator)
    before = generator.get_state()
    net, vector = perceptron().double(), torch.randn(43, dtype=torch.float64)
    operator = HessianOperator(net, cross_entropy, loader, keep_graph=False)
    assert torch.equal(operator.matvec(vector), operator.matvec(vector))
    assert torch.equal(generator.get_state(), before)
    whole = hvp(net, cross_entropy, (x.double(), y), vector)
    assert torch.allclose(operator.matvec(vector), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none")}, r"shape \(10,\).*scalar"),
        ({"loss": lambda m, b: 1.0}, "loss of float"),
        ({"loss": lambda m, b: m(b[0]).detach().mean()}, "does not depend on any"),
        ({"loss": lambda m, b: m(b[0]).mean() / 0}, "the loss is (nan|inf|-inf)"),
        ({"loss": lambda m, b: (m(b[0]) * 0).square().sum().sqrt()}, "gradient is not finite in 0.weight"),
        ({"batches": []}, "no batches at all"),
        ({"batches": iter([classes(3)])}, "only once"),
        ({"batches": (part for part in [classes(3)])}, "got batches as a generator"),
        ({"batches": 7}, "batches of type int"),
        ({"batches": list(classes(3))}, r"expected \(x, y\)"),
        ({"batches": [classes(3), classes(0)]}, "batch 2 has no samples"),
        ({"batches": (torch.randn(4, 4), torch.zeros(3).long()), "micro_batch": 2}, "lengths 3, 4"),
        ({"micro_batch": 0}, "micro_batch 0"),
        ({"parameters": ["1"]}, "unknown parameter '1'.*0.weight"),
        ({"parameters": lambda name, p: False}, "no trainable parameter was chosen"),
        ({"keep_graph": "yes"}, "keep_graph 'yes'"),
        ({"memory": 0}, "memory 0"),
        ({"distributed": True}, "torchrun"),
    ],
)
def test_what_has_no_hessian_is_refused_in_one_line(change, message):
    arguments = {"loss": cross_entropy, "batches": classes(10), **change}
    with pytest.raises(KansciError, match=message) as caught:
        HessianOperator(perceptron(), **arguments)
    assert "\n" not in str(caught.value)


def test_frozen_modules_and_names_are_refused():
    net = perceptron()
    net[0].weight.requires_grad_(False)
    with pytest.raises(UsageError, match=r"'0.weight' is frozen"):
        HessianOperator(net, cross_entropy, classes(10), parameters=["0.weight"])
    with pytest.raises(UsageError, match="without trainable parameters"):
        HessianOperator(net.requires_grad_(False), cross_entropy, classes(10))


def test_vectors_that_do_not_fit_are_refused():
    net, batch = perceptron(), classes(10)
    operator = HessianOperator(net, cross_entropy, batch)
    for vector in (torch.ones(42), torch.ones(43, 2, 2), torch.ones(43).long(), torch.ones(43) * 1j, [1.0]):
        with pytest.raises(UsageError, match=r"expected \(43,\)"):
            operator.matvec(vector)
    parts = operator.split(torch.ones(43))
    with pytest.raises(UsageError, match="unknown parameter 'x'"):
        operator.join({**parts, "x": torch.ones(1)})
    with pytest.raises(UsageError, match=r"'0.weight' of shape \(2,\): expected \(5, 4\)"):
        operator.join({**parts, "0.weight": torch.ones(2)})
    with pytest.raises(UsageError, match="no part for parameter '0.bias'"):
        operator.join({name: part for name, part in parts.items() if name != "0.bias"})


def test_parameters_that_changed_are_noticed():
    net, batch = perceptron(), classes(10)
    operator = HessianOperator(net, cross_entropy, batch)
    operator.matvec(torch.ones(43))
    with torch.no_grad():
        net[0].bias.add_(1)
    with pytest.raises(KansciError, match="make a new one"):
        operator.matvec(torch.ones(43))


class Once(torch.autograd.Function):
    """exp, with a backward pass that autograd cannot differentiate."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.exp())
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


def test_an_operation_without_a_second_derivative_is_named():
    x, y = classes(10)
    for loss in (lambda m, b: Once.apply(m(b)).mean(), lambda m, b: Once.apply(m(b)).square().mean()):
        with pytest.raises(KansciError, match="cannot be differentiated twice: Once is marked"):
            hvp(perceptron(), loss, x, torch.ones(43))
    embedding = nn.Sequential(nn.Linear(4, 5), nn.Embedding(3, 5, sparse=True))

    def sparse(module, batch):
        return (module[0](batch[0]) * module[1](batch[1])).sum(1).square().mean()

    with pytest.raises(KansciError, match="set sparse=False"):
        hvp(embedding, sparse, (x, y), torch.ones(40))


@pytest.mark.parametrize("keep", [True, False])
def test_finite_differences_find_a_second_derivative_that_is_silently_missing(keep):
    net, (x, y) = perceptron().double(), classes(10)
    wrong = HessianOperator(net, lambda m, b: Once.apply(m(b)).mean(), x.double(), keep_graph=keep, check=False)
    right = HessianOperator(net, lambda m, b: torch.exp(m(b)).mean(), x.double(), keep_graph=keep)
    before, product = state_of(net), right.matvec(torch.ones(43))
    assert wrong.finite_difference_error() > 0.1  # autograd itself says nothing
    assert 0 < right.finite_difference_error(seed=3) < 1e-7
    assert same(before, state_of(net)) and torch.equal(right.matvec(torch.ones(43)), product)
    low = HessianOperator(net.float(), cross_entropy, (x, y), keep_graph=keep)
    assert low.finite_difference_error() < 0.05


def test_the_fingerprint_tells_parameters_data_loss_and_mode_apart():
    net, (x, y) = perceptron(nn.BatchNorm1d(5)).eval(), classes(10)

    def of(loss=cross_entropy, data=(x, y), **options):
        return HessianOperator(net, loss, data, **options).fingerprint

    first = of()
    assert len(first) == 64 and of() == first == of(micro_batch=4, keep_graph=False)
    others = {of(data=(x + 1e-3, y)), of(data=(x, (y + 1) % 3)), of(parameters=["0"])}
    others |= {of(supervised(nn.CrossEntropyLoss(label_smoothing=0.1)))}
    with torch.no_grad():
        net[1].running_mean.add_(1e-3)
    others |= {of()}
    with torch.no_grad():
        net[0].bias[0] += 1e-3
    others |= {of()}
    assert len(others | {first}) == 7
