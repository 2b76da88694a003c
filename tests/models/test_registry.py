"""Finding models, and what every registered model has to hold: gradients everywhere, states, precision, compilation."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from kansciml._errors import KansciError, UsageError
from kansciml.models import registry
from kansciml.models.base import VARIANTS, Model
from kansciml.models.registry import available_families, available_models, build_model, find

SMALL = {"image_size": 32, "classes": 4, "width": 24, "depth": 2}
CASES = [(name, variant) for name in available_models() for variant in VARIANTS]
PLACED = [
    *((name, variant, {}) for name, variant in CASES),
    *(("conv-mixer-128-4", v, {"placement": p}) for v in VARIANTS[1:] for p in ("replace", "head")),
    *((name, v, {"fair": True}) for name in ("mixer-nano", "conv-mixer-128-4", "deit-tiny") for v in VARIANTS[1:]),
]


def images(batch=5):
    return torch.randn(batch, 3, 32, 32)


def test_names():
    assert available_families() == ["conv-mixer", "deit", "mixer"]  # fields.py is in the folder, and no vision model
    assert {"deit-tiny", "deit-small", "deit-base", "mixer-nano", "conv-mixer-256-8"} <= set(available_models())
    model, preset = find("conv-mixer-128-4")
    assert (model.name, preset) == ("conv-mixer", "128-4")


def test_names_load_no_torch():
    code = (
        "import sys; from kansciml.models.registry import available_families as f; f(); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", ["deit", "deit-huge", "fields", "deit_tiny", ""])
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
    assert registry.available_families("their_models") == ["my-net"]
    assert registry.available_models("their_models") == ["my-net-a"]
    assert isinstance(registry.find("my-net-a", "their_models")[0], Model)


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
    """(scores, parameter -> largest gradient), in float64: what only rounding makes differ from zero is below 1e-12."""
    model = build_model(name, variant, **SMALL, **options, drop_path=0.0).double()
    scores = model(images().double())
    torch.nn.functional.cross_entropy(scores, torch.arange(5) % 4).backward()
    return scores, {key: None if p.grad is None else p.grad.abs().max() for key, p in model.named_parameters()}


@pytest.mark.parametrize("name, variant, options", PLACED)
def test_finite_scores_and_a_gradient_for_every_parameter(name, variant, options):
    scores, found = gradients(name, variant, options)
    assert scores.shape == (5, 4) and bool(scores.isfinite().all())
    for key, gradient in found.items():
        assert gradient is not None and bool(gradient.isfinite()), key
        if not key.endswith("tokens.layers.1.bias"):
            assert gradient > 1e-9, key


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_biases_over_patches_have_no_effect(variant):
    """The exception above: LayerNorm takes away what is added to all features of a patch alike (see mixer.py)."""
    _, found = gradients("mixer-nano", variant, {"fair": True})
    without_effect = {key for key, gradient in found.items() if gradient < 1e-12}
    assert without_effect == {f"blocks.{k}.tokens.layers.1.bias" for k in range(2)}


@pytest.mark.parametrize("name, variant", CASES)
def test_the_state_survives_safetensors(name, variant, tmp_path):
    first, second = (build_model(name, variant, **SMALL) for _ in range(2))
    x = images()
    assert not torch.equal(first.eval()(x), second.eval()(x))
    save_file(first.state_dict(), tmp_path / "w.safetensors")
    second.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("name, variant", CASES)
def test_a_generator_alone_decides_the_weights(name, variant):
    model, preset = find(name)
    states = []
    for seed in (7, 7, 8):
        network = model.module(model.config(preset, variant, **SMALL))
        before = torch.random.get_rng_state()
        network.reset_parameters(torch.Generator().manual_seed(seed))
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


@pytest.mark.parametrize("name, variant", CASES)
def test_weights_in_bfloat16_autocast_get_gradients(name, variant):
    model = build_model(name, variant, **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(images())
    assert scores.dtype == torch.bfloat16
    scores.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixer-nano", "conv-mixer-128-4"])
@pytest.mark.parametrize("variant", ["mlp", "kan-spline"])
def test_it_compiles_into_one_graph(name, variant):
    model = build_model(name, variant, **{**SMALL, "depth": 1})
    x = images()
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
