"""The API reference has every public name, and each of them says what it is."""

from __future__ import annotations

import inspect

import pytest
from support import guide

import kansciml


@pytest.fixture(scope="module")
def hooks():
    return guide.hooks()


def modules(hooks):
    names = [name for _, names in hooks.API.values() for name in names.split()]
    return [kansciml, *(hooks.importlib.import_module(f"kansciml.{name}") for name in names)]


def test_every_public_name_is_in_the_reference(hooks):
    text = "\n".join(hooks.api_pages().values())
    for module in modules(hooks):
        for name in hooks.public_names(module):
            path = f"{module.__name__}.{name}"
            assert f"::: {path}\n" in text or f"`{path}`: see" in text, path
    assert all(f"kansciml.{name}" in text for name in kansciml.__all__ if name != "__version__")


def test_every_public_name_is_documented(hooks):
    silent = []
    for module in modules(hooks):
        assert inspect.getdoc(module), module
        for name in hooks.public_names(module):
            value = getattr(module, name)
            if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value):
                silent.append(f"{module.__name__}.{name}")
    assert not silent


def test_formulas_of_docstrings_are_typeset(hooks):
    pytest.importorskip("latex2mathml")
    text = hooks.with_formulas("First.\n\n    .. math:: a_i = b,\n        c = d\n\nwith :math:`x^2` and `y`")
    assert text.startswith("First.\n\n\n<div") and text.count("<math") == 2 and "math:" not in text
    assert text.endswith(" and `y`")


def test_links_of_a_page_lead_to_the_site_or_to_the_repository(hooks):
    class Page:
        class file:
            src_uri = "guide/layers.md"

    class Config:
        docs_dir = str(guide.ROOT / "examples")
        repo_url = "https://github.com/a/b/"

    text = (
        "[a](../own_layer.py) [b](../own_system.py) [c](paper.md#x) [d](../../julia/README.md) ![e](../pictures/f.png)"
    )
    assert hooks.on_page_markdown(text, Page, Config, None) == (
        "[a](../notebooks/own_layer.md) [b](https://github.com/a/b/blob/main/examples/own_system.py) [c](paper.md#x)"
        " [d](https://github.com/a/b/blob/main/julia/README.md) ![e](../pictures/f.png)"
    )
