"""Shared by the layers' tests: what autograd keeps, counted apart from the package's own counters."""

import pytest
import torch


@pytest.fixture
def saved_bytes():
    def count(layer, x, call=None):
        """(bytes kept for backward, each storage once, without the layer's own tensors; the output)."""
        own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
        kept = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = (layer if call is None else call)(x)
        return sum(kept.values()), y

    return count
