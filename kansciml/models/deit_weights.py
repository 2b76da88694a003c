"""Pretrained weights of DeiT and timm's vision transformers, from a local file, for fine-tuning.

Nothing is downloaded. `Deit` names its parameters as timm does, so a file's keys are its own keys; the KANs have no
pretrained weights and keep their own.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import pathlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kansciml._errors import UsageError
from kansciml.models.deit import Deit

_MLP = re.compile(r"blocks\.\d+\.(mlp\..+|attn\.qkv\.bias)")
_DISTILLED = ("dist_token", "head_dist.weight", "head_dist.bias")
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_ENTRIES = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "ema")
_WRAPPERS = re.compile(r"\b(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
]
_HARMLESS += [np.float64(0).__reduce__()[0], np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
"""What training checkpoints hold beside tensors (options, paths, NumPy numbers): making one runs no code of a file."""


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a file's tensors, by name.

    Args:
        loaded: copied into the model. left: in the file, without a place in the model (MLPs, another head, the token of
            a distillation). kept: of the model, not in the file (KANs, a new head), with the values they had.
        interpolated: copied, at another image size. cut: copied without the distillation token's position.
        entry: of the file, from which they come, such as ``model_ema``; empty: the file itself.
    """

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...]
    interpolated: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    entry: str = ""

    def text(self) -> str:
        """All that in one line."""
        parts = [f"{len(self.loaded)} tensors loaded" + (f" from {self.entry!r}" if self.entry else "")]
        for what, names in (
            ("another image size, interpolated", self.interpolated),
            ("without the distillation token's", self.cut),
            ("in the file, not used", self.left),
            ("not in the file, as first drawn", self.kept),
        ):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{what}: {', '.join(names[:4])}{more}")
        return "; ".join(parts)


@torch.no_grad()
def load_deit_weights(model: nn.Module, path: str | Path, entry: str | None = None) -> LoadedWeights:
    """Load weights of a vision transformer of the same width, depth and patch into `model`.

    Positions are interpolated (bicubic) where the image size differs; the head is left where the number of classes
    does, and so are token, position and head of a distillation. Prefixes of wrappers are taken off: whatever stands
    before ``cls_token``. Nothing changes unless all of it fits.

    Args:
        model: of `kansciml.models.deit`, any variant, or a wrapper of one.
        path: ``.safetensors``, ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.tar``: a state dict, or one under
            ``model``, ``state_dict``, ``model_state_dict``, ``model_ema``, ``state_dict_ema`` or ``ema``, the first of
            these. Read with ``weights_only``: a file cannot run code.
        entry: another entry, or the prefix of one of several transformers; None (default): as above.

    Raises:
        UsageError: a file that is not there, cannot be read or is of another architecture; values that are not finite
            real numbers; no such entry, or several transformers and no entry.
    """
    path = Path(path)
    network = _network(model)
    tensors, source = _read(path, entry)
    names = _bare_names(tensors, path, None if entry is None or source.startswith(entry) else entry)
    state = {bare: tensors[name] for bare, name in names.items()}
    own_names = {_WRAPPERS.sub("", name): name for name in network.state_dict()}  # its blocks may be compiled
    own = dict(zip(own_names, network.state_dict().values()))
    head = {name: value.shape for name, value in state.items() if name.startswith("head.")}
    same_head = all(name in own and own[name].shape == shape for name, shape in head.items())
    chosen: dict[str, Tensor] = {}
    interpolated, cut = [], []
    for name, value in state.items():
        if (name in head and not same_head) or name in _DISTILLED:
            continue
        target = own.get(name)
        if target is None:
            if not (network.config.kan_layer and _MLP.fullmatch(name)):
                raise UsageError(f"{path} has {name}, which this model does not: expected the same architecture")
            continue
        if name == "pos_embed" and value.dim() == 3 and value.shape[-1:] == target.shape[-1:]:
            if "dist_token" in state and math.isqrt(max(value.shape[1] - 2, 0)) ** 2 == value.shape[1] - 2:
                value = torch.cat([value[:, :1], value[:, 2:]], 1)  # class token, distillation token, patches
                cut.append(name)
            if value.shape != target.shape:
                value = resize_positions(value, target.shape[1], path)
                interpolated.append(name)
        if value.shape != target.shape:
            raise UsageError(
                f"{path}: {name} has shape {tuple(value.shape)}, and {tuple(target.shape)} in this model:"
                " expected the same width, patch and channels, and the same grid of KANs"
            )
        chosen[name] = _numbers(value, target, name, path)
    kept = tuple(name for name in own if name not in chosen)
    for name in kept:
        if ".kan." not in name and not name.startswith("head."):
            raise UsageError(
                f"{path} has no {name}: expected a whole vision transformer of depth {len(network.blocks)},"
                " with timm's names"
            )
    network.load_state_dict({own_names[name]: value for name, value in {**own, **chosen}.items()})
    used = {names[name] for name in chosen}
    left = tuple(name for name in tensors if name not in used)
    return LoadedWeights(tuple(chosen), left, kept, tuple(interpolated), tuple(cut), source)


def _network(model: nn.Module) -> Deit:
    """The vision transformer that a model is, or wraps."""
    found = [part for part in model.modules() if isinstance(part, Deit)] if isinstance(model, nn.Module) else []
    if len(found) != 1:
        raise UsageError(f"got a {type(model).__name__} with {len(found)} deit models in it: expected one")
    if any(value.is_meta for value in found[0].state_dict().values()):
        raise UsageError(
            "got a model on the device meta, which holds no numbers: call to_empty(device=...) on it first"
        )
    return found[0]


def _numbers(value: Tensor, target: Tensor, name: str, path: Path) -> Tensor:
    """`value` in the dtype of `target`."""
    if not value.is_floating_point() or value.is_meta:
        got = "no values" if value.is_meta else f"dtype {value.dtype}"
        raise UsageError(f"{path}: {name} has {got}: expected floating-point numbers (quantised weights do not load)")
    value = value.to(target.dtype)
    if not bool(torch.isfinite(value).all()):
        raise UsageError(f"{path}: {name} has values that are not finite in {target.dtype}: expected sound weights")
    return value


def _bare_names(tensors: Mapping[str, Tensor], path: Path, within: str | None) -> dict[str, str]:
    """Name in a vision transformer -> name in the file, of the tensors of one transformer.

    Its prefix is what stands before ``cls_token``; names without it belong to something else.
    """
    prefixes = sorted({name.removesuffix("cls_token") for name in tensors if f".{name}".endswith(".cls_token")})
    if within is not None:
        prefixes = [prefix for prefix in prefixes if prefix.startswith(within.removesuffix(".") + ".")]
        if not prefixes:
            raise UsageError(f"{path} has no entry {within!r} with a vision transformer: expected one of its own")
    if len(prefixes) > 1:
        shown = ", ".join(prefix or "no prefix" for prefix in prefixes)
        raise UsageError(f"{path} has {len(prefixes)} vision transformers ({shown}): choose one by entry=")
    prefix = prefixes[0] if prefixes else ""
    own = [name for name in tensors if name.startswith(prefix)]
    bare = {_WRAPPERS.sub("", name.removeprefix(prefix)): name for name in own}
    if len(bare) < len(own):
        raise UsageError(f"{path} has names that differ only by _orig_mod and the like: expected each tensor once")
    return bare


def _read(path: Path, entry: str | None) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the entry of the file that holds them."""
    try:
        folder, there = path.is_dir(), path.is_file()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): expected a file of weights") from None
    if not there:
        what = "is a folder" if folder else "does not exist"
        raise UsageError(f"{path} {what}: expected a .safetensors or .pth file of weights")
    if path.suffix != ".safetensors" and path.suffix not in _PICKLES:
        raise UsageError(f"got {path}: expected a file ending in .safetensors or .pth")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            _require_checksums(path)
            with _harmless_allowed():
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in as many ways as its readers have parts
        raise UsageError(
            f"{path} cannot be read ({_reason(error)}): expected an undamaged file of tensors and plain values"
        ) from error
    return _entry(found, entry, path)


def _entry(found: Any, entry: str | None, path: Path) -> tuple[dict[str, Tensor], str]:
    """The innermost mapping that holds tensors, and its name."""
    taken = ""
    while isinstance(found, Mapping) and not (taken and _tensors(found)):
        wanted = _ENTRIES if entry is None or taken else (entry, *_ENTRIES)  # it may be a prefix further in
        name = next((name for name in wanted if isinstance(found.get(name), Mapping)), None)
        if name is None:
            break
        found, taken = found[name], name if not taken else f"{taken}.{name}"
    tensors = _tensors(found) if isinstance(found, Mapping) else {}
    if not tensors:
        entries = found.items() if isinstance(found, Mapping) else ()
        holders = [str(name) for name, value in entries if isinstance(value, Mapping) and _tensors(value)]
        hint = f"; it has {', '.join(holders)}: choose one by entry=" if holders else ""
        raise UsageError(
            f"{path} holds no named tensors{hint}: expected a state dict, or one under 'model' or 'state_dict'"
        )
    return tensors, taken


def _tensors(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _require_checksums(path: Path) -> None:
    """Raises ValueError where a part of a file in PyTorch's zip format is not what was written: torch.load ignores it.

    Older files have no checksums, nor have those that were written without (`set_crc32_options`): all of theirs differ.
    """
    if not zipfile.is_zipfile(path):
        return
    damaged = []
    with zipfile.ZipFile(path) as file:
        for part in file.infolist():
            try:
                with file.open(part) as stream:
                    while stream.read(1 << 20):
                        pass
            except zipfile.BadZipFile:
                damaged.append(part.filename)
        if 0 < len(damaged) < len(file.infolist()):
            raise ValueError(f"wrong checksum of {damaged[0]}")


def _harmless_allowed() -> contextlib.AbstractContextManager[None]:
    allowed = getattr(torch.serialization, "safe_globals", None)  # since PyTorch 2.5
    return contextlib.nullcontext() if allowed is None else allowed(_HARMLESS)


def _reason(error: Exception) -> str:
    """What a reader says, in a few words; of what `weights_only` refuses, the name."""
    text = " ".join(str(error).split())
    refused = re.search(r"GLOBAL (\S+) was not an allowed", text)
    if refused:
        return f"it holds a {refused[1]}, whose code would have to run; save the model's state_dict() alone"
    text = text.partition(". ")[0][:160]
    return f"{type(error).__name__}{': ' * bool(text)}{text}"


def resize_positions(
    positions: Float[Tensor, "1 _ width"], tokens: int, source: str | Path = "position embedding"
) -> Float[Tensor, "1 {tokens} width"]:
    """Embeddings of a class token, whose stays, and n^2 positions for `tokens`, 1 + m^2; bicubic.

    Raises:
        UsageError: numbers of patches that are not squares.
    """
    old, new = math.isqrt(max(positions.shape[1] - 1, 0)), math.isqrt(tokens - 1)
    if old < 1 or old**2 + 1 != positions.shape[1] or new**2 + 1 != tokens:
        raise UsageError(
            f"{source}: got {positions.shape[1]} positions, for {tokens} of the model: expected a square of patches"
            " and one class token"
        )
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=True)
    grid = grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)
    return torch.cat([positions[:, :1], grid.to(positions.dtype)], 1)
