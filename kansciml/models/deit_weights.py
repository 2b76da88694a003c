"""Pretrained weights of DeiT and timm's vision transformers, from a local file, for fine-tuning.

Nothing is downloaded. `Deit` names its parameters as timm does, so a file's keys are its own keys; the KANs have no
pretrained weights and keep their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kansciml._errors import UsageError
from kansciml.models.deit import Deit

_MLP = re.compile(r"blocks\.\d+\.(mlp\..+|attn\.qkv\.bias)")
_PICKLES = (".pth", ".pt", ".bin")


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a file's tensors, by name.

    Args:
        loaded: copied into the model. left: in the file, without a place in the model (MLPs and biases that the KAN
            variant does not have, or the head for other classes). kept: of the model, not in the file (KANs, a new
            head): they keep the values they had. interpolated: copied, at another image size.
    """

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...]
    interpolated: tuple[str, ...] = ()


@torch.no_grad()
def load_deit_weights(model: Deit, path: str | Path) -> LoadedWeights:
    """Load weights of a vision transformer of the same width, depth and patch into `model`.

    Positions are interpolated (bicubic) where the image size differs; the head is left where the number of classes
    does; KAN variants take attention, norms, patch and position embeddings. Nothing changes unless all of it fits.

    Args:
        model: of `kansciml.models.deit`, any variant.
        path: ``.safetensors``, or ``.pth`` as DeiT and timm publish it (a state dict, or one under ``model`` or
            ``state_dict``), read with ``weights_only``: a file cannot run code.

    Raises:
        UsageError: no such file, a file that cannot be read, or one of another architecture.
    """
    path = Path(path)
    state = read_weights(path)
    own = model.state_dict()
    if any(name.startswith(("dist_token", "head_dist")) for name in state):
        raise UsageError(f"{path} is a distilled DeiT: expected one without a distillation token")
    chosen: dict[str, Tensor] = {}
    interpolated = []
    for name, value in state.items():
        target = own.get(name)
        if target is None:
            if not (model.config.kan_layer and _MLP.fullmatch(name)) and not name.startswith("head."):
                raise UsageError(f"{path} has {name}, which this model does not: expected the same architecture")
            continue
        if name.startswith("head.") and value.shape != target.shape:
            continue
        if name == "pos_embed" and value.shape != target.shape and value.shape[-1:] == target.shape[-1:]:
            value = resize_positions(value, target.shape[1], path)
            interpolated.append(name)
        if value.shape != target.shape:
            raise UsageError(
                f"{path}: {name} has shape {tuple(value.shape)}, and {tuple(target.shape)} in this model:"
                " expected the same width, patch and channels"
            )
        chosen[name] = value
    kept = tuple(name for name in own if name not in chosen)
    for name in kept:
        if ".kan." not in name and not name.startswith("head."):
            raise UsageError(f"{path} has no {name}: expected a whole vision transformer of depth {len(model.blocks)}")
    for name, value in chosen.items():
        own[name].copy_(value)
    return LoadedWeights(tuple(chosen), tuple(n for n in state if n not in chosen), kept, tuple(interpolated))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.pth`` file by name; no code of the file is run.

    Raises:
        UsageError: no such file, another kind of file, or one that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist: expected a .safetensors or .pth file of weights")
    if path.suffix != ".safetensors" and path.suffix not in _PICKLES:
        raise UsageError(f"got {path}: expected a file ending in .safetensors or .pth")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in as many ways as its readers have parts
        reason = " ".join(str(error).split()).partition(". ")[0][:160]
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}{': ' * bool(reason)}{reason}):"
            " expected an undamaged file that holds nothing but tensors"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UsageError(f"{path} holds no named tensors: expected a state dict, or one under 'model' or 'state_dict'")
    return dict(found)


def resize_positions(positions: Tensor, tokens: int, source: str | Path = "position embedding") -> Tensor:
    """Position embeddings (1, 1 + n^2, D) for (1, 1 + m^2 = tokens, D), bicubic; the class token's stays.

    Raises:
        UsageError: numbers of patches that are not squares.
    """
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(tokens - 1)
    if old**2 + 1 != positions.shape[1] or new**2 + 1 != tokens:
        raise UsageError(
            f"{source}: got {positions.shape[1]} positions, for {tokens} of the model: expected a square of patches"
            " and one class token"
        )
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=True)
    grid = grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)
    return torch.cat([positions[:, :1], grid.to(positions.dtype)], 1)
