"""The check of annotated shapes can fail, and steps aside where it must."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from support.shapes import checked
from torch import Tensor

from kansciml import KAN, SplineKAN


@checked
def outer(a: Float[Tensor, " n"], b: Float[Tensor, " m"] | None, wrong: bool = False) -> Float[Tensor, "n m"]:
    if b is not None and b.dim() == 0:
        raise ValueError("got a number")
    return a[:, None] * (a if b is None or wrong else b)


def test_a_wrong_shape_is_a_violation_of_arguments_and_of_results():
    a, b = torch.ones(3), torch.ones(4)
    assert outer(a, b).shape == (3, 4)
    for arguments in ((torch.ones(3, 1), b), (a, b.long()), (a, b, True)):
        with pytest.raises(TypeCheckError):
            outer(*arguments)


def test_what_a_function_refuses_itself_it_refuses_in_its_own_words():
    with pytest.raises(ValueError, match="got a number"):
        outer(torch.ones(3), torch.ones(()))


def test_the_package_is_checked_and_compiles_all_the_same():
    layer = SplineKAN(3, 2)
    layer._run = lambda x, narrow: torch.ones(len(x), 3)  # broken: the output has another width
    with pytest.raises(RuntimeError):
        layer(torch.ones(5, 3))
    layer._run = lambda x, narrow: torch.ones(len(x), 2, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        layer(torch.ones(5, 3))
    net = KAN((3, 2))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.ones(5, 3)), net(torch.ones(5, 3)))
