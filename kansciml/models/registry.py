"""Discovers models: modules of this folder that assign ``MODEL`` (vision) or ``OPERATOR`` (neural operators).

Loads one only when asked for it. A model is named by its file and a preset: ``conv-mixer-256-8`` is the preset
``256-8`` of `MODEL` in ``conv_mixer.py``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._discovery import assigns, loaded
from kansciml._errors import KansciError, check_name, unknown_name

if TYPE_CHECKING:
    import torch

    from kansciml.models.base import Model

PACKAGE = "kansciml.models"
SYMBOLS = {"vision": "MODEL", "operator": "OPERATOR"}
"""Kind of model -> the symbol that its files assign."""


def available_families(package: str = PACKAGE, kind: str = "vision") -> list[str]:
    """Names of all families of a kind, sorted: ``deit`` ... No model is loaded, nor torch: the files are only parsed.

    Raises:
        KansciError: two files give one name.
    """
    names: dict[str, Path] = {}
    for file in sorted(Path(next(iter(importlib.import_module(package).__path__))).glob("*.py")):
        if file.name.startswith("_") or not assigns(file, SYMBOLS[kind], unreadable=kind == "vision"):
            continue
        name = file.stem.replace("_", "-")
        if name in names:
            raise KansciError(f"two families of models are named {name!r}, in {names[name]} and {file}: rename one")
        names[name] = file
    return sorted(names)


def available_models(package: str = PACKAGE, kind: str = "vision") -> list[str]:
    """All names with their presets, sorted: ``deit-tiny`` ... Loads every family, and so torch.

    Raises:
        KansciError: a module that cannot be loaded, or a name that two families give.
    """
    owners: dict[str, str] = {}
    for family in available_families(package, kind):
        for preset in get_family(family, package, kind).presets:
            name = f"{family}-{preset}"
            if name in owners:
                raise KansciError(f"model {name!r} is both in {owners[name]!r} and {family!r}: rename one")
            owners[name] = family
    return sorted(owners)


def get_family(name: str, package: str = PACKAGE, kind: str = "vision") -> Model:
    """Load the family `name` of a kind.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
        KansciError: its module cannot be loaded, or does not define a `Model` of its own name.
    """
    names = available_families(package, kind)
    check_name("family of models", name, names)
    from kansciml.models.base import Model

    return loaded(f"{package}.{name.replace('-', '_')}", SYMBOLS[kind], Model, "model", name, names, "file")


def find(name: str, package: str = PACKAGE, kind: str | None = "vision") -> tuple[Model, str]:
    """The family and the preset of a name such as ``deit-tiny``; `kind` None: of any.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
    """
    kinds = [kind] if kind else list(SYMBOLS)
    for one in kinds:
        for family in available_families(package, one):
            preset = name.removeprefix(f"{family}-")
            if preset != name:
                model = get_family(family, package, one)
                if preset in model.presets:
                    return model, preset
    raise unknown_name("model", name, sorted(valid for one in kinds for valid in available_models(package, one)))


def model_config(name: str, variant: str = "mlp", **options: Any) -> Any:
    """The configuration of the model `name`, of any kind; `options` are its fields, such as ``classes=100``.

    Raises:
        UsageError: an unknown name, variant or option, or a value that the configuration refuses.
    """
    model, preset = find(name, kind=None)
    return model.config(preset, variant, **options)


def build_model(
    name: str, variant: str = "mlp", generator: torch.Generator | None = None, **options: Any
) -> torch.nn.Module:
    """The network `name`, of any kind, such as ``build_model("mixer-nano", "kan-spline", image_size=28, channels=1)``.

    Args:
        variant: ``mlp``, ``kan-spline`` or ``kan-rswaf``.
        generator: of the first weights; None: torch's own.
        options: fields of the model's configuration.

    Raises:
        UsageError: as `model_config`, or sizes that do not fit each other.
    """
    model, preset = find(name, kind=None)
    return model.build(model.config(preset, variant, **options), generator)
