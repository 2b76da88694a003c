"""Extreme eigenpairs against known spectra and ARPACK: values to 1e-8, true residuals, every copy of a multiple one."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from support.hessians import F64, operator_with, outlying

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian.eigenvalues import top_eigenvalues

RNG = np.random.default_rng(0)
SPECTRA = {
    "outliers, bulk, tail": outlying(),
    "single outlier": np.concatenate([[50], RNG.uniform(-0.1, 0.1, 199)]),
    "n = 1": np.array([3.0]),
    "zero": np.zeros(7),
    "multiple of the identity": np.full(9, -2.0),
    "three copies at each end": np.concatenate([[5, 5, 5, -4, -4, -4], RNG.uniform(-1, 1, 150)]),
    "plus and minus": np.concatenate([np.arange(1, 51), -np.arange(1, 51)]),
    "rank 3": np.concatenate([[3, 2, 1], np.zeros(97)]),
    "cluster": np.concatenate([1 + 1e-6 * np.arange(10), np.zeros(90)]),
    "no gaps": np.linspace(-1, 1, 300),
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_of_a_known_spectrum(name, k):
    values = np.sort(SPECTRA[name])
    operator, count = operator_with(values), min(k, len(values))
    found = top_eigenvalues(operator, k)
    assert found.verified and found.converged.all()
    # 1e-8 of each eigenvalue; of one that is zero, of the rounding of the matrix itself
    rounding = 1e-14 * np.abs(values).max()
    assert found.largest == pytest.approx(values[::-1][:count], rel=1e-8, abs=rounding)
    assert found.smallest == pytest.approx(values[:count], rel=1e-8, abs=rounding)
    y = found.vectors
    assert float((y.T @ y - torch.eye(y.shape[1], dtype=F64)).abs().max()) < 1e-12
    true = torch.linalg.vector_norm(operator.matvec(y) - y * torch.from_numpy(found.values), dim=0).numpy()
    assert found.residuals == pytest.approx(true, abs=1e-13 * max(np.abs(values).max(), 1))


def test_agrees_with_arpack():
    operator = operator_with(SPECTRA["outliers, bulk, tail"])
    truth = eigsh(operator.matrix.numpy(), k=8, which="LA", v0=np.ones(300))[0]
    assert np.sort(top_eigenvalues(operator, 8, which="largest").largest) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize(("which", "lengths"), [("largest", (4, 0)), ("smallest", (0, 4)), ("both", (4, 4))])
def test_the_ends_asked_for(which, lengths):
    found = top_eigenvalues(operator_with(SPECTRA["no gaps"]), 4, which=which, vectors=False)
    assert (len(found.largest), len(found.smallest)) == lengths and found.vectors is None
    assert np.all(np.diff(found.values) < 0)


def test_one_krylov_space_alone_misses_copies_and_the_search_of_the_complement_finds_them():
    operator = operator_with(np.array([5.0, 5, 3, -3, -4, -4] + [0.0] * 30))
    assert top_eigenvalues(operator, 2, verify=False).values == pytest.approx([5, 3, -3, -4])
    assert top_eigenvalues(operator, 2).values == pytest.approx([5, 5, -4, -4])


@pytest.mark.parametrize("basis", ["memory", "disk"])
def test_restarts_with_a_small_basis_end_at_the_same_values(basis, tmp_path):
    operator = operator_with(SPECTRA["no gaps"])
    found = top_eigenvalues(operator, 3, max_basis=20, basis=basis, folder=tmp_path)
    assert found.matvecs > 20 and found.verified
    assert found.values == pytest.approx(top_eigenvalues(operator, 3).values, rel=1e-8)


def test_deterministic_given_a_seed():
    operator = operator_with(SPECTRA["no gaps"])
    a, b, c = (top_eigenvalues(operator, 2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.values, b.values) and torch.equal(a.vectors, b.vectors)
    assert not torch.equal(a.vectors, c.vectors)


def test_float32_operators_converge_to_their_own_precision():
    found = top_eigenvalues(operator_with(SPECTRA["outliers, bulk, tail"], torch.float32), 3)
    assert found.converged.all() and found.vectors.dtype == torch.float32
    assert found.largest == pytest.approx([100, 40, 20], rel=1e-6)


def test_a_spent_budget_returns_the_best_so_far_and_says_so():
    seen = []
    found = top_eigenvalues(
        operator_with(SPECTRA["no gaps"]), 2, max_steps=10, progress=lambda products, worst: seen.append(products)
    )
    assert not found.verified and not found.converged.any() and seen[-1] == 10
    assert np.all(found.residuals > 1e-3) and 0.8 < found.largest[0] <= 1


@pytest.mark.parametrize(
    "settings", [{"k": 0}, {"which": "middle"}, {"tol": 0.0}, {"seed": -1}, {"k": 5, "max_basis": 8}, {"basis": "tape"}]
)
def test_bad_arguments_are_one_line(settings):
    with pytest.raises(UsageError, match="expected") as caught:
        top_eigenvalues(operator_with(SPECTRA["no gaps"]), **settings)
    assert "\n" not in str(caught.value)


def test_products_that_are_not_finite_are_one_line():
    operator = operator_with(SPECTRA["rank 3"])
    operator.matrix[3, 3] = float("inf")
    with pytest.raises(KansciError, match="NaN or infinite"):
        top_eigenvalues(operator)
