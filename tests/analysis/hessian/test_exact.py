"""All eigenvalues: numbers of positive, zero and negative ones that closed forms know, and what is refused."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from support.hessians import cross_entropy, exact_hessian, operator_with, squares
from torch import nn

from kansciml import KAN, KansciError
from kansciml.analysis.hessian import HessianOperator, exact_bytes, exact_seconds, formed_matrix, sharpness
from kansciml.experiments.hessian.measure import HessianSettings, load
from kansciml.runs.trained import LoadedModel, TrainedModel

SIGNS = ("positive_exact", "zero_exact", "negative_exact")


def signs(found):
    """Numbers of positive, zero and negative eigenvalues, none of which has an error."""
    assert found.exact and all(found.measures[name].standard_error == 0 for name in SIGNS)
    return tuple(int(found.measures[name].value) for name in SIGNS)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eigenvalues_of_a_known_matrix_are_counted_also_where_the_quadrature_sees_zero():
    values = np.concatenate([[100.0, 3.0], np.full(5, 1e-9), np.zeros(4), [-1e-8, -2.0]])
    found = sharpness(operator_with(values))
    assert signs(found) == (7, 4, 2)
    assert found.measures["positive_count"].value == 2  # above 1e-6 of the largest
    assert found.zero == pytest.approx(13 * np.finfo(float).eps * 100, rel=1e-9)
    assert found.eigenvalues["plain"] == pytest.approx(np.sort(values), abs=1e-12)


def test_least_squares_with_fewer_samples_than_weights_are_flat_in_all_other_directions():
    module, (x, y) = nn.Linear(12, 1).double(), (draw(7, 12), draw(7, 1, seed=1))
    found = sharpness(HessianOperator(module, squares, (x, y)), module)
    assert signs(found) == (7, 13 - 7, 0)
    rows = torch.cat([x, torch.ones(7, 1)], 1)
    truth = torch.linalg.eigvalsh(2 / 7 * rows.T @ rows)
    assert found.eigenvalues["plain"] == pytest.approx(truth.numpy(), abs=1e-13)


def test_softmax_regression_is_flat_where_the_same_is_added_to_all_classes():
    x, labels = draw(60, 4), torch.arange(60) % 3
    module = nn.Linear(4, 3).double()
    found = sharpness(HessianOperator(module, cross_entropy, (x, labels)), module)
    assert signs(found) == (2 * 5, 5, 0)  # (classes - 1) times 4 weights and a bias; once those for all classes


def test_a_kan_s_eigenvalues_are_those_of_its_hessian_by_other_means():
    torch.manual_seed(0)
    module, data = KAN([2, 3, 1], grid=3, spline_order=3).double(), (draw(30, 2), draw(30, 1, seed=1))
    found = sharpness(HessianOperator(module, squares, data), module)
    truth = torch.linalg.eigvalsh(exact_hessian(module, squares, data)).numpy()
    top = np.abs(truth).max()
    assert found.eigenvalues["plain"] == pytest.approx(truth, abs=1e-13 * top)
    assert found.asymmetry is not None and found.asymmetry < 1e-14
    assert found.zero is not None and found.zero < 1e-12 * top
    assert sum(signs(found)) == found.size


class Crooked:
    """A matrix whose products are not symmetric, or not finite."""

    size, dtype, device, fingerprint = 600, torch.float64, torch.device("cpu"), "crooked"

    def __init__(self, off):
        self.matrix = torch.eye(600, dtype=torch.float64)
        self.matrix[500, 3] += off

    def matvec(self, vector):
        return self.matrix @ vector


def test_the_asymmetry_is_measured_removed_and_refused_where_rounding_cannot_have_made_it():
    made = formed_matrix(Crooked(1e-9))
    assert torch.equal(made.matrix, made.matrix.T) and float(made.matrix[3, 500]) == pytest.approx(5e-10)
    assert made.asymmetry == pytest.approx(math.sqrt(2) * 1e-9 / math.sqrt(600))
    assert made.rounding == pytest.approx(math.sqrt(2) * 1e-9 / 2)
    with pytest.raises(KansciError, match="not symmetric .* second derivative is wrong"):
        formed_matrix(Crooked(1.0))
    with pytest.raises(KansciError, match="NaN or infinite"):
        formed_matrix(Crooked(math.inf))


def test_too_little_memory_is_one_line_and_costs_are_stated(monkeypatch):
    assert exact_bytes(10_000) == 3_200_000_000 and 60 < exact_seconds(10_000) < 600
    module = importlib.import_module("kansciml.analysis.hessian.sharpness")
    monkeypatch.setattr(module, "available_memory", lambda device: 100)
    with pytest.raises(KansciError, match="6 parameters take .* GB, .* use exact 'never'"):
        sharpness(operator_with(np.arange(6.0)))


@pytest.mark.parametrize("exact, dtype", [("auto", torch.float64), ("never", torch.float32)])
def test_a_network_trained_in_float32_is_measured_in_float64_if_all_eigenvalues_are_taken(exact, dtype):
    module = KAN([2, 3], grid=2)
    x = draw(40, 2).float()
    made = LoadedModel(module, lambda net, batch: net(batch[0]).square().mean(), [(x, torch.arange(40))])
    loaded, operator = load(TrainedModel("one", "One", "kan", 0, lambda: made), HessianSettings(exact=exact, samples=9))
    assert operator.dtype == dtype and next(loaded.module.parameters()).dtype == dtype
    assert operator.loss_value() == pytest.approx(module(x[:9].to(dtype)).square().mean().item())
