"""Whether Triton is there, without importing it, and how much of a problem one program of a kernel takes."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

MAX_ORDER = 5
"""Orders that are compiled, from 1; the plain kernels run the others."""
OLDEST = (7, 0)
"""Least compute capability of a device, Volta's."""
OPTIONS = {"enable_fp_fusion": True}
"""Of every launch: Triton's default of this one changes with its version, and warns that it will."""


@cache
def available() -> bool:
    """Whether the kernels can be loaded."""
    return not os.environ.get("KANSCIML_NO_TRITON") and importlib.util.find_spec("triton") is not None


def reason() -> str:
    """Why the kernels run or do not, in one line."""
    if os.environ.get("KANSCIML_NO_TRITON"):
        return "Triton kernels switched off by KANSCIML_NO_TRITON"
    if not available():
        return "Triton is not installed"
    if interpreted():
        return "Triton's interpreter, as TRITON_INTERPRET says"
    if not torch.cuda.is_available():
        return "Triton is installed, but there is no CUDA device"
    return "Triton is installed" if _new_enough(torch.cuda.current_device()) else "the CUDA device is older than Volta"


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU: TRITON_INTERPRET=1, set before Triton is loaded."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _new_enough(index: int | None) -> bool:
    return torch.cuda.get_device_capability(index) >= OLDEST


def runs(order: int, x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can run a layer of this order: not in float64, but for the interpreter."""
    if not available() or not 1 <= order <= MAX_ORDER or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    if interpreted():
        return x.is_cpu
    halves_or_single = torch.float16, torch.bfloat16, torch.float32
    return x.is_cuda and {x.dtype, weight.dtype} <= {*halves_or_single} and _new_enough(x.device.index)


def exact_products() -> bool:
    """Whether PyTorch multiplies float32 matrices on a CUDA device to float32's rounding, by either of its settings."""
    matmul = torch.backends.cuda.matmul  # torch.get_float32_matmul_precision refuses those of the newer one
    return (getattr(matmul, "fp32_precision", None) or ("tf32" if matmul.allow_tf32 else "ieee")) != "tf32"


def tile(size: int, most: int, least: int = 1) -> int:
    """Numbers along one axis of a program's part: a power of two."""
    return max(least, min(most, 1 << max(size - 1, 0).bit_length()))


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def chosen(backend: str, order: int, x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels shall run a layer: where they were asked for. ``auto`` leaves a CUDA device to PyTorch: the
    kernels have run under the interpreter and have been compiled for devices, and have run on none so far.

    Raises:
        ValueError: Triton was asked for and is not there, or cannot run on a CPU.
    """
    if backend == "triton" and runs(order, x, weight):
        return True
    ordinary = x.is_cpu and type(x) in (Tensor, torch.nn.Parameter)
    if backend == "triton" and (ordinary or not available()):
        raise ValueError(
            f"backend 'triton' cannot run this layer ({reason()}; {x.device.type} tensors, order {order}): use a CUDA"
            f" device and orders 1 to {MAX_ORDER}, or backend 'auto'"
        )
    return False
