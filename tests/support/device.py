"""Where tests marked gpu run: on a CUDA device; KANSCIML_TEST_DEVICE=cpu rehearses them without one, in small."""

import os

import pytest
import torch

DEVICE = os.environ.get("KANSCIML_TEST_DEVICE", "cuda")
REHEARSED = DEVICE == "cpu"
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not REHEARSED and not torch.cuda.is_available(), reason="no CUDA device"),
]
NOT_REHEARSED = pytest.mark.skipif(REHEARSED, reason="needs a CUDA device")


def relative(found, expected):
    """Norm of the difference over that of `expected`, in float64 on the CPU."""
    found, expected = (t.detach().double().cpu() for t in (found, expected))
    return float((found - expected).norm() / expected.norm())
