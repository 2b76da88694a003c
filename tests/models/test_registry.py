"""Finding models, and what every registered model has to hold: gradients everywhere, states, precision, compilation."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import SMALL, data, small

from kansciml import KansciError, UsageError
from kansciml.models import registry
from kansciml.models.base import VARIANTS, Model
from kansciml.models.registry import available_families, available_models, build_model, find

VISION_CASES = [(name, variant) for name in available_models() for variant in VARIANTS]
CASES = [*VISION_CASES, *((name, variant) for name in available_models(kind="operator") for variant in VARIANTS)]
KANS = VARIANTS[1:]
OPTIONS = [
    *((name, variant, {}) for name, variant in VISION_CASES),
    *(("conv-mixer-128-4", variant, {"placement": place}) for variant in KANS for place in ("replace", "head")),
    ("conv-mixer-128-4", "kan-spline", {"placement": "grouped"}),
    *((name, variant, {"fair": True}) for name in ("mixer-nano", "conv-mixer-128-4", "deit-tiny") for variant in KANS),
    *((name, variant, {"in_channels": 2, "out_channels": 3}) for name, variant in CASES if name.startswith("fno")),
    ("fno-wt", "mlp", {"residual": True}),
    ("fno-wt", "kan-spline", {"fair": True, "blocks": 2}),
    ("fno-deq", "mlp", {"gradient": "jacobian-free"}),
]


def test_names():
    assert available_families() == ["conv-mixer", "deit", "mixer"]  # fields.py is in the folder, and no vision model
    assert available_families(kind="operator") == ["fno"]
    names = ["fno-deq", "fno-injection", "fno-original", "fno-plain", "fno-wt"]
    assert available_models(kind="operator") == names
    assert {"deit-tiny", "deit-small", "deit-base", "mixer-nano", "conv-mixer-256-8"} <= set(available_models())
    model, preset = find("conv-mixer-128-4")
    assert (model.name, preset) == ("conv-mixer", "128-4")


def test_names_load_no_torch():
    code = (
        "import sys; from kansciml.models.registry import available_families as f; f(); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", ["deit", "deit-huge", "fields", "deit_tiny", "", "fno-wt"])
def test_an_unknown_name_lists_the_valid_ones(name):
    with pytest.raises(UsageError, match="unknown model .*: expected one of .*deit-tiny"):
        find(name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of models that a test fills: (write a module, the package's name)."""
    package = tmp_path / "their_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name, text: (package / f"{name}.py").write_text(text)
    for name in [name for name in sys.modules if name.startswith("their_models")]:
        del sys.modules[name]


GOOD = "from kansciml.models.base import Model\nMODEL = Model('{}', 'title', {{'a': None}}, None)\n"


def test_one_new_file_is_one_new_family(folder):
    folder("my_net", GOOD.format("my-net"))
    folder("helper", "MODELS = 3\n")
    folder("_private", GOOD.format("private"))
    folder("solver", GOOD.format("solver").replace("MODEL", "OPERATOR"))
    folder("wrong", "OPERATOR = 3\n")
    assert registry.available_families("their_models") == ["my-net"]
    assert registry.available_models("their_models") == ["my-net-a"]
    assert isinstance(registry.find("my-net-a", "their_models")[0], Model)
    assert registry.available_families("their_models", "operator") == ["solver", "wrong"]  # kinds do not mix
    assert registry.find("my-net-a", "their_models", None)[1] == registry.find("solver-a", "their_models", None)[1]
    with pytest.raises(KansciError, match=r"OPERATOR in .*wrong.py is a int: expected a Model"):
        registry.get_family("wrong", "their_models", "operator")


@pytest.mark.parametrize(
    "text, message",
    [
        ("MODEL = 3", "is a int: expected a Model"),
        (GOOD.format("other"), "is named 'other': name it 'net'"),
        ("MODEL = 1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("def (", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_broken_file_is_told_in_one_line(folder, text, message):
    folder("net", text)
    with pytest.raises(KansciError, match=message) as caught:
        registry.get_family("net", "their_models")
    assert "\n" not in str(caught.value)


def test_names_that_two_files_give_are_an_error(folder):
    folder("a_b", GOOD.format("a-b"))
    folder("a-b", GOOD.format("a-b"))
    with pytest.raises(KansciError, match="two families of models are named 'a-b'"):
        registry.available_families("their_models")


def test_presets_that_two_families_give_are_an_error(folder):
    folder("a", GOOD.format("a").replace("'a': None", "'b-c': None"))
    folder("a_b", GOOD.format("a-b").replace("'a': None", "'c': None"))
    with pytest.raises(KansciError, match="'a-b-c' is both in 'a' and 'a-b'"):
        registry.available_models("their_models")


def gradients(name, variant, options):
    """(output, parameter -> largest gradient), in float64: what only rounding makes differ from zero is tiny."""
    model = small(name, variant, **options)
    y = model(data(name, options.get("in_channels", 1)))
    y.square().mean().backward()
    return y, {key: None if p.grad is None else p.grad.abs().max() for key, p in model.named_parameters()}


@pytest.mark.parametrize("name, variant, options", OPTIONS)
def test_finite_outputs_and_a_gradient_for_every_parameter(name, variant, options):
    y, found = gradients(name, variant, options)
    expected = (2, options.get("out_channels", 1), 13, 11) if name.startswith("fno") else (5, 4)
    assert y.shape == expected and bool(y.isfinite().all())
    for key, gradient in found.items():
        assert gradient is not None and bool(gradient.isfinite()), key
        if not key.endswith("tokens.layers.1.bias"):
            assert gradient > 1e-10, key


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_biases_over_patches_have_no_effect(variant):
    """The exception above: LayerNorm takes away what is added to all features of a patch alike (see mixer.py)."""
    _, found = gradients("mixer-nano", variant, {"fair": True})
    without_effect = {key for key, gradient in found.items() if gradient < 1e-12}
    assert without_effect == {f"blocks.{k}.tokens.layers.1.bias" for k in range(2)}


@pytest.mark.parametrize("name, variant", CASES)
def test_the_state_survives_safetensors(name, variant, tmp_path):
    first, second = (small(name, variant).eval() for _ in range(2))
    x = data(name)
    assert not torch.equal(first(x), second(x))
    save_file(first.state_dict(), tmp_path / "w.safetensors")
    second.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("name, variant", CASES)
def test_a_generator_alone_decides_the_weights(name, variant):
    model, preset = find(name, kind=None)
    states = []
    for seed in (7, 7, 8):
        network = model.module(model.config(preset, variant, **SMALL[name.partition("-")[0] == "fno"]))
        before = torch.random.get_rng_state()
        network.reset_parameters(torch.Generator().manual_seed(seed))
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))
    key = next(key for key in ("head.weight", "blocks.0.layers.1.spectral.weight") if key in states[0])
    assert not torch.equal(states[0][key], states[2][key])


@pytest.mark.parametrize("name, variant", VISION_CASES)
def test_weights_in_bfloat16_autocast_get_gradients(name, variant):
    model = small(name, variant, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(data(name).float())
    assert scores.dtype == torch.bfloat16
    scores.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, variant, options",
    [
        *((n, v, {"depth": 1}) for n in ("mixer-nano", "conv-mixer-128-4") for v in ("mlp", "kan-spline")),
        ("fno-wt", "mlp", {"iterations": 1}),
    ],
)
def test_it_compiles_into_one_graph(name, variant, options):
    model, x = small(name, variant, torch.float32, **options), data(name).float()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    results = []
    for run in (model, compiled):
        model.zero_grad()
        y = run(x)
        y.square().sum().backward()
        results.append((y.detach(), *(p.grad for p in model.parameters())))
    for eager, traced in zip(*results):
        torch.testing.assert_close(eager, traced, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mixer-nano", "conv-mixer-256-8", "deit-tiny"])
@pytest.mark.parametrize("size, channels, patch", [(28, 1, 4), (8, 1, 2), (32, 3, 4)])
def test_mnist_digits_and_cifar_fit(name, size, channels, patch):
    options = {"image_size": size, "channels": channels, "patch": patch, "depth": 1, "classes": 10, "width": 6}
    model = build_model(name, "kan-spline", **options)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match=rf"got images of shape \(2, 5, 8, 8\): expected \(B, {channels}, {size}"):
        model(torch.zeros(2, 5, 8, 8))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mixer-nano", {"patch": 5}, "got patch 5 for images of 32 x 32: expected a patch that divides the image"),
        ("mixer-nano", {"token_hidden": 0}, "got token_hidden 0: expected at least 1"),
        ("mixer-nano", {"variant": "kan"}, "unknown variant 'kan': expected one of mlp, kan-spline, kan-rswaf"),
        ("mixer-nano", {"kan_hidden": (4,)}, r"got kan_hidden \(4,\): expected 2 widths \(tokens, channels\)"),
        ("mixer-nano", {"spline_order": -1}, "got spline_order -1"),
        ("mixer-nano", {"grid_range": (1.0, -1.0)}, "mixer: got grid_range"),
        ("conv-mixer-128-4", {"kernel": 4}, "got kernel 4: expected an odd size"),
        ("conv-mixer-128-4", {"placement": "tail"}, "unknown placement 'tail': expected one of append, replace, head"),
        ("conv-mixer-128-4", {"kan_hidden": (4, 4)}, "expected 1 widths"),
        ("deit-tiny", {"heads": 5}, "got width 192 and 5 heads"),
        ("deit-tiny", {"depth": 0}, "got depth 0"),
        ("deit-tiny", {"drop_path": 1.0}, "got drop_path 1.0"),
        ("deit-tiny", {"size": 3}, "unknown option of deit 'size'"),
        ("fno-wt", {"modes": (0, 3)}, r"got modes \(0, 3\): expected two numbers of at least 1"),
        ("fno-wt", {"iterations": 0}, "got iterations 0: expected at least 1"),
        ("fno-wt", {"padding": -1}, "got padding -1: expected at least 0"),
        ("fno-wt", {"gradient": "exact"}, "unknown gradient 'exact': expected one of implicit, jacobian-free"),
        ("fno-wt", {"tolerance": -1.0}, "got tolerance -1.0"),
        ("fno-wt", {"equilibrium": True, "residual": True}, "got an equilibrium with residual"),
        ("fno-wt", {"injection": False}, "got an equilibrium, or a start from zero, without injection"),
        ("fno-wt", {"kan_hidden": (4, 4)}, r"got kan_hidden \(4, 4\): expected 1 width"),
    ],
)
def test_mistakes_are_told(name, options, message):
    with pytest.raises(UsageError, match=message):
        build_model(name, **{"variant": "kan-spline", **options})
