"""Batches of any kind give the Hessian of one big batch of the same samples; where they do not, they are refused."""

import dataclasses
from collections import UserDict, namedtuple
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian import HessianOperator, supervised
from kansciml.runs.trained import FirstSamples

cross_entropy, squares = supervised(F.cross_entropy), supervised(F.mse_loss)


class Encoding(UserDict):
    """As transformers' BatchEncoding: attributes are items."""

    def __getattr__(self, name):
        if name == "data":
            raise AttributeError(name)
        return self.data[name]


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    y: Any
    name: str = "train"


@dataclasses.dataclass
class Scaled:
    """Not to be made anew from its fields."""

    x: Any
    y: Any
    made: bool = dataclasses.field(init=False)

    def __post_init__(self):
        self.x, self.made = 2 * self.x, True


class AttrsLike:
    """What attrs makes of a class with slots, seen from outside."""

    __slots__ = ("x", "y")
    __attrs_attrs__ = (SimpleNamespace(name="x"), SimpleNamespace(name="y"))

    def __init__(self, x, y):
        self.x, self.y = x, y


KINDS = {
    "dict": lambda x, y: {"x": x, "y": y},
    "UserDict": lambda x, y: UserDict(x=x, y=y),
    "BatchEncoding": lambda x, y: Encoding(x=x, y=y),
    "proxy": lambda x, y: MappingProxyType({"x": x, "y": y}),
    "namedtuple": namedtuple("Pair", "x y"),
    "dataclass": lambda x, y: Scaled(x / 2, y),
    "frozen": Frozen,
    "attrs": AttrsLike,
    "namespace": lambda x, y: SimpleNamespace(x=x, y=y),
    "nested": lambda x, y: {"deep": [{"x": x}, (Frozen(x, y),)]},
    "arrays": lambda x, y: {"x": x.numpy(), "y": y.numpy()},
    "texts": lambda x, y: {"x": [" ".join(map(str, row)) for row in x.tolist()], "y": y},
}


def inputs_of(batch):
    """x and y as tensors, whatever holds them."""
    if isinstance(batch, dict) and "deep" in batch:
        return batch["deep"][0]["x"], batch["deep"][1][0].y
    x, y = (batch.x, batch.y) if hasattr(batch, "y") else (batch["x"], batch["y"])
    if isinstance(x, list):
        x = torch.tensor([[float(number) for number in text.split()] for text in x], dtype=torch.float64)
    return torch.as_tensor(x), torch.as_tensor(y)


def loss_of_any(module, batch):
    x, y = inputs_of(batch)
    return F.cross_entropy(module(x), y)


def perceptron(*middle, outputs=4):
    return nn.Sequential(nn.Linear(3, 5), *middle, nn.Tanh(), nn.Linear(5, outputs)).double()


def samples(n=10):
    return torch.randn(n, 3, dtype=torch.float64), torch.randint(4, (n,))


def in_two(*tensors, first=6):
    return [tuple(t[:first] for t in tensors), tuple(t[first:] for t in tensors)]


def product(*arguments, **options):
    operator = HessianOperator(*arguments, **options)
    return operator.matvec(torch.ones(operator.size, dtype=operator.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind_weigh_by_their_samples_and_are_cut(kind):
    net, (x, y) = perceptron(), samples()
    expected, make = product(net, cross_entropy, (x, y)), KINDS[kind]
    before = make(x, y)
    parts = [make(*part) for part in in_two(x, y, first=9)]
    for batches, micro in [
        (parts, None),
        (parts, 4),
        (make(x, y), 3),
        (make(x, y), None),
        (FirstSamples(parts, 10), 4),
    ]:
        torch.testing.assert_close(product(net, loss_of_any, batches, micro_batch=micro), expected)
    few = product(net, loss_of_any, FirstSamples(make(x, y), 7))
    torch.testing.assert_close(few, product(net, cross_entropy, (x[:7], y[:7])))
    assert all(map(torch.equal, inputs_of(before), inputs_of(make(x, y))))


def test_the_fingerprint_tells_the_tensors_of_every_kind_apart():
    net, (x, y) = perceptron(), samples(2000)
    other = x.clone()
    other[1000, 1] += 1e-9  # a printed tensor of this size leaves its middle out
    for kind, make in KINDS.items():
        if kind != "texts":
            prints = {
                HessianOperator(net, loss_of_any, make(inputs, y)).fingerprint for inputs in (x, x.clone(), other)
            }
            assert len(prints) == 2, kind


LABEL_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 0.1], dtype=torch.float64)
MEANS = {
    "sum": (F.cross_entropy, {"reduction": "sum"}, None),
    "class weights": (F.cross_entropy, {"weight": LABEL_WEIGHTS}, lambda batch: LABEL_WEIGHTS[batch[1]].sum()),
    "ignored labels": (F.cross_entropy, {"ignore_index": 0}, lambda batch: int((batch[1] != 0).sum())),
}


@pytest.mark.parametrize("kind", MEANS)
@pytest.mark.parametrize("zeros", [False, True])
def test_losses_that_are_no_means_over_samples_are_refused_or_counted(kind, zeros):
    criterion, options, count = MEANS[kind]
    net, x, y = perceptron(), samples()[0], torch.tensor([0, 1, 2, 3, 1, 1, 0, 0, 2, 3])
    if zeros:  # all losses are the same
        nn.init.zeros_(net[-1].weight), nn.init.zeros_(net[-1].bias)
    loss = supervised(lambda output, target: criterion(output, target, **options))
    for batches, micro in [(in_two(x, y), None), ((x, y), 4), (in_two(x, y), 3)]:
        with pytest.raises(UsageError, match="expected a mean over samples, as with reduction='mean'") as caught:
            HessianOperator(net, loss, batches, micro_batch=micro)
        assert "\n" not in str(caught.value)
        if count is not None:
            expected = product(net, loss, (x, y))
            torch.testing.assert_close(product(net, loss, batches, micro_batch=micro, count=count), expected)
            counted = HessianOperator(net, loss, batches, micro_batch=micro, count=count)
            assert counted.loss_value() == pytest.approx(float(loss(net, (x, y)).detach()), rel=1e-12)


def test_a_batch_with_nothing_that_counts_is_left_out():
    net, (x, y) = perceptron(), samples()
    y[6:] = -100
    for batches, micro in [(in_two(x, y), None), ((x, y), 2)]:
        found = product(net, cross_entropy, batches, micro_batch=micro, count=lambda batch: (batch[1] >= 0).sum())
        torch.testing.assert_close(found, product(net, cross_entropy, (x[:6], y[:6])))
    with pytest.raises(UsageError, match="count is 0 for each of the 2 batches"):
        HessianOperator(net, cross_entropy, in_two(x, y), count=lambda batch: 0)


def test_ignored_tokens_are_found_where_each_batch_is_even_in_itself():
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    words = torch.randint(7, (6, 5))
    labels = words.roll(1, 1)
    loss = supervised(lambda output, target: F.cross_entropy(output.flatten(0, 1), target.flatten()))
    truth = product(net, loss, (words, labels))
    torch.testing.assert_close(product(net, loss, in_two(words, labels, first=4)), truth)
    labels[4:, 3:] = -100
    with pytest.raises(UsageError, match="got several batches, but the loss of 3 samples"):
        HessianOperator(net, loss, in_two(words, labels, first=4))
    shorter = [(words[:4], labels[:4]), (words[4:, :3], labels[4:, :3])]
    with pytest.raises(UsageError, match="samples differ in shape.*count="):
        HessianOperator(net, loss, shorter)
    found = product(net, loss, shorter, count=lambda batch: (batch[1] >= 0).sum())
    torch.testing.assert_close(found, product(net, loss, (words, labels)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_over_samples_are_accepted_down_to_rounding(dtype):
    """At a minimum of zero, losses are rounding errors; the Hessian is not."""
    net, x = perceptron().to(dtype), samples()[0].to(dtype)
    batches = [(part, net(part.flip(0)).flip(0).detach()) for (part,) in in_two(x)]
    HessianOperator(net, squares, batches), HessianOperator(net, squares, batches, micro_batch=2)
    smooth = supervised(nn.CrossEntropyLoss(label_smoothing=0.1))
    HessianOperator(net, lambda m, b: smooth(m, b) + 0.1 * m[0].weight.square().sum(), in_two(x, samples()[1]))


def test_losses_that_take_gradients_themselves_are_compared_too():
    net, x = perceptron(outputs=1), samples()[0]

    def slopes(module, batch):
        batch = batch.clone().requires_grad_()
        (slope,) = torch.autograd.grad(module(batch).sum(), batch, create_graph=True)
        return (slope - 1).square().mean()

    torch.testing.assert_close(product(net, slopes, list(x.split(4))), product(net, slopes, x))
    with pytest.raises(UsageError, match="expected a mean over samples"):
        HessianOperator(net, lambda m, b: slopes(m, b) * len(b), list(x.split(4)))


class Cycle:
    def __init__(self, x, y):
        self.x, self.y, self.itself = x, y, self


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_sparse_inputs_are_cut_and_put_together():
    net, (x, y) = perceptron(), samples()

    def loss(module, batch):
        return cross_entropy(module, (batch[0].to_dense(), batch[1]))

    expected = product(net, cross_entropy, (x, y))
    parts = [(part.to_sparse(), labels) for part, labels in in_two(x, y)]
    for batches, micro in [(parts, None), ((x.to_sparse(), y), 3)]:
        torch.testing.assert_close(product(net, loss, batches, micro_batch=micro), expected)
    with pytest.raises(UsageError, match="layout torch.sparse_csr, which cannot be cut") as caught:
        HessianOperator(net, loss, (x.to_sparse_csr(), y), micro_batch=3)
    assert "\n" not in str(caught.value)


class ReadOnce:
    def __init__(self, batches):
        self.batches = iter(batches)

    def __iter__(self):
        return self.batches


def of_a_loader(**options):
    data = torch.utils.data.TensorDataset(*samples(11))
    return torch.utils.data.DataLoader(data, **options)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda: ReadOnce(in_two(*samples())), "can it be read only once"),
        (lambda: [(0, 6), (6, 10)], "batches of type tuple without tensors.*count="),
        (lambda: [Cycle(*samples())] * 2, "a Cycle that contains itself"),
        (lambda: [None, None], "batches of type NoneType without tensors.*count="),
        (lambda: torch.utils.data.TensorDataset(*samples()), "batches of type TensorDataset"),
        (lambda: [(samples()[0], samples(9)[1])] * 2, "lengths 9, 10.*count="),
        (lambda: of_a_loader(batch_size=4, shuffle=True, drop_last=True), "evaluated twice"),
    ],
)
def test_data_that_cannot_be_averaged_are_refused_in_one_line(batches, message):
    net, (x, y) = perceptron(), samples()

    def loss(module, batch):
        if batch is None or (isinstance(batch, tuple) and isinstance(batch[0], int)):
            batch = (x, y) if batch is None else (x[slice(*batch)], y[slice(*batch)])
        return cross_entropy(module, batch)

    with pytest.raises(KansciError, match=message) as caught:
        HessianOperator(net, loss, batches())
    assert "\n" not in str(caught.value)


def test_ranges_and_fixed_sizes_are_counted_by_the_caller():
    net, (x, y) = perceptron(), samples()
    expected = product(net, cross_entropy, (x, y))

    def of_range(module, batch):
        return cross_entropy(module, (x[slice(*batch)], y[slice(*batch)]))

    found = product(net, of_range, [(0, 6), (6, 10)], count=lambda batch: batch[1] - batch[0])
    torch.testing.assert_close(found, expected)

    def of_five(module, batch):
        return cross_entropy(module, (batch[0].view(5, 3), batch[1]))

    with pytest.raises(UsageError, match=r"cannot be taken of half a batch \(RuntimeError.*count="):
        HessianOperator(net, of_five, in_two(x, y, first=5))
    torch.testing.assert_close(product(net, of_five, in_two(x, y, first=5), count=lambda batch: 5), expected)
    for wrong in (lambda batch: -1, lambda batch: None, lambda batch: np.nan):
        with pytest.raises(UsageError, match="count gave .*: expected a number of at least 0"):
            HessianOperator(net, cross_entropy, in_two(x, y), count=wrong)
    with pytest.raises(UsageError, match="got count 5: expected a function of a batch"):
        HessianOperator(net, cross_entropy, in_two(x, y), count=5)


def test_statistics_over_the_batch_cannot_be_averaged():
    net, (x, y) = perceptron(nn.BatchNorm1d(5, track_running_stats=False)), samples()
    HessianOperator(net, cross_entropy, (x, y))
    for batches, micro, what in [(in_two(x, y), None, "several batches"), ((x, y), 4, "micro_batch 4")]:
        with pytest.raises(UsageError, match=rf"{what}.*\(1 may use the batch's statistics\)"):
            HessianOperator(net, cross_entropy, batches, micro_batch=micro)
    HessianOperator(net, cross_entropy, in_two(x, y), check=False)
