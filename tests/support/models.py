"""Small networks of every registered model, and data for them."""

import torch

from kansciml.models.registry import build_model

SMALL = (
    {"image_size": 32, "classes": 4, "width": 24, "depth": 2},
    {"width": 6, "modes": (3, 4), "padding": 2, "projection": 7},
)
"""Options of vision models, and of operators."""


def small(name, variant="mlp", dtype=torch.float64, **options):
    """A network with weights large enough that no branch of it is lost in another's rounding, without drop-path."""
    operator = name.startswith("fno")
    more = {} if operator else {"drop_path": 0.0}
    if name == "fno-wt":
        more = {"iterations": 3}
    model = build_model(name, variant, **{**SMALL[operator], **more, **options}).to(dtype)
    for key, parameter in model.named_parameters():
        if key.endswith("spectral.weight"):
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return model


def fields(*size, batch=2, channels=1, dtype=torch.float64):
    return torch.randn(batch, channels, *(size or (13, 11)), dtype=dtype)


def data(name, channels=1):
    """Fields for an operator, five images for a vision model."""
    return fields(channels=channels) if name.startswith("fno") else torch.randn(5, 3, 32, 32, dtype=torch.float64)
