"""Which layers Triton runs: where it is asked for; and the precision that PyTorch was given."""

from types import SimpleNamespace

import pytest
import torch

from kansciml.layers._kernels._triton import library


def test_by_itself_it_is_left_aside(monkeypatch):
    monkeypatch.setattr(library, "runs", lambda *problem: True)
    x = SimpleNamespace(is_cuda=True, is_cpu=False)
    assert not library.chosen("auto", 3, x, x) and library.chosen("triton", 3, x, x)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="PyTorch before 2.9")
@pytest.mark.parametrize("precision, exact", [("none", True), ("ieee", True), ("tf32", False)])
def test_the_newer_setting_of_precision_is_read(precision, exact):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = precision
        assert library.exact_products() == exact
    finally:
        matmul.fp32_precision = before


def test_the_older_setting_of_precision_is_read():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert not library.exact_products()
    finally:
        torch.set_float32_matmul_precision(before)
    assert library.exact_products() == (before == "highest")
