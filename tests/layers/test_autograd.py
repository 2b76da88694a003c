"""Every way out of eager mode: what is recorded, transformed or compiled has the layers' numbers, or is refused."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from kansciml import KAN, RSWAFKAN, SplineKAN
from kansciml.layers._kernels import rswaf, spline_op
from kansciml.layers.layer_norm import LayerNorm

KINDS = {
    "even": {"bias": True},
    "uneven": {"spline_order": 2, "outside": "linear", "base_activation": "gelu"},
    "steps": {"spline_order": 0, "spline_scale": False, "base_activation": None},
    "hats": {"spline_order": 1, "outside": "clamp"},
    "rswaf": {"layer": "rswaf", "bias": True},
    "rswaf-free": {"layer": "rswaf", "layer_norm": False, "learn_grid": True},
}
SMOOTH = ["even", "uneven", "rswaf", "rswaf-free"]


def network(kind, dtype=torch.float64):
    net = KAN((3, 5, 2), dtype=dtype, **KINDS[kind])
    if kind == "uneven":
        for layer in net.layers:
            layer.set_knots(layer.knots + 0.1 * torch.rand_like(layer.knots))
    return net


def draw(rows, dtype=torch.float64):
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows), dtype=dtype)
    x[0] = torch.tensor([1.0, -1.0, 0.2])  # ends and a knot of the grid
    return x


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "kind, strict", [*((kind, False) for kind in KINDS), pytest.param("rswaf", True, marks=pytest.mark.slow)]
)
def test_an_exported_program_is_plain_and_takes_any_batch(kind, strict):
    net = network(kind)
    program = torch.export.export(net, (draw(4),), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=strict)
    assert "kansciml" not in str(program.graph)  # it runs where this package is not installed
    for rows in (4, 9):
        close(program.module()(draw(rows)), net(draw(rows)))


@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["even", "hats", "rswaf", "rswaf-free"])
def test_a_traced_module_is_right_for_other_batches_and_in_its_gradients(kind):
    net = network(kind)
    traced = torch.jit.trace(net, draw(4))
    x = draw(9).requires_grad_()
    for _ in range(3):  # the tracer's executor changes the graph after its first runs
        y = traced(x)
        close(y, net(x))
        wanted = torch.autograd.grad(net(x).square().sum(), (x, *net.parameters()))
        close(torch.autograd.grad(y.square().sum(), (x, *traced.parameters())), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_make_fx_records_forward_and_backward_passes(kind):
    net = network(kind).layers[0]

    def slope(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(net(x).square().sum(), x)[0]

    for call in (net, vmap(lambda row: net(row)), *((slope,) if kind != "steps" else ())):
        close(make_fx(call)(draw(5))(2 * draw(5)), call(2 * draw(5)))
    symbolic = make_fx(net, tracing_mode="symbolic", _allow_non_fake_inputs=True)(draw(4))
    close(symbolic(draw(9)), net(draw(9)))
    if kind == "steps":  # they have no slope
        return
    x = draw(5).requires_grad_()
    y = net(x)  # by the kernels; its backward pass is recorded
    recorded = make_fx(lambda gy: torch.autograd.grad(y, x, gy, retain_graph=True)[0])(torch.ones_like(y))
    cotangent = torch.randn_like(y)
    close(recorded(cotangent), torch.autograd.grad(y, x, cotangent)[0])


@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning")
def test_symbolic_tracing_takes_a_layer_as_a_node_and_scripting_is_refused_in_one_line():
    net = nn.Sequential(network("even"), nn.Linear(2, 3).double(), network("rswaf"), LayerNorm(2).double())
    traced = torch.fx.symbolic_trace(net)
    assert (
        sum(node.op == "call_module" for node in traced.graph.nodes) == 5
    )  # two layers in `even`, two in `rswaf`, the linear one; LayerNorm is a function
    close(traced(draw(6)), net(draw(6)))
    for layer in (SplineKAN(2, 1), RSWAFKAN(3, 1)):
        with pytest.raises(ValueError, match=f"got {type(layer).__name__} to script.*torch.jit.trace or torch.export"):
            torch.jit.script(nn.Sequential(layer))


def session(tmp_path, net, x, dynamo):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = str(tmp_path / "net.onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
        shapes = {"dynamic_shapes": ({0: torch.export.Dim("rows")},)}
    else:
        shapes = {"dynamic_axes": {"x": {0: "rows"}}}
    torch.onnx.export(net.eval(), (x,), path, dynamo=dynamo, input_names=["x"], verbose=False, **shapes)
    run = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [node.name for node in run.get_inputs()] == ["x"]
    return lambda x: torch.from_numpy(run.run(None, {"x": x.numpy()})[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "kind, dynamo, dtype",
    [
        *((kind, False, dtype) for kind in KINDS if kind != "uneven" for dtype in (torch.float32, torch.float64)),
        *(pytest.param(kind, True, torch.float64, marks=pytest.mark.slow) for kind in ("uneven", "rswaf")),
    ],
)
def test_onnx_gives_the_same_numbers_for_any_batch(kind, dynamo, dtype, tmp_path):
    if kind == "uneven":
        net = KAN((3, 2), outside="linear", dtype=dtype)  # SiLU: the runtime has no erf in float64
        net.layers[0].set_knots(net.layers[0].knots + 0.1 * torch.rand_like(net.layers[0].knots))
    else:
        net = network(kind, dtype)
    call = session(tmp_path, net, draw(4, dtype), dynamo)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    for rows in (4, 9, 1):
        x = draw(rows, dtype)
        torch.testing.assert_close(call(x), net(x).detach(), rtol=tolerance, atol=tolerance)
    x[0, 1] = float("nan")
    assert call(x)[0].isnan().all()


@pytest.mark.parametrize(
    "make, options",
    [
        *((SplineKAN, {"backend": backend}) for backend in ("torch", "auto")),
        *((RSWAFKAN, {"layer_norm": norm}) for norm in (True, False)),
    ],
)
def test_vectorised_derivatives_of_autograd(make, options):
    layer, x = make(3, 2, **options).double(), draw(4)

    def value(x):
        return layer(x).pow(3).sum()

    for way in ({}, {"strategy": "forward-mode"}):
        found = torch.autograd.functional.jacobian(layer, x, vectorize=True, **way)
        close(found, torch.autograd.functional.jacobian(layer, x))

    def of_weight(weight):
        return functional_call(layer, {"spline_weight": weight}, (x,)).square().sum()

    for function, at in ((value, x), (of_weight, layer.spline_weight.detach())):
        found = torch.autograd.functional.hessian(function, at, vectorize=True)
        close(found, torch.autograd.functional.hessian(function, at))
    y = layer(x)
    each = torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    weights = list(layer.parameters())
    at_once = torch.autograd.grad(y, weights, each, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(y, weights, one, retain_graph=True) for one in each]
    close(at_once, tuple(torch.stack(rows) for rows in zip(*singly)))


@pytest.mark.parametrize("make", [SplineKAN, RSWAFKAN])
def test_a_layer_used_twice_counts_each_path_once(make):
    layer, x = make(3, 3).double(), draw(5).requires_grad_()
    tensors = (x, *layer.parameters())
    with_graph = torch.autograd.grad(layer(layer(x)).square().sum(), tensors, create_graph=True)
    close(with_graph, torch.autograd.grad(layer(layer(x)).square().sum(), tensors))


def test_third_derivatives_of_an_rswaf_layer_and_under_transforms_of_a_norm():
    layer, norm = RSWAFKAN(4, 2).double(), LayerNorm(4).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def slope(x):
        return torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, (x,))
    row, step = x[0].detach(), 1e-5
    second = hessian(lambda row: norm(row).pow(3).sum())
    third = jacrev(second)(row)
    moved = torch.eye(4, dtype=row.dtype) * step
    expected = torch.stack([(second(row + d) - second(row - d)) / (2 * step) for d in moved], -1)
    torch.testing.assert_close(third, expected, rtol=1e-5, atol=1e-5)


def compiled(call, **options):
    torch._dynamo.reset()
    return torch.compile(call, backend="aot_eager", **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uneven", "rswaf"])
def test_transforms_inside_a_compiled_function(kind):
    net, x, direction = network(kind).layers[0], draw(5), draw(5).flip(0)
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def loss(parameters, row):
        return functional_call(net, parameters, (row,)).square().sum()

    def derivatives(x):
        return (
            net(x),
            jvp(net, (x,), (direction,))[1],
            grad(lambda x: net(x).square().sum())(x),
            jacrev(lambda x: net(x))(x),
            jacfwd(lambda x: net(x))(x),
            vmap(lambda row: net(row))(x),
            vmap(grad(loss), in_dims=(None, 0))(parameters, x),
        )

    found, expected = compiled(derivatives, fullgraph=True)(x), derivatives(x)
    assert expected[1].abs().min() > 0
    close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["even", "rswaf"])
def test_gradients_of_gradients_inside_a_compiled_function(kind):
    try:
        tracing = torch._dynamo.config.patch(trace_autograd_ops=True)
    except AttributeError:
        pytest.skip("this PyTorch does not trace torch.autograd.grad")
    net = network(kind).layers[0]

    def penalty(x):
        return torch.autograd.grad(net(x).square().sum(), x, create_graph=True)[0].square().sum()

    x = draw(5).requires_grad_()
    tensors = (x, *(p for p in net.parameters() if p is not net.bias))  # which has no part in it
    with tracing:
        found = torch.autograd.grad(compiled(penalty, fullgraph=True)(x), tensors, allow_unused=True)
    close(found, torch.autograd.grad(penalty(x), tensors, allow_unused=True))


@pytest.mark.parametrize(
    "kernels, bump, act", [(spline_op, "", None), (rswaf, "switch", None), (rswaf, "gauss", "silu")]
)
def test_the_operators_of_backward_passes_have_a_derivative(kernels, bump, act):
    x, gy = draw(5).requires_grad_(), torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    if kernels is spline_op:
        layer, options = SplineKAN(3, 2).double(), (5, 3, False, "zero", "silu", "torch", False)
        tensors = (layer.knots, layer.base_weight, layer.spline_weight, layer.spline_scale)
    else:
        layer = RSWAFKAN(3, 2, learn_grid=True, bump=bump, base_activation=act).double()
        options = 0.33, 1e-5, False, "torch", bump, act
        norm = layer.layernorm
        tensors = (norm.weight, norm.bias, layer.grid_points, layer.spline_weight, layer.base_weight)
    used = (gy, x, *layer.parameters())
    wanted = [t is not None and t.requires_grad for t in (x, *tensors)]
    found = sum(gradient.sum() for gradient in kernels.COMPILED_BACKWARD(gy, wanted, x, *tensors, *options))
    expected = torch.autograd.grad(layer(x), used[1:], gy, create_graph=True)
    expected = sum(gradient.sum() for gradient in expected)
    close(found, expected)
    close(*(torch.autograd.grad(value, used, allow_unused=True) for value in (found, expected)))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.parametrize("kind", SMOOTH)
def test_linearised_and_dual(kind):
    net, x, direction = network(kind), draw(5), draw(5).flip(0)
    _, expected = torch.autograd.functional.jvp(net, x, direction)
    close(linearize(net, x)[1](direction), expected)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(net(forward_ad.make_dual(x, direction))).tangent, expected)


@pytest.mark.parametrize("make", [SplineKAN, RSWAFKAN])
def test_vmap_over_an_ensemble(make):
    layers, x = [make(3, 2).double() for _ in range(3)], draw(5)
    parameters, buffers = stack_module_state(layers)
    y = vmap(lambda p, b: functional_call(layers[0], (p, b), (x,)))(parameters, buffers)
    close(y, torch.stack([layer(x) for layer in layers]))
