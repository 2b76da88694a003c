"""Loading pretrained weights: what fits is copied, what does not is told, and nothing changes on an error."""

import argparse
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kansciml import UsageError
from kansciml.models.deit_weights import load_deit_weights, resize_positions
from kansciml.models.registry import build_model, get_family

SMALL = {"image_size": 16, "patch": 4, "classes": 5, "width": 12, "depth": 2, "heads": 3}


def source(**options):
    return build_model("deit-tiny", **{**SMALL, **options})


@pytest.fixture
def saved(tmp_path):
    """A model's state in a file of either kind."""

    def save(state, kind):
        path = tmp_path / f"w.{kind}"
        save_file(state, path) if kind == "safetensors" else torch.save({"model": state}, path)
        return path

    return save


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_all_of_it_loads_into_the_same_model(saved, kind):
    theirs, ours = source().eval(), source().eval()
    found = load_deit_weights(ours, saved(theirs.state_dict(), kind))
    assert set(found.loaded) == set(theirs.state_dict()) and not (found.left or found.kept or found.interpolated)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(ours(x), theirs(x))


def test_a_head_for_other_classes_is_left(saved):
    theirs, ours = source(classes=9), source()
    head = ours.head.weight.clone()
    found = load_deit_weights(ours, saved(theirs.state_dict(), "safetensors"))
    assert set(found.left) == set(found.kept) == {"head.weight", "head.bias"}
    assert torch.equal(ours.head.weight, head) and torch.equal(ours.cls_token, theirs.cls_token)


def test_knots_of_a_file_are_the_ones_that_count(saved):
    theirs, ours = (build_model("deit-tiny", "kan-spline", kan_hidden=(6,), **SMALL).eval() for _ in range(2))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs.blocks[0].kan.update_grid(torch.randn(200, 12, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(ours(x), theirs(x))
    load_deit_weights(ours, saved(theirs.state_dict(), "pth"))
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("fair", [False, True])
def test_kans_take_all_but_the_mlps(saved, fair):
    theirs, ours = source(), build_model("deit-tiny", "kan-spline", fair=fair, **SMALL)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    found = load_deit_weights(ours, saved(theirs.state_dict(), "pth"))
    left = {name for name in theirs.state_dict() if ".mlp." in name or (not fair and name.endswith("qkv.bias"))}
    assert set(found.left) == left and all(".kan." in name for name in found.kept)
    assert set(found.loaded) | set(found.kept) == set(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name] if name in found.loaded else before[name])


def test_positions_follow_the_image_size(saved):
    theirs, ours = source(), source(image_size=32)
    found = load_deit_weights(ours, saved(theirs.state_dict(), "safetensors"))
    assert found.interpolated == ("pos_embed",) and not found.kept
    assert torch.equal(ours.pos_embed[:, 0], theirs.pos_embed[:, 0])
    assert ours(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_interpolation_keeps_constants_and_follows_ramps():
    """Bicubic: exact on linear functions away from the border, whose pixel centres are (i + 1/2) / n."""
    old, new = 8, 16

    def ramp(n):
        centres = (torch.arange(n) + 0.5) / n
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return torch.stack([3 * y - 2 * x, torch.ones_like(x)], -1)

    positions = torch.cat([torch.full((1, 1, 2), 9.0), ramp(old).reshape(1, -1, 2)], 1)
    found = resize_positions(positions, new * new + 1)
    assert torch.equal(found[0, 0], torch.tensor([9.0, 9.0]))
    grid, expected = found[0, 1:].reshape(new, new, 2), ramp(new)
    torch.testing.assert_close(grid[4:-4, 4:-4], expected[4:-4, 4:-4], rtol=0, atol=1e-5)
    torch.testing.assert_close(grid[..., 1], torch.ones(new, new), rtol=0, atol=1e-5)
    torch.testing.assert_close(resize_positions(positions, old * old + 1), positions, rtol=0, atol=1e-6)


def test_half_precision_files_fill_float32_models(saved):
    theirs, ours = source(), source()
    load_deit_weights(ours, saved({k: v.half() for k, v in theirs.state_dict().items()}, "safetensors"))
    assert ours.norm.weight.dtype == torch.float32
    torch.testing.assert_close(ours.head.weight, theirs.head.weight, rtol=1e-3, atol=1e-4)


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: without(s, "blocks.1.norm1.weight"), "has no blocks.1.norm1.weight: expected a whole"),
        (lambda s: {**s, "blocks.2.norm1.weight": torch.zeros(12)}, "has blocks.2.norm1.weight, which this model"),
        (lambda s: {**s, "norm.weight": torch.zeros(13)}, r"norm.weight has shape \(13,\), and \(12,\) in this model"),
        (lambda s: {**s, "blocks.0.ls1.gamma": torch.zeros(12)}, "has blocks.0.ls1.gamma, which this model does not"),
        (lambda s: {**s, "norm.bias": torch.full((12,), float("nan"))}, "norm.bias has values that are not finite"),
        (lambda s: {**s, "norm.bias": torch.ones(12, dtype=torch.int8)}, "norm.bias has dtype torch.int8"),
        (
            lambda s: {f"{at}.{k}": v for at in "ab" for k, v in s.items()},
            r"2 vision transformers \(a\., b\.\): choose",
        ),
        (lambda s: {f"deit.embeddings.{k}": v for k, v in s.items() if k == "cls_token"}, "with timm's names"),
        (lambda s: {**s, "pos_embed": torch.zeros(1, 19, 12)}, "got 19 positions, for 17 of the model"),
        (lambda s: {**s, "pos_embed": torch.zeros(1, 1, 12), "dist_token": torch.zeros(1, 1, 12)}, "got 1 positions"),
        (lambda s: {**s, "patch_embed.proj.weight": torch.zeros(12, 1, 4, 4)}, "patch_embed.proj.weight has shape"),
        (lambda s: {}, "holds no named tensors"),
    ],
)
def test_another_architecture_is_refused_and_changes_nothing(saved, change, message):
    model = source()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=message) as caught:
        load_deit_weights(model, saved(change(source().state_dict()), "pth"))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_broken_files_are_told_in_one_line(tmp_path):
    code = tmp_path / "code.pth"
    torch.save({"model": source().state_dict(), "args": Fraction(1, 2)}, code)
    whole = code.read_bytes()
    files = {"cut.pth": whole[:-500], "text.pth": b"hello", "none.pth": b"", "x.safetensors": b"\x05", "w.h5": b"x"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.pth").mkdir()
    torch.save({"model": source().state_dict()}, tmp_path / "flipped.pth")
    content = bytearray((tmp_path / "flipped.pth").read_bytes())
    content[len(content) // 2] ^= 1  # within the numbers of a weight
    (tmp_path / "flipped.pth").write_bytes(content)
    with pytest.raises(UsageError, match=r"flipped.pth cannot be read \(.*(checksum|CRC)"):
        load_deit_weights(source(), tmp_path / "flipped.pth")
    with pytest.raises(UsageError, match="it holds a fractions.Fraction, whose code would have to run"):
        load_deit_weights(source(), code)
    with pytest.raises(UsageError, match="folder.pth is a folder"):
        load_deit_weights(source(), tmp_path / "folder.pth")
    for name in [*files, "code.pth", "folder.pth", "absent.pth", "a" * 300 + ".pth"]:
        with pytest.raises(UsageError) as caught:
            load_deit_weights(source(), tmp_path / name)
        text = str(caught.value)
        assert name in text and "\n" not in text and len(text) < 600


def test_a_training_checkpoint_loads_with_its_options(tmp_path):
    """As DeiT's training leaves it: options in a Namespace, with paths and NumPy numbers, and the state of AdamW."""
    theirs, ours, averaged = source(), source(), source()
    optimiser = torch.optim.AdamW(theirs.parameters())
    sum(p.square().sum() for p in theirs.parameters()).backward()
    optimiser.step()
    options = argparse.Namespace(lr=1e-3, output=tmp_path, best=np.float64(81.5), seeds=[np.int64(3)])
    found = {"model": theirs.state_dict(), "model_ema": averaged.state_dict(), "optimizer": optimiser.state_dict()}
    torch.save({**found, "epoch": 3, "args": options}, tmp_path / "checkpoint.pth")
    assert load_deit_weights(ours, tmp_path / "checkpoint.pth").entry == "model"
    assert torch.equal(ours.head.weight, theirs.head.weight)
    assert load_deit_weights(ours, tmp_path / "checkpoint.pth", entry="model_ema").entry == "model_ema"
    assert torch.equal(ours.head.weight, averaged.head.weight)
    with pytest.raises(UsageError, match="has no entry 'teacher'"):
        load_deit_weights(ours, tmp_path / "checkpoint.pth", entry="teacher")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("old", [True, False])
def test_files_without_checksums_load(tmp_path, monkeypatch, old):
    ours, theirs = source(), source()
    if not old:
        monkeypatch.setattr(torch.serialization, "get_crc32_options", lambda: False)
    torch.save(theirs.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    load_deit_weights(ours, tmp_path / "w.pth")
    assert torch.equal(ours.head.weight, theirs.head.weight)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.backbone."])
def test_prefixes_of_wrappers_are_taken_off(saved, prefix):
    theirs, ours = source(), source()
    state = {f"{prefix}{name}": value for name, value in theirs.state_dict().items()}
    found = load_deit_weights(nn.DataParallel(ours), saved({"n_averaged": torch.tensor(3), **state}, "safetensors"))
    assert found.left == ("n_averaged",) and not found.kept
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_names_within_compiled_blocks_and_one_of_two_transformers(saved):
    theirs, other, ours = source(), source(), source()
    state = {f"student.{name}": value for name, value in other.state_dict().items()}
    state |= {f"teacher.{k}": v for k, v in theirs.state_dict().items()}
    state = {name.replace("blocks.1.", "blocks.1._orig_mod."): value for name, value in state.items()}
    ours.blocks[0] = torch.compile(ours.blocks[0])
    found = load_deit_weights(ours, saved(state, "pth"), entry="teacher")
    assert len(found.left) == len(found.loaded) and all(name.startswith("student.") for name in found.left)
    assert all(torch.equal(*pair) for pair in zip(ours.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("size", [16, 32])
def test_a_distilled_model_loads_without_its_second_token(saved, size):
    theirs, ours = source(), source(image_size=size)
    state, row = dict(theirs.state_dict()), torch.full((1, 1, 12), 7.0)
    state["pos_embed"] = torch.cat([theirs.pos_embed[:, :1], row, theirs.pos_embed[:, 1:]], 1).detach()
    state |= {"dist_token": row, "head_dist.weight": torch.zeros(5, 12), "head_dist.bias": torch.zeros(5)}
    found = load_deit_weights(ours, saved(state, "pth"))
    assert set(found.left) == {"dist_token", "head_dist.weight", "head_dist.bias"} and found.cut == ("pos_embed",)
    assert found.interpolated == (("pos_embed",) if size != 16 else ()) and not found.kept
    assert "without the distillation token's: pos_embed; in the file, not used: dist_token, head_dist" in found.text()
    expected = resize_positions(theirs.pos_embed.detach(), ours.pos_embed.shape[1])
    torch.testing.assert_close(ours.pos_embed.detach(), expected)


def test_a_head_that_fits_in_part_is_left_as_a_whole(saved):
    ours = source()
    head = ours.head.weight.clone()
    found = load_deit_weights(ours, saved({**source().state_dict(), "head.bias": torch.zeros(9)}, "pth"))
    assert set(found.left) == {"head.weight", "head.bias"} and torch.equal(ours.head.weight, head)


def test_what_cannot_take_weights_is_refused(saved):
    path = saved(source().state_dict(), "pth")
    with torch.device("meta"):
        empty = get_family("deit").module(source().config)
    with pytest.raises(UsageError, match="on the device meta"):
        load_deit_weights(empty, path)
    with pytest.raises(UsageError, match="got a Linear with 0 deit models in it"):
        load_deit_weights(nn.Linear(2, 2), path)
