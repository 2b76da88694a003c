"""The dtype that autocast asks of a layer's weights."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """That of x's kind of device where autocast is on; None where it is off, unknown as on "meta", or leaves x alone.

    As in PyTorch's own layers it leaves float64 as it is, and what is no real floating-point number.
    """
    kind = x.device.type
    if x.dtype == torch.float64 or not x.is_floating_point():
        return None
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None
