"""Fourier neural operators on other grids, compiled and exported with the sizes left open, and in other dtypes."""

import pytest
import torch
from support.models import fields, small
from torch._dynamo.testing import CompileCounter

from kansciml.models.base import VARIANTS
from kansciml.models.fno import with_coordinates

SHORT = {"fno-wt": {"iterations": 1}, "fno-original": {}}
SIZES = (13, 11), (16, 9), (9, 24), (20, 20)


@pytest.mark.parametrize("size", [(13, 11), (1, 5), (421, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_coordinates_run_from_0_to_1_along_both_axes(dtype, size):
    a = fields(*size, dtype=dtype)
    found = with_coordinates(a)
    assert torch.equal(found[..., :1], a.permute(0, 2, 3, 1)) and found.dtype == dtype
    for axis, n in enumerate(size):
        expected = torch.linspace(0, 1, n, dtype=torch.float64)
        seen = found[1, ..., 1 + axis].select(1 - axis, 0)
        torch.testing.assert_close(seen, expected.to(dtype), rtol=0, atol=torch.finfo(dtype).eps / 2)
        assert (found[..., 1 + axis] == seen.view(-1, 1) if axis == 0 else found[..., 2] == seen).all()


@pytest.mark.parametrize("name", ["fno-wt", "fno-deq"])
def test_any_grid_that_has_the_modes(name):
    model = small(name)
    for size in ((4, 5), (13, 8), (32, 33)):
        assert model(fields(*size)).shape == (2, 1, *size)
    with pytest.raises(ValueError, match="got a grid of 5 x 7 points for modes 3, 4"):
        model(fields(3, 5))  # with the padding
    with pytest.raises(ValueError, match=r"got input of shape \(2, 3, 9, 9\): expected \(B, 1, H, W\)"):
        model(fields(9, 9, channels=3))


@pytest.mark.slow
@pytest.mark.parametrize("name, variant, dynamic", [("fno-original", "mlp", None), ("fno-wt", "kan-spline", True)])
@torch.no_grad()
def test_one_compiled_program_serves_all_grids(name, variant, dynamic):
    """At the first other size it may be made anew, with the sizes left open; never again."""
    torch.compiler.reset()
    model, counter, counts = small(name, variant, **SHORT[name]), CompileCounter(), []
    compiled = torch.compile(model, backend=counter, dynamic=dynamic)
    for size in SIZES:
        a = fields(*size)
        torch.testing.assert_close(compiled(a), model(a), rtol=1e-12, atol=1e-12)
        counts.append(counter.frame_count)
    first = counts[0]
    assert counts[1:] == [first if dynamic else 2 * first] * (len(SIZES) - 1)
    with pytest.raises(ValueError, match="got a grid of 5 x 13 points for modes 3, 4"):
        compiled(fields(3, 11))


@pytest.mark.slow
@pytest.mark.parametrize("name, variant", [("fno-wt", "mlp"), ("fno-original", "kan-rswaf")])
@torch.no_grad()
def test_one_exported_program_serves_all_grids_and_batches(name, variant):
    model = small(name, variant, **SHORT[name]).eval()
    open_sizes = {0: torch.export.Dim("B"), 2: torch.export.Dim("H", min=4), 3: torch.export.Dim("W", min=4)}
    program = torch.export.export(model, (fields(),), dynamic_shapes=(open_sizes,)).module()
    for batch, size in enumerate(SIZES[1:], 1):
        a = fields(*size, batch=batch)
        torch.testing.assert_close(program(a), model(a), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_one_onnx_program_serves_all_grids_and_batches(dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, path = small("fno-plain", dtype=torch.float32).eval(), str(tmp_path / "operator.onnx")
    if dynamo:
        open_sizes = {0: torch.export.Dim("B"), 2: torch.export.Dim("H", min=4), 3: torch.export.Dim("W", min=4)}
        options = {"dynamic_shapes": (open_sizes,), "verbose": False}
    else:
        options = {"input_names": ["fields"], "dynamic_axes": {"fields": {0: "B", 2: "H", 3: "W"}}}
    torch.onnx.export(model, (fields(dtype=torch.float32),), path, dynamo=dynamo, **options)
    session = runtime.InferenceSession(path)
    for batch, size in enumerate(SIZES, 1):
        a = fields(*size, batch=batch, dtype=torch.float32)
        (found,) = session.run(None, {session.get_inputs()[0].name: a.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(a), rtol=1e-4, atol=1e-6)


def test_an_equilibrium_is_not_exported():
    with pytest.raises(ValueError, match="got an equilibrium to export: expected a set number of `iterations`"):
        torch.export.export(small("fno-deq").eval(), (fields(),))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_fields_of_another_dtype_are_refused_in_one_line(variant):
    model, a = small("fno-plain", variant, torch.float32), fields()
    wrong = [torch.complex64, torch.int64, torch.bool, torch.float64, torch.float16]
    for autocast in (False, True):
        for dtype in wrong if autocast else [*wrong, torch.bfloat16]:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast), pytest.raises(ValueError) as error:
                model(a.to(dtype))
            assert str(error.value) == f"got input of {dtype}: expected torch.float32, the dtype of the weights"


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_autocast_leaves_double_precision_as_it_is(variant):
    model, a = small("fno-plain", variant), fields()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(a), model(a).double()) and model(a).dtype == torch.float64
        inside = model(a)
    assert torch.equal(inside, model(a))
