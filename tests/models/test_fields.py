"""Vector fields as modules: a KAN field whose grid is refined."""

from dataclasses import replace

import numpy as np
import torch

from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField, refined_field


def test_a_kan_field_on_a_finer_grid_is_the_same_function():
    spec = FieldSpec("kan", (2, 3, 2), grid=3, center=(0.1, 0.2), scale=(2.0, 3.0))
    params = spec.initial_parameters(0) + 0.1
    u = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (40, 2)))
    for grid, error in ((6, 1e-12), (7, 0.05)):
        finer, refined = refined_field(spec, params, grid)
        assert finer == replace(spec, grid=grid) and len(refined) == finer.n_parameters
        before, after = (VectorField(one).load_flat(flat)(0.0, u) for one, flat in ((spec, params), (finer, refined)))
        torch.testing.assert_close(after, before, rtol=error, atol=error)
