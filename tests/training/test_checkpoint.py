"""Checkpoints: every kind of tensor comes back, damage is noticed, a full disk is one line, the last two stay."""

import resource

import pytest
import torch
from safetensors import safe_open
from torch import nn

from kansciml import KansciError
from kansciml.training._checkpoint import Checkpoints, collect, load_tensors, restore, save_tensors
from kansciml.training.ema import Ema
from kansciml.training.optim import adamw


def tensors(number=0):
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) + number
    return {
        "a": base,
        "shared": base[0],
        "turned": base.permute(2, 0, 1),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128),
    }


class Mixed(nn.Module):
    """Real and complex weights, a tied one, running statistics, channels-last."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.spectral = nn.Parameter(torch.randn(width, 2, dtype=torch.complex64))
        self.head = nn.Linear(width, width)
        self.again = nn.Linear(width, width)
        self.again.weight = self.head.weight

    def forward(self, x):
        y = self.norm(self.conv(x)).mean((2, 3))
        return self.again(self.head(y)) + (y.to(torch.complex64) @ self.spectral).abs().sum(1, keepdim=True)


def step(model, optimiser, seed):
    x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    model(x).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def folder(tmp_path, lines):
    return Checkpoints(tmp_path / "checkpoints", lines.append)


def test_every_kind_of_tensor_comes_back(tmp_path):
    save_tensors(tmp_path / "x.safetensors", tensors(), {"step": 3, "loss": 0.1, "best": None})
    found = load_tensors(tmp_path / "x.safetensors")
    assert found.state == {"step": 3, "loss": 0.1, "best": None}
    for name, value in tensors().items():
        expected = torch.view_as_real(value) if value.is_complex() else value
        assert found.tensors[name].dtype == expected.dtype and torch.equal(found.tensors[name], expected), name
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:  # no pickle: any safetensors reader
        assert file.get_tensor("a").shape == (2, 3, 4)


def test_the_last_two_stay_and_nothing_temporary(folder):
    assert folder.latest() is None
    for number in (0, 5, 10, 200):
        folder.save(number, tensors(number), {"step": number})
    assert sorted(p.name for p in folder.folder.iterdir()) == [
        "step-0000000010.safetensors",
        "step-0000000200.safetensors",
    ]
    assert folder.latest().state == {"step": 200}


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"no checkpoint"])
def test_a_damaged_last_one_falls_back_to_the_one_before(folder, lines, damage):
    folder.save(1, tensors(1), {"step": 1})
    path = folder.save(2, tensors(2), {"step": 2})
    path.write_bytes(damage(path.read_bytes()))
    found = folder.latest()
    assert found.state == {"step": 1} and torch.equal(found.tensors["a"], tensors(1)["a"])
    assert len(lines) == 1 and str(path) in lines[0] and lines[0].endswith("trying the one before")
    assert not path.exists()


def test_all_damaged_is_one_line(folder):
    for number in (1, 2):
        folder.save(number, tensors(), {}).write_bytes(b"x")
    with pytest.raises(KansciError, match=r"nor any before it: delete .* to start again"):
        folder.latest()
    assert len(folder.paths()) == 2


def test_a_full_disk_is_one_line_and_harms_nothing(folder):
    """A limit on the size of files stands for the disk: the kernel refuses in the middle of the write."""
    folder.save(1, tensors(), {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(KansciError, match=r"^cannot write .*step-0000000002\.safetensors: [^\n]*$"):
            folder.save(2, {"large": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.latest().state == {"step": 1}
    assert [p.name for p in folder.folder.iterdir()] == ["step-0000000001.safetensors"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(KansciError, match="cannot write"):
        Checkpoints(tmp_path / "checkpoints", print).save(0, tensors(), {})


def test_a_restored_training_goes_on_in_the_same_bits(folder):
    model = Mixed()
    optimiser, average = adamw(model, 1e-2), Ema(model, 0.9)
    for seed in range(3):
        step(model, optimiser, seed)
        average.update(seed + 1)
    folder.save(3, collect(model, optimiser, average.weights), {})

    other = Mixed()
    second, followed = adamw(other, 1e-2), Ema(other, 0.9)
    step(other, second, 77)  # moments that have to be forgotten
    restore(folder.latest(), other, second, followed.weights)
    for seed in range(3, 6):
        for pair in ((model, optimiser, average), (other, second, followed)):
            step(*pair[:2], seed)
            pair[2].update(seed + 1)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values()):
        assert torch.equal(a, b), name
    for name, value in average.weights.items():
        assert torch.equal(value, followed.weights[name]), name
    assert other.again.weight is other.head.weight


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: Mixed(5), r"belongs to another model \(.* is torch.float32 \(4, .* there, .*\(5, .* here\)"),
        (lambda: nn.Linear(3, 3), r"belongs to another model \(.* is in (the checkpoint|this model) alone\)"),
        (lambda: Mixed().double(), r"belongs to another model \(.*float32.*float64"),
    ],
)
def test_another_model_is_one_line(folder, other, message):
    model = Mixed()
    folder.save(0, collect(model, adamw(model, 0.1), None), {})
    with pytest.raises(KansciError, match=message):
        restore(folder.latest(), other(), adamw(other(), 0.1), None)


def test_an_average_that_was_not_saved_is_one_line(folder):
    model = Mixed()
    folder.save(0, collect(model, adamw(model, 0.1), None), {})
    with pytest.raises(KansciError, match="is in this model alone"):
        restore(folder.latest(), model, adamw(model, 0.1), Ema(model, 0.9).weights)
