"""Mixed precision that does not round the inputs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning_fabric.plugins.precision import Precision
from lightning_utilities.core.apply_func import apply_to_collection


class Mixed(Precision):
    """Autocast to bfloat16 inside the model's forward; weights, inputs and outputs stay float32.

    Fabric's own plugin rounds the inputs too, which costs layers that compute in float32 (spline bases, Fourier
    transforms) the digits that autocast would have left them.
    """

    precision = "bf16-mixed"
    device_type = "cpu"
    """Set once Fabric knows the device."""

    def forward_context(self) -> AbstractContextManager:
        return torch.autocast(self.device_type, dtype=torch.bfloat16)

    def convert_output(self, data: Any) -> Any:
        return apply_to_collection(
            data, torch.Tensor, lambda t: t.float() if t.dtype in (torch.bfloat16, torch.float16) else t
        )
