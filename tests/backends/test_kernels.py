"""NumPy kernels against the torch modules under autograd: values, Jacobians, pullbacks, for every option."""

import numpy as np
import pytest
import torch

from kansciml.backends import _kernels
from kansciml.models.field_spec import ACTIVATIONS, FieldSpec
from kansciml.models.fields import VectorField

AFFINE = {"center": (0.3, -0.2), "scale": (1.7, 0.9), "rate": (2.0, 0.5)}
SPECS = [
    *(FieldSpec("mlp", (2, 5, 2), activation=name, **AFFINE) for name in ACTIVATIONS),
    FieldSpec("mlp", (2, 2)),
    FieldSpec("mlp", (2, 4, 6, 2), squash=True, **AFFINE),
    FieldSpec("mlp", (2, 4, 2), input_power=3),
    FieldSpec("kan", (2, 4, 2), **AFFINE),
    FieldSpec("kan", (2, 2), grid=1, spline_order=1),
    FieldSpec("kan", (2, 3, 3, 2), grid=7, spline_order=2, grid_range=(-2.0, 1.0), squash=True, **AFFINE),
    FieldSpec("kan", (2, 3, 2), spline_order=5, input_power=3, **AFFINE),
]


def inputs(spec):
    rng = np.random.default_rng(0)
    params = spec.initial_parameters(1) + 0.1 * rng.standard_normal(spec.n_parameters)
    return params, rng.normal(0, 1.5, (40, 2)), rng.standard_normal((40, 2))


def identify(spec):
    return f"{spec.label()} {spec.activation} squash={spec.squash} power={spec.input_power}"


@pytest.mark.parametrize("spec", SPECS, ids=identify)
def test_single_and_batched_values_equal_the_module(spec):
    params, u, _ = inputs(spec)
    kernel = _kernels.bind(spec, params)
    expected = VectorField(spec).load_flat(params)(torch.tensor(0.0), torch.from_numpy(u)).detach().numpy()
    np.testing.assert_allclose(kernel.batch(u), expected, rtol=1e-13, atol=1e-13)
    single = np.empty_like(u)
    for row, out in zip(u, single):
        kernel.rhs(0.0, row, out)
    np.testing.assert_allclose(single, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("spec", SPECS, ids=identify)
def test_jacobian_and_pullback_equal_autograd(spec):
    params, u, cotangent = inputs(spec)
    jacobian, pullback = _kernels.bind(spec, params).linearise(np.zeros(len(u)), u)
    field = VectorField(spec).load_flat(params)
    states = torch.from_numpy(u).requires_grad_()
    f = field(torch.tensor(0.0), states)
    expected = torch.stack([torch.autograd.grad(f[:, i].sum(), states, retain_graph=True)[0] for i in range(2)], 1)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-11, atol=1e-11)
    (f * torch.from_numpy(cotangent)).sum().backward()
    np.testing.assert_allclose(pullback(cotangent), field.to_flat(gradient=True), rtol=1e-11, atol=1e-11)


def test_nan_and_huge_states_give_no_finite_lie():
    kernel = _kernels.bind(FieldSpec("kan", (2, 3, 2)), np.ones(FieldSpec("kan", (2, 3, 2)).n_parameters))
    out = np.empty(2)
    with np.errstate(all="ignore"):
        kernel.rhs(0.0, np.array([np.nan, 0.0]), out)
    assert np.isnan(out).all()
    kernel.rhs(0.0, np.array([1e300, -1e300]), out)
    assert np.all(np.abs(out) > 1e299)  # the SiLU branch, not a spline of another cell
