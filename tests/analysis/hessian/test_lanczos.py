"""Lanczos: T holds the moments of the start vector, V stays orthonormal, and where the basis lives does not matter."""

import errno
import os

import numpy as np
import pytest
import torch
from scipy.linalg import eigvalsh_tridiagonal
from support.hessians import F64, OUTLIERS, operator_with, outlying

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian._krylov import basis_store
from kansciml.analysis.hessian._krylov.basis_store import BasisStore, plan_basis
from kansciml.analysis.hessian.lanczos import lanczos
from kansciml.analysis.hessian.symmetric import MatrixOperator, ScaledOperator, SymmetricOperator


def start(n, seed=1):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_the_recurrence_holds_and_the_basis_is_orthonormal():
    operator, steps = operator_with(outlying()), 80
    found = lanczos(operator, start(300), steps, basis="memory", keep_basis=True)
    with found.basis as basis:
        v = basis.combine(torch.eye(steps, dtype=F64))
    t = torch.diag(torch.from_numpy(found.alpha))
    t += torch.diag(torch.from_numpy(found.beta[:-1]), 1) + torch.diag(torch.from_numpy(found.beta[:-1]), -1)
    assert float((v.T @ v - torch.eye(steps, dtype=F64)).abs().max()) < 1e-14
    remainder = operator.matvec(v) - v @ t
    assert float(remainder[:, :-1].abs().max()) < 1e-12
    assert float(remainder[:, -1].norm()) == pytest.approx(found.beta[-1], rel=1e-10)
    assert found.matvecs == steps


@pytest.mark.parametrize("basis", ["memory", "disk", "selective"])
def test_no_ghost_copies(basis):
    found = lanczos(operator_with(outlying()), start(300), 100, basis=basis)
    assert np.sum(found.ritz()[0] > 1) == 5


def test_without_reorthogonalisation_ghosts_appear():
    found = lanczos(operator_with(outlying()), start(300), 100, basis="none")
    assert np.sum(found.ritz()[0] > 1) > 20


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_basis_on_disk_gives_the_same_bits_as_one_in_memory(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(basis_store, "BLOCK_BYTES", 1 << 16)  # several blocks of columns
    operator = operator_with(outlying(), dtype=dtype)
    a, b = (lanczos(operator, start(300), 60, basis=kind, folder=tmp_path) for kind in ("memory", "disk"))
    assert np.array_equal(a.alpha, b.alpha) and np.array_equal(a.beta, b.beta)
    assert not list(tmp_path.iterdir())


def test_selective_gives_the_same_tridiagonal_to_rounding():
    operator = operator_with(outlying())
    full, selective = (lanczos(operator, start(300), 100, basis=kind) for kind in ("memory", "selective"))
    assert np.abs(full.alpha - selective.alpha).max() < 1e-11 * 100
    assert selective.matvecs > full.matvecs  # the price of not storing


def test_float32_vectors_keep_the_recurrence_in_float64():
    found = lanczos(operator_with(outlying(), dtype=torch.float32), start(300), 60, basis="memory")
    assert found.alpha.dtype == np.float64
    assert eigvalsh_tridiagonal(found.alpha, found.beta[:-1])[-5:] == pytest.approx([5, 10, 20, 40, 100], rel=1e-5)


class Large:
    """A diagonal of 50,000 numbers in float32, outliers first; products rounded once more where `noise` is given."""

    def __init__(self, noise=0.0):
        rest = 0.5 * torch.randn(49_994, generator=torch.Generator().manual_seed(0))
        self.diagonal = torch.cat([torch.tensor(OUTLIERS), rest])
        self.size, self.dtype, self.device, self.fingerprint = 50_000, torch.float32, torch.device("cpu"), ""
        self.noise, self.generator = noise, torch.Generator().manual_seed(1)

    def matvec(self, vector):
        draw = torch.rand(self.size, generator=self.generator).mul_(2).sub_(1)
        return self.diagonal * vector * (1 + self.noise * draw)


def orthogonality(found):
    v = torch.stack([found.basis.get(i).double() for i in range(found.basis.rows)])
    found.basis.close()
    inner = v @ v.T
    return float((inner - inner.diagonal().diag()).abs().max())


def test_a_float32_basis_stays_orthogonal_and_moves_the_density_less_than_a_rounding_of_the_products(monkeypatch):
    first = start(50_000).sign().float()
    narrow, noisy = (lanczos(one, first, 60, basis="memory", keep_basis=True) for one in (Large(), Large(6e-8)))
    assert 0 < orthogonality(narrow) < 2e-6  # sqrt(eps) = 3e-4 would do for T
    noisy.basis.close()
    monkeypatch.setattr(BasisStore, "narrow", False)
    wide = lanczos(Large(), first, 60, basis="memory", keep_basis=True)
    assert orthogonality(wide) < 1e-7

    def density(found):
        values, vectors = found.ritz()
        return np.array([vectors[0] ** 2 @ values**p for p in (1, 2, 3, 4)] + [values[0], values[-1]])

    of_rows, of_products = (np.abs(density(one) / density(wide) - 1) for one in (narrow, noisy))
    assert of_rows.max() < of_products.max() < 1e-5


def test_what_lies_along_a_float32_basis_is_taken_out_in_float64_where_it_is_much(monkeypatch):
    calls = []
    original = BasisStore.remove_from
    monkeypatch.setattr(BasisStore, "remove_from", lambda *a: calls.append(1) or original(*a))
    lanczos(Large(), start(50_000).sign().float(), 20, basis="memory")
    assert not calls
    lanczos(operator_with([3.0, 2.0, 1.0] + [0.0] * 40, dtype=torch.float32), start(43), 5, basis="memory")
    assert calls  # the space is invariant after four steps: rounding errors alone are left


def test_float32_rows_are_read_for_three_new_vectors_at_a_time_unless_one_is_small(monkeypatch):
    vectors = []
    original = BasisStore.remove_narrowly

    def counted(store, count, *new):
        vectors.append(len(new))
        return original(store, count, *new)

    monkeypatch.setattr(BasisStore, "remove_narrowly", counted)
    level = [i / 150 - 1 for i in range(301)]
    lanczos(operator_with(level, dtype=torch.float32), start(301), 20, basis="memory")
    assert sum(vectors) == 20 and vectors.count(3) >= 5
    vectors.clear()
    steep = [1e3] + [0.01 * i / 300 for i in range(300)]  # all after the first steps is small beside the largest
    lanczos(operator_with(steep, dtype=torch.float32), start(301), 20, basis="memory")
    assert vectors.count(1) >= 15


@pytest.mark.parametrize("values", [[3.0], [0.0] * 9, [2.0] * 9, [1.0, -1.0] * 6, [3.0, 2.0, 1.0] + [0.0] * 40])
@pytest.mark.parametrize("basis", ["memory", "selective"])
def test_an_invariant_space_ends_the_recurrence(values, basis):
    found = lanczos(operator_with(values), start(len(values)), 50, basis=basis)
    distinct = sorted(set(values))
    assert found.exhausted and len(distinct) <= len(found.alpha) <= len(distinct) + 1
    distances = np.abs(found.ritz()[0][:, None] - distinct)  # a step into rounding error doubles a node
    assert distances.min(0).max() < 1e-13 and distances.min(1).max() < 1e-13


def test_locked_vectors_are_not_seen():
    values = outlying()
    operator = operator_with(values)
    vectors = torch.linalg.eigh(operator.matrix)[1][:, -3:]
    found = lanczos(operator, start(300), 60, locked=vectors)
    assert found.ritz()[0].max() == pytest.approx(10, rel=1e-10)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(basis_store, "_claim", full)
    with pytest.raises(KansciError, match="No space left on device: free some space") as caught:
        BasisStore("disk", 10, 100, F64, "cpu", tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(KansciError, match="name a folder"):
        BasisStore("disk", 10, 100, F64, "cpu", tmp_path / "missing")


def test_the_file_goes_when_a_product_fails(tmp_path):
    operator = operator_with(outlying())
    operator.matrix[0, 0] = float("nan")
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(KansciError, match="NaN or infinite"):
        lanczos(operator, start(300), 20, basis="disk", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_the_plan_takes_the_first_place_that_fits(monkeypatch):
    class Free:
        free = 1000

    monkeypatch.setattr(basis_store, "available_memory", lambda device: 400)
    monkeypatch.setattr(basis_store.shutil, "disk_usage", lambda place: Free)
    kinds = [plan_basis(1, rows, F64).kind for rows in (25, 26, 100, 101)]  # 200, 208, 800, 808 bytes
    assert kinds == ["memory", "disk", "disk", "selective"]
    assert lanczos(operator_with(outlying()), start(300), 50).kind == "selective"


def test_rotation_in_place_equals_combination():
    rng = torch.Generator().manual_seed(3)
    rows = torch.randn(8, 200, generator=rng, dtype=F64)
    s = torch.linalg.qr(torch.randn(8, 3, generator=rng, dtype=F64))[0]
    with BasisStore("memory", 8, 200, F64, "cpu") as store:
        for index, row in enumerate(rows):
            store.put(index, row)
        assert torch.allclose(store.combine(s), rows.T @ s)
        store.rotate(s)
        assert torch.allclose(torch.stack([store.get(i) for i in range(3)]), s.T @ rows)


def test_a_scaled_operator_is_d_a_d():
    operator, d = operator_with([1.0, 2.0, -3.0, 4.0]), torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=F64)
    scaled = ScaledOperator(operator, d)
    assert isinstance(scaled, SymmetricOperator) and isinstance(operator, SymmetricOperator)
    assert torch.allclose(scaled.matvec(torch.eye(4, dtype=F64)), d[:, None] * operator.matrix * d)
    assert torch.equal(scaled.matvec(d), scaled.matvec(d[:, None])[:, 0])
    assert scaled.fingerprint != operator.fingerprint != operator_with([1.0, 2.0, -3.0, 5.0]).fingerprint


@pytest.mark.parametrize(
    "call",
    [
        lambda: MatrixOperator(torch.ones(2, 3)),
        lambda: MatrixOperator(torch.tensor([[0.0, 1.0], [2.0, 0.0]])),
        lambda: MatrixOperator(torch.tensor([[float("nan")]])),
        lambda: ScaledOperator(operator_with([1.0, 2.0]), torch.ones(3)),
        lambda: lanczos(operator_with([1.0, 2.0]), start(2), 0),
        lambda: lanczos(operator_with([1.0, 2.0]), start(3), 2),
        lambda: lanczos(operator_with([1.0, 2.0]), torch.zeros(2), 2),
        lambda: lanczos(operator_with([1.0, 2.0]), start(2), 2, basis="tape"),
        lambda: lanczos(operator_with([1.0, 2.0]), start(2), 2, basis="selective", keep_basis=True),
    ],
)
def test_bad_arguments_are_one_line(call):
    with pytest.raises(UsageError, match="expected") as caught:
        call()
    assert "\n" not in str(caught.value)
