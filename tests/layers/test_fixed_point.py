"""Fixed points against closed forms and backpropagation through many iterations."""

import gc
import weakref

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from kansciml.layers.fixed_point import anderson, fixed_point

TIGHT = {"tolerance": 1e-13, "max_steps": 200}


@pytest.fixture
def contraction():
    """(z -> tanh(z W + u), W, u, z0): the Jacobian's norm is below 1."""
    weight = (0.3 * torch.randn(6, 6, dtype=torch.float64)).requires_grad_()
    shift = torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    return lambda z: torch.tanh(z @ weight + shift), weight, shift, torch.zeros(4, 6, dtype=torch.float64)


@pytest.mark.parametrize("history", [0, 1, 5])
def test_a_linear_equation_is_solved(history):
    a, b = 0.15 * torch.randn(8, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    z, solve = anderson(lambda z: z @ a + b, torch.zeros_like(b), history=history, **TIGHT)
    torch.testing.assert_close(z, b @ torch.linalg.inv(torch.eye(8).double() - a), rtol=1e-11, atol=1e-11)
    assert solve.converged and solve.steps < 200


def test_acceleration_saves_steps_and_stretches_do_not_stop_it():
    slow = torch.diag(torch.linspace(0.5, 0.98, 6, dtype=torch.float64))
    steps = {h: anderson(lambda z: z @ slow + 1, slow[:1] * 0, 1e-8, 2000, h)[1].steps for h in (0, 6)}
    assert steps[6] < 25 < 500 < steps[0]
    z, solve = anderson(lambda z: 2 * z + 1, slow[:1] * 0, **TIGHT)  # the plain iteration runs away from -1
    assert solve.converged and torch.allclose(z, -torch.ones_like(z))


@pytest.mark.parametrize("history", [0, 5])
def test_the_implicit_gradient_is_that_of_many_iterations(contraction, history):
    function, weight, shift, z0 = contraction
    target = torch.randn(4, 6, dtype=torch.float64)
    z, status = fixed_point(function, z0, history=history, **TIGHT)
    assert status.forward.converged and status.backward is None
    found = torch.autograd.grad((z * target).sum(), (weight, shift))
    assert status.backward.converged and float(status.backward.residual.max()) <= 1e-13
    unrolled = z0
    for _ in range(300):
        unrolled = function(unrolled)
    torch.testing.assert_close(z, unrolled, rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad((unrolled * target).sum(), (weight, shift))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gradients_by_differences(contraction):
    _, weight, shift, z0 = contraction

    def solve(weight, shift):
        return fixed_point(lambda z: torch.tanh(z @ weight + shift), z0, **TIGHT)[0]

    assert torch.autograd.gradcheck(solve, (weight, shift))


def test_jacobian_free_is_the_gradient_of_one_step(contraction):
    function, weight, shift, z0 = contraction
    z, status = fixed_point(function, z0, gradient="jacobian-free", **TIGHT)
    found = torch.autograd.grad(z.sum(), (weight, shift))
    expected = torch.autograd.grad(function(z.detach()).sum(), (weight, shift))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert status.backward is None
    exact = torch.autograd.grad(fixed_point(function, z0, **TIGHT)[0].sum(), (weight, shift))
    assert all(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(found, exact))
    assert all((a * b).sum() > 0 for a, b in zip(found, exact))


def test_residuals_are_those_of_what_is_returned(contraction):
    function, *_, z0 = contraction
    z, solve = anderson(function, z0, tolerance=1e-3)
    with torch.no_grad():
        expected = (function(z) - z).norm(dim=1) / function(z).norm(dim=1)
    torch.testing.assert_close(solve.residual, expected)
    assert solve.residual.shape == (4,) and 0 < solve.residual.max() <= 1e-3


def test_samples_do_not_touch_each_other(contraction):
    function, weight, shift, z0 = contraction
    together, _ = anderson(function, z0, tolerance=0.0, max_steps=6)
    for k in range(4):
        alone, _ = anderson(lambda z, k=k: torch.tanh(z @ weight + shift[k : k + 1]), z0[:1], 0.0, 6)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-9, atol=1e-9)


def test_no_convergence_is_told_and_no_error():
    """The smallest residual seen is returned; warnings are errors in this suite."""
    z0 = torch.full((2, 3), 0.26, dtype=torch.float64)
    z, solve = anderson(lambda z: 1 - 3 * z, z0, max_steps=7, history=0)  # away from 1/4
    assert (solve.steps, solve.converged) == (7, False)
    assert torch.equal(z, z0) and solve.residual.tolist() == pytest.approx([0.04 / 0.22] * 2)
    weight = torch.full((3, 3), 0.3, dtype=torch.float64, requires_grad=True)
    z, status = fixed_point(lambda z: torch.sin(z @ weight) + 1, z0, max_steps=2)
    z.sum().backward()
    assert not status.forward.converged and not status.backward.converged and bool(weight.grad.isfinite().all())


def test_infinities_stop_it_at_the_best_so_far():
    z0 = torch.ones(2, 3, dtype=torch.float64)
    z, solve = anderson(lambda z: torch.exp(3 * z), z0, max_steps=50, history=0)
    assert bool(z.isfinite().all()) and not solve.converged and solve.steps < 10
    z, solve = anderson(lambda z: z / 0, z0)
    assert torch.equal(z, z0) and bool(solve.residual.isinf().all()) and solve.steps == 1


def test_a_fixed_point_at_zero_and_one_at_the_start():
    z, solve = anderson(lambda z: 0.5 * z, torch.zeros(2, 3))
    assert solve.converged and solve.steps == 1 and not z.any()
    _, solve = anderson(lambda z: z, torch.ones(2, 3), tolerance=0.0, max_steps=4)
    assert solve.converged and solve.steps == 1


def test_without_gradients_there_is_no_graph(contraction):
    function, *_, z0 = contraction
    with torch.no_grad():
        z, status = fixed_point(function, z0)
    assert not z.requires_grad and status.forward.converged


def test_a_function_that_does_not_use_z(contraction):
    *_, shift, z0 = contraction
    z, status = fixed_point(lambda z: shift.exp(), z0)
    z.sum().backward()
    assert torch.equal(z, shift.exp()) and torch.equal(shift.grad, shift.exp())
    assert status.forward.converged and status.backward.converged


def test_a_graph_that_nobody_goes_back_through_is_freed(contraction):
    function, *_, z0 = contraction
    gc.collect()
    gc.disable()
    try:
        kept = []
        z, _ = fixed_point(lambda z: kept.append(weakref.ref(image := function(z))) or image, z0)
        assert kept[-1]() is not None
        del z
        assert all(reference() is None for reference in kept)
    finally:
        gc.enable()


@pytest.mark.parametrize("gradient", ["implicit", "jacobian-free"])
def test_second_derivatives_are_refused_in_some_tensors_alone_too(contraction, gradient):
    """PyTorch's `once_differentiable` would leave out the part that has no derivative."""
    function, weight, _, z0 = contraction
    z, _ = fixed_point(function, z0, gradient=gradient)
    (first,) = torch.autograd.grad(z.square().sum(), weight, create_graph=True)
    for call in (lambda: torch.autograd.grad(first.sum(), weight, retain_graph=True), first.sum().backward):
        with pytest.raises(RuntimeError, match="gradient of a fixed point is once_differentiable"):
            call()


def test_what_records_or_transforms_is_refused_in_one_line(contraction):
    function, _, _, z0 = contraction

    def solve(scale):
        return fixed_point(lambda z: scale * function(z), z0)[0]

    scale = torch.ones((), dtype=z0.dtype)
    for call in (
        lambda: make_fx(solve)(scale),
        lambda: torch.jit.trace(solve, (scale,)),
        lambda: torch.func.grad(lambda scale: solve(scale).sum())(scale),
        lambda: torch.func.jvp(solve, (scale,), (scale,)),
        lambda: torch.autograd.functional.jacobian(solve, scale, vectorize=True),
    ):
        with pytest.raises(ValueError, match="^got .* of a fixed point|^got a fixed point") as error:
            call()
        assert "\n" not in str(error.value)
    assert torch.autograd.functional.jacobian(solve, scale).isfinite().all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tolerance": -1.0}, "got tolerance -1.0"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"history": -1}, "history -1"),
        ({"damping": 1.5}, "damping 1.5: expected"),
        ({"gradient": "exact"}, "got gradient 'exact': expected one of implicit, jacobian-free"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(lambda z: z, torch.zeros(1, 1), **options)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_a_start_that_is_not_of_real_numbers_is_refused(dtype):
    with pytest.raises(ValueError, match=f"got a start of {dtype}: expected a real floating-point one"):
        fixed_point(lambda z: z, torch.zeros(1, 1, dtype=dtype))
