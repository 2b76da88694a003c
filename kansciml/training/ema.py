"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kansciml._errors import UsageError


class Ema:
    """Exponential moving average of everything in a model's ``state_dict``.

    After step t (from 1) each floating-point or complex entry becomes a <- d a + (1 - d) w with
    d = min(decay, (1 + t) / (10 + t)): the average forgets the first weights quickly, and from t = 9 / (1 - decay) on
    it is the plain one. Other entries (counters) are copied. Running statistics of normalisation layers are averaged
    too: they belong to the weights they were taken with.

    Args:
        model: its entries are copied at once, on their devices.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in entries(model).items()}
        # found once: a state_dict at each step would cost more than the average
        places = (name.rpartition(".") for name in self.weights)
        self._owners = [(model.get_submodule(prefix), leaf) for prefix, _, leaf in places]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each average with the model's tensor as it is now.

        Raises:
            UsageError: a tensor that has another shape by now.
        """
        values = [getattr(module, leaf).detach() for module, leaf in self._owners]
        for (name, average), value in zip(self.weights.items(), values):
            if average.shape != value.shape:
                raise UsageError(
                    f"got {name} of shape {tuple(value.shape)}, averaged at shape {tuple(average.shape)}: make the"
                    " average anew after a change of grid"
                )
        return list(zip(self.weights.values(), values))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the model's weights after `step`, counted from 1."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for average, value in self._pairs():
            if value.is_floating_point() or value.is_complex():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        if averages:
            torch._foreach_lerp_(averages, values, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model holds the averages; afterwards its own weights again, to the bit."""
        pairs = self._pairs()
        own = [value.clone() for _, value in pairs]
        try:
            with torch.no_grad():
                for average, value in pairs:
                    value.copy_(average)
            yield
        finally:
            with torch.no_grad():
                for kept, (_, value) in zip(own, pairs):
                    value.copy_(kept)


def entries(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name; a tensor with several names (tied weights) once."""
    found: dict[str, Tensor] = {}
    seen = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        key = (value.data_ptr(), value.shape, value.stride())
        if value.numel() == 0 or key not in seen:
            seen.add(key)
            found[name] = value
    return found
