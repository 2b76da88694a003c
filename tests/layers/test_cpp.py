"""The C++ kernels of the spline layer: equality with SciPy's B-splines, edge cases, building and finding them."""

import sys
from itertools import product

import numpy as np
import pytest
import torch
from support.spline_layers import scipy_splines

from kansciml.layers._kernels import cpp, cpp_library, plain
from kansciml.layers._kernels.plain import Given, Weights
from kansciml.layers._native import build
from kansciml.layers.bspline import OUTSIDE, SplineSpec, uniform_knots

GRID, ROWS, N_IN, N_OUT = 4, 1030, 19, 21  # more rows than a block has, and no multiple of a vector


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A library of the portable code alone, built now; the installed one has the processor's instruction set."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    with pytest.MonkeyPatch.context() as patch:  # an eighth of the time for the compiler
        patch.setattr(build, "FLAGS", ("-O0", *build.FLAGS[1:]))
        return cpp_library.load(build.build(directory=tmp_path_factory.mktemp("native"), instruction_sets=()))


@pytest.fixture(params=["built here, portable", "installed"])
def library(request, monkeypatch):
    if request.param == "installed":
        path = build.library_path()
        if not path.exists() or path.stat().st_mtime < max(p.stat().st_mtime for p in build.HERE.glob("*.[ch]*")):
            pytest.skip("no C++ kernels are installed, or older ones than their source")
        found = cpp_library.load(path)
    else:
        found = request.getfixturevalue("fresh")
    monkeypatch.setattr(cpp_library, "_loaded", lambda: (found, "built for a test"))


@pytest.fixture(params=["sparse", "dense"])
def way(request, library, monkeypatch):
    monkeypatch.setattr(cpp, "prefer_sparse", lambda spec: request.param == "sparse")
    return request.param


def problem(order, even, outside, rows=ROWS, dtype=torch.float64):
    """Spec, gy, x, cells, base_weight, spline_weight, spline_scale and the knots."""
    rng = np.random.default_rng(order)
    if even:
        knots = np.stack([uniform_knots(GRID, order, (-1 - 0.1 * i, 1)) for i in range(N_IN)])
        low, high = knots[:, order], knots[:, order + GRID]
        cells = np.stack([low, GRID / (high - low)])
    else:
        cells = knots = rng.uniform(0.2, 1, (N_IN, GRID + 2 * order + 1)).cumsum(1) * 0.5 - 1.5
    sizes = (rows, N_OUT), (rows, N_IN), (N_IN, N_OUT), (N_IN, GRID + order, N_OUT), (N_IN, N_OUT)
    gy, x, base, weight, scale = (torch.tensor(rng.normal(size=size), dtype=dtype) for size in sizes)
    cells = torch.tensor(cells, dtype=dtype)
    return SplineSpec(GRID, order, even, outside, "silu"), gy, x * 1.3, cells, base, weight, scale, knots


def splines(knots, order, x, outside):
    """Values and slopes by SciPy, (N, I, P) each."""
    found = ([scipy_splines(one, order, x[:, i].numpy(), k, outside) for i, one in enumerate(knots)] for k in (0, 1))
    return (torch.tensor(np.stack(part, 1)) for part in found)


def run(spec, gy, x, cells, *weights):
    given = Given(spec, x, cells, Weights(*weights))
    return cpp.forward(given), *cpp.backward(given, gy, True, True)


@pytest.mark.parametrize("order, even, outside", list(product(range(6), (True, False), OUTSIDE)))
def test_values_and_all_gradients_equal_scipy(way, order, even, outside):
    rows = ROWS if order == 3 else 67
    spec, gy, x, cells, base, weight, scale, knots = problem(order, even, outside, rows)
    found = run(spec, gy, x, cells, base, weight, scale)
    values, slopes = splines(knots, order, x, outside)
    silu = x * torch.sigmoid(x)
    silu_slope = torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))
    scaled = weight * scale[:, None]
    y = silu @ base + torch.einsum("nim,imo->no", values, scaled)
    gx = silu_slope * (gy @ base.T) + torch.einsum("nim,imo,no->ni", slopes, scaled, gy)
    of_scaled = torch.einsum("nim,no->imo", values, gy)
    truth = y, gx, silu.T @ gy, of_scaled * scale[:, None], (of_scaled * weight).sum(1)
    for got, expected in zip(found, truth):
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("order", range(6))
def test_float32_loses_no_more_than_its_rounding(way, order):
    exact = run(*problem(order, True, "zero")[:-1])
    spec, *tensors = problem(order, True, "zero")[:-1]
    # from the same rounded numbers, but for a step that a rounded position may take to the other side of its knot
    single = run(spec, *(t.float() for t in tensors))
    for got, expected in zip(single, exact):
        assert got.dtype == torch.float32
        assert (got - expected).norm() <= (1e-5 if order > 1 else 1e-3) * expected.norm()


@pytest.mark.parametrize("order, even", list(product(range(6), (True, False))))
def test_knots_belong_to_the_interval_on_their_right_but_the_last(way, order, even):
    spec, gy, x, cells, _, weight, scale, knots = problem(order, even, "zero", rows=GRID + 1)
    if even:  # a grid whose knots and positions are exact in binary
        cells = torch.tensor([[-1.0] * N_IN, [GRID / 2] * N_IN], dtype=x.dtype)
        knots = np.stack([uniform_knots(GRID, order, (-1, 1))] * N_IN)
    x = torch.tensor(knots[:, order : order + GRID + 1].T.copy())
    inside = x.clone()
    inside[-1] = torch.nextafter(x[-1], torch.tensor(-np.inf, dtype=x.dtype))
    inside[:-1] += 1e-13
    for got, expected in zip(
        run(spec, gy, x, cells, None, weight, scale), run(spec, gy, inside, cells, None, weight, scale)
    ):
        assert got is None or (got - expected).abs().max() <= 1e-10 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("order", range(1, 6))
def test_splines_fade_to_zero_over_the_knots_beyond_the_grid(way, order):
    spec, gy, _, _, _, weight, scale, _ = problem(order, True, "zero", rows=1)
    knots = uniform_knots(GRID, order, (-1, 1))  # and positions in binary
    cells = torch.tensor([[-1.0] * N_IN, [GRID / 2] * N_IN], dtype=torch.float64)
    at = np.concatenate([knots, knots[:-1] + 0.125, [knots[0] - 0.125, knots[-1] + 0.125]])
    x = torch.tensor(np.stack([np.roll(at, i) for i in range(N_IN)], 1))  # all lanes of a vector meet all places
    gy = gy.expand(len(x), -1).contiguous()
    y, gx, _, gweight, _ = run(spec, gy, x, cells, None, weight, scale)
    values, slopes = splines([knots] * N_IN, order, x, "zero")
    scaled = weight * scale[:, None]
    torch.testing.assert_close(y, torch.einsum("nim,imo->no", values, scaled), rtol=1e-12, atol=1e-12)
    if order > 1:  # steps at knots are another test's
        torch.testing.assert_close(gx, torch.einsum("nim,imo,no->ni", slopes, scaled, gy), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gweight, torch.einsum("nim,no->imo", values, gy) * scale[:, None], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("order, even, outside", list(product((0, 1, 3), (True, False), ("zero", "clamp"))))
def test_nan_stays_in_its_row_and_infinity_makes_none(way, order, even, outside):
    spec, gy, x, cells, _, weight, scale, _ = problem(order, even, outside, rows=20)
    x[3, 2], x[5, 1], x[6, 0] = float("nan"), float("inf"), -float("inf")
    y, gx, *_ = run(spec, gy, x, cells, None, weight, scale)
    assert y.isnan().all(1).tolist() == [n == 3 for n in range(20)]
    assert y[[n for n in range(20) if n != 3]].isfinite().all()
    assert gx[[5, 6]].isfinite().all()


@pytest.mark.parametrize("shape", [(0, N_IN), (1, N_IN)])
def test_no_rows_and_one_row(way, shape):
    spec, gy, x, cells, base, weight, scale, _ = problem(3, True, "linear", rows=shape[0])
    expected = plain.forward(Given(spec, x, cells, Weights(base, weight, scale)))
    y, gx, gbase, gweight, gscale = run(spec, gy, x, cells, base, weight, scale)
    torch.testing.assert_close(y, expected)
    assert gx.shape == x.shape and gbase.shape == base.shape and gscale.shape == scale.shape
    assert shape[0] or not gweight.any()


def test_what_is_not_needed_is_not_computed_and_changes_nothing(way):
    spec, gy, x, cells, base, weight, scale, _ = problem(3, True, "zero")
    x = x.T.contiguous().T  # transposed: it is copied, not misread
    given = Given(spec, x, cells, Weights(base, weight, scale))
    gx, gbase, gweight, gscale = cpp.backward(given, gy, True, True)
    alone = cpp.backward(given, gy, True, False)
    assert torch.equal(alone[0], gx) and alone[1:] == (None, None, None)
    weights = cpp.backward(given, gy, False, True)
    assert weights[0] is None
    for got, expected in zip(weights[1:], (gbase, gweight, gscale)):
        assert torch.equal(got, expected)


def test_threads_share_the_work_without_a_race(way):
    tensors = problem(3, True, "zero")[:-1]
    one = run(*tensors)
    torch.set_num_threads(3)
    try:
        for _ in range(3):
            for got, expected in zip(run(*tensors), one):
                torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    finally:
        torch.set_num_threads(1)


def test_orders_that_are_not_compiled_run_in_plain_pytorch(library):
    spec, gy, x, cells, *weights, _ = problem(6, True, "zero")
    assert torch.equal(run(spec, gy, x, cells, *weights)[0], plain.forward(Given(spec, x, cells, Weights(*weights))))


def test_an_environment_variable_switches_them_off(monkeypatch):
    monkeypatch.setenv("KANSCIML_NO_CPP", "1")
    monkeypatch.setattr(cpp_library, "_loaded", cpp_library._loaded.__wrapped__)
    assert not cpp_library.available() and cpp_library.reason() == "C++ kernels switched off by KANSCIML_NO_CPP"


def test_a_library_built_from_another_source_is_refused(monkeypatch):
    path = build.library_path()
    if not path.exists():
        pytest.skip("no C++ kernels are installed")
    monkeypatch.setattr(cpp_library, "_INTERFACE", cpp_library._INTERFACE + 1)
    with pytest.raises(OSError, match="another version of its source"):
        cpp_library.load(path)


def test_a_missing_or_failing_compiler_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"cannot build spline.cpp: .*"):
        build.build(directory=tmp_path, compiler=[sys.executable, "-c", "raise SystemExit('error: broken')"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler found"):
        build.build(directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_hook_warns_and_goes_on_where_nothing_can_be_compiled(monkeypatch, tmp_path):
    pytest.importorskip("hatchling", reason="hatchling is only there while building")
    from kansciml.layers._native.hatch_build import SplineBuildHook

    warnings = []

    class App:
        display_warning = staticmethod(warnings.append)

    root = build.HERE.parents[2]
    hook = SplineBuildHook(str(root), {}, None, None, str(tmp_path), "wheel", app=App())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    data = {"artifacts": []}
    hook.initialize("standard", data)
    assert data == {"artifacts": []}
    assert len(warnings) == 1 and warnings[0].count("\n") == 0 and "no C++ compiler" in warnings[0]
