"""Spectral convolution against the FFT written out, plane waves, and neuraloperator's layer."""

import itertools
import math

import pytest
import torch

from kansciml.layers.spectral_conv import MATMUL_MODES, SpectralConv2d, fourier_basis

TRANSFORMS = ("matmul", "fft")


def layer(in_channels=3, out_channels=2, modes=(3, 4), transform="auto", dtype=torch.float64):
    made = SpectralConv2d(in_channels, out_channels, modes, transform, dtype=dtype)
    torch.nn.init.normal_(made.weight)
    return made


def two_corners(x, weight, m1, m2):
    """The layout of Li et al.'s code: an FFT of everything, and one product for each of two corners of the modes."""
    (b, _, h, w), o = x.shape, weight.shape[1]
    found = torch.fft.rfft2(x)
    out = torch.zeros(b, o, h, w // 2 + 1, dtype=found.dtype)
    out[:, :, :m1, :m2] = torch.einsum("bixy,ioxy->boxy", found[:, :, :m1, :m2], weight[:, :, :m1])
    out[:, :, -m1:, :m2] = torch.einsum("bixy,ioxy->boxy", found[:, :, -m1:, :m2], weight[:, :, m1:])
    return torch.fft.irfft2(out, s=(h, w))


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (8, 7), (21, 94), (13, 6), (6, 7)])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_it_is_the_source_with_two_corners(transform, size):
    one, x = layer(transform=transform), torch.randn(2, 3, *size, dtype=torch.float64)
    expected = two_corners(x, one.complex_weight, 3, 4)
    torch.testing.assert_close(one(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.float()(x.float()), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_plane_wave_keeps_its_form_on_every_grid(transform):
    """cos(p) becomes r cos(p + phi) where the weight of its mode is r exp(i phi): the layer acts on functions."""
    one = layer(1, 1, (3, 4), transform)
    for k1, k2 in ((0, 0), (2, 0), (2, 3), (-3, 1), (-1, 2)):
        r = one.complex_weight[0, 0, k1, k2]
        if k2 == 0:  # a column that is its own complex conjugate, mirrored
            mirror = one.complex_weight[0, 0, -k1, 0] if k1 > -3 else 0
            r = (r + mirror.conj()) / 2
        for h, w in ((6, 7), (16, 9), (33, 50)):
            rows, columns = (torch.arange(n, dtype=torch.float64) / n for n in (h, w))
            phase = 2 * math.pi * (k1 * rows[:, None] + k2 * columns)
            expected = r.abs() * torch.cos(phase + r.angle())
            torch.testing.assert_close(one(phase.cos()[None, None])[0, 0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [(8, 10), (8, 11)])
def test_unit_weights_on_all_modes_are_the_identity(size, transform):
    one = layer(2, 2, (4, size[1] // 2 + 1), transform)
    one.set_complex_weight(torch.eye(2, dtype=torch.complex128)[:, :, None, None].expand(one.complex_weight.shape))
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(one(x), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_derivatives_of_first_and_second_order(transform):
    one, x = layer(2, 2, (2, 2), transform), torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    shape = one.weight.shape

    def call(x, weight):
        return torch.func.functional_call(one, {"weight": weight.view(shape)}, (x,)).tanh()

    weight = one.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, weight))
    assert torch.autograd.gradgradcheck(call, (x, weight))


def test_numbers_without_effect():
    """4 m1 m2 I O numbers; a real field has no use for the imaginary parts at k = 0, and for all others it has."""
    one = layer(3, 2, (3, 4))
    assert one.weight.numel() == 4 * 3 * 4 * 3 * 2
    one(torch.randn(4, 3, 16, 16, dtype=torch.float64)).pow(3).sum().backward()
    silent = one.weight.grad.abs().amax((-1, -2)) < 1e-10  # (2, 2 m1, m2)
    assert silent[1, 0, 0] and silent.sum() == 1
    before, x = one.weight.detach().clone(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    y = one(x)
    with torch.no_grad():  # the same added at k1 = 2 and -2: the imaginary parts' difference is what counts
        one.weight[1, [2, -2], 0] += 0.5
    torch.testing.assert_close(one(x), y)
    assert not torch.equal(one.weight, before)


def test_backward_keeps_the_modes_alone(saved_bytes):
    b, i, o, m1, m2, h, w = 2, 3, 2, 4, 5, 40, 50
    one = layer(i, o, (m1, m2), dtype=torch.float32)
    kept, _ = saved_bytes(one, torch.randn(b, i, h, w, requires_grad=True))
    basis = 4 * (2 * w * 2 * m2 + 2 * h * 4 * m1)  # the same for all layers of a network
    assert kept == 4 * 2 * b * i * 2 * m1 * m2 + basis


def test_a_shared_basis_changes_nothing():
    one, x = layer(), torch.randn(2, 3, 9, 11, dtype=torch.float64)
    assert torch.equal(one(x), one(x, fourier_basis((9, 11), (3, 4), torch.float64)))


def test_few_modes_take_matrix_products():
    assert (
        SpectralConv2d(1, 1, (2, MATMUL_MODES)).uses_matmul
        and not SpectralConv2d(1, 1, (MATMUL_MODES + 1, 2)).uses_matmul
    )
    assert SpectralConv2d(1, 1, (99, 99), "matmul").uses_matmul and not SpectralConv2d(1, 1, (2, 2), "fft").uses_matmul


def test_weights_are_drawn_as_in_the_source():
    one, other = (SpectralConv2d(4, 5, (6, 7)) for _ in range(2))
    for seed in (1, 2):
        before = torch.random.get_rng_state()
        one.reset_parameters(torch.Generator().manual_seed(seed))
        assert torch.equal(before, torch.random.get_rng_state())
        other.reset_parameters(torch.Generator().manual_seed(1))
        assert torch.equal(one.weight, other.weight) == (seed == 1)
    assert 0 <= one.weight.min() < 0.001 and 0.049 < one.weight.max() < 0.05  # uniform in [0, 1 / 20)
    assert float(one.weight.detach().mean()) == pytest.approx(0.025, abs=0.001)


def test_double_precision_and_autocast():
    """Complex parameters would stay single under .double(): the reason why there are none."""
    one, x = layer(dtype=torch.float32), torch.randn(2, 3, 9, 9)
    expected = one(x)
    assert one.double()(x.double()).dtype == torch.float64
    one.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(one(x), expected)
        torch.testing.assert_close(one(x.bfloat16()).float(), expected, rtol=0.05, atol=0.05)
    low = one.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("transform", TRANSFORMS)
@torch.no_grad()
def test_the_wider_dtype_computes_and_the_inputs_is_returned(transform):
    """Whatever the two dtypes are: values to the digits of the input."""
    exact = layer(transform=transform)
    # the same numbers in every dtype
    exact.weight.copy_(torch.randint(-64, 65, exact.weight.shape) / 64)
    x = torch.randint(-64, 65, (2, 3, 9, 9)).double() / 64
    expected = exact(x)
    digits = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    for own, given, autocast in itertools.product(digits, digits, (False, True)):
        one = layer(transform=transform, dtype=own)
        one.weight.copy_(exact.weight)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = one(x.to(given))
        assert y.dtype == given
        torch.testing.assert_close(y.double(), expected, rtol=digits[given], atol=digits[given])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.int64, torch.uint8, torch.bool])
def test_fields_that_are_not_real_numbers_are_refused_in_one_line(dtype):
    one, x = layer(dtype=torch.float32), torch.ones(1, 3, 9, 9).to(dtype)
    cases = [
        (lambda: one(x), f"got input of {dtype}: expected a real floating-point one"),
        (lambda: SpectralConv2d(1, 1, (2, 2), dtype=dtype), f"got weights of {dtype}"),
        (lambda: fourier_basis((9, 9), (3, 4), dtype), f"got dtype {dtype}"),
    ]
    for call, message in cases:
        with torch.autocast("cpu"), pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_basis_of_another_grid_or_of_fewer_digits_is_refused():
    one, x = layer(), torch.randn(1, 3, 9, 11, dtype=torch.float64)
    with pytest.raises(ValueError, match="got a basis of 11 x 9 points for modes 3, 4: expected 9 x 11 points"):
        one(x, fourier_basis((11, 9), (3, 4), torch.float64))
    with pytest.raises(ValueError, match="got a basis of 9 x 11 points for modes 4, 3: expected .* for modes 3, 4"):
        one(x, fourier_basis((9, 11), (4, 3), torch.float64))
    with pytest.raises(ValueError, match="got a basis of torch.float32 to compute in torch.float64"):
        one(x, fourier_basis((9, 11), (3, 4)))
    single = layer(dtype=torch.float32)
    torch.testing.assert_close(single(x.float(), fourier_basis((9, 11), (3, 4), torch.float64)), single(x.float()))


def test_complex_weights_there_and_back():
    one, other = layer(), layer()
    other.set_complex_weight(one.complex_weight)
    assert torch.equal(one.weight, other.weight) and one.complex_weight.shape == (3, 2, 6, 4)
    with pytest.raises(ValueError, match=r"got weights of shape \(3, 2, 3, 4\): expected \(3, 2, 6, 4\)"):
        one.set_complex_weight(one.complex_weight[:, :, :3])
    with pytest.raises(ValueError, match="got weights of torch.float64: expected complex ones"):
        one.set_complex_weight(one.complex_weight.real)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [(5, 6), (6, 5)])
def test_too_few_points_for_the_modes(size, transform):
    one = layer(transform=transform)
    assert one(torch.zeros(1, 3, 6, 6, dtype=torch.float64)).shape == (1, 2, 6, 6)
    with pytest.raises(
        ValueError, match=rf"got a grid of {size[0]} x {size[1]} points for modes 3, 4: .* 6 x 6 points"
    ):
        one(torch.zeros(1, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 2, (3, 3)), "got in_channels 0"),
        ((1, 2, (3, 0)), r"modes \(3, 0\): expected each to be at least 1"),
        ((1, 2, (3,)), "and two modes"),
        ((1, 2, (3, 3), "dct"), "got transform 'dct': expected one of auto, matmul, fft"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectralConv2d(*arguments)


def test_another_shape_of_input_is_told():
    for shape in ((2, 4, 9, 9), (3, 9, 9)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
            layer()(torch.zeros(shape, dtype=torch.float64))


def test_it_is_neuraloperators_layer():
    """On grids with an even number of rows; with an odd one neuraloperator 2.0.0 shifts its modes by one row."""
    spectral_convolution = pytest.importorskip("neuralop.layers.spectral_convolution")
    one = layer(3, 2, (6, 5), dtype=torch.float32)
    theirs = spectral_convolution.SpectralConv(3, 2, (12, 8), bias=False)
    with torch.no_grad():
        theirs.weight.tensor.copy_(one.complex_weight.roll(6, 2))
    for size in ((32, 32), (20, 33)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(one(x), theirs(x), rtol=1e-5, atol=1e-5)
