"""L1 and entropy of a layer: closed forms, and finite with finite gradients whatever the norms."""

import math

import pytest
import torch

from kansciml.layers.regularisation import entropy, l1, penalty


def test_closed_forms():
    equal = torch.full((3, 4), 0.7, dtype=torch.float64)
    assert float(l1(equal)) == pytest.approx(8.4)
    assert float(entropy(equal)) == pytest.approx(math.log(12))
    one = torch.zeros(3, 4, dtype=torch.float64)
    one[1, 2] = 5.0
    assert float(entropy(one)) == 0.0
    norms = torch.tensor([[0.5, 0.25], [0.25, 0.0]], dtype=torch.float64)
    assert float(entropy(norms)) == pytest.approx(1.5 * math.log(2))
    assert float(penalty(norms, 2.0, 3.0)) == pytest.approx(2.0 + 4.5 * math.log(2))
    assert float(penalty(norms)) == pytest.approx(1.0 + 1.5 * math.log(2))


def test_entropy_does_not_depend_on_scale():
    norms = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scale in (1e-12, 1e12):
        torch.testing.assert_close(entropy(norms * scale), entropy(norms))


def test_gradient_is_the_closed_form_and_gradcheck_agrees():
    norms = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    norms.requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(norms), norms)
    shares = norms / norms.sum()
    torch.testing.assert_close(gradient, -(shares.log() + entropy(norms)) / norms.sum())
    assert torch.autograd.gradcheck(penalty, norms)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e4])
def test_always_finite_with_finite_gradients(dtype, scale):
    norms = torch.tensor([[0.0, 1.0, 1e-20], [0.0, 0.5, 1e-3]], dtype=torch.float64) * scale
    norms = norms.float().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    value = penalty(norms.to(dtype))
    (gradient,) = torch.autograd.grad(value, norms)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()


def test_an_all_zero_layer_has_no_entropy_and_no_pull():
    norms = torch.zeros(2, 2, requires_grad=True)
    value = entropy(norms)
    (gradient,) = torch.autograd.grad(value, norms)
    assert value == 0 and not gradient.any()


def test_descent_makes_a_layer_sparse():
    norms = torch.tensor([[1.0, 0.9], [0.8, 0.7]], dtype=torch.float64, requires_grad=True)
    before = entropy(norms).item()
    for _ in range(100):
        (gradient,) = torch.autograd.grad(entropy(norms), norms)
        norms = (norms - 0.2 * gradient).clamp(min=0).detach().requires_grad_()
    assert entropy(norms).item() < 0.6 * before


def test_bad_norms_are_one_clear_line():
    for bad in (torch.ones(3), torch.ones(2, 2, dtype=torch.long)):
        for call in (l1, entropy, penalty):
            with pytest.raises(ValueError, match="got edge norms of shape"):
                call(bad)
