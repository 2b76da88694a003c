"""The five-point scheme: its order, its balance, its symmetries, and two solvers against each other and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from kansciml import KansciError, UsageError
from kansciml.tasks.darcy import solver
from kansciml.tasks.darcy.coefficient import coefficient
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.solver import five_point_matrix, solve, solve_cg, solve_lu

BOTH = pytest.mark.parametrize("method", [solve_cg, solve_lu])


def rough(resolution: int, seed: int = 0, high: float = 12.0) -> np.ndarray:
    return coefficient(DarcyConfig(resolution=resolution, subsample=1, data_seed=seed, high=high), "train", 0)


def random_problem(s: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(1, 9, (s, s)), rng.standard_normal((s, s))


def manufactured(s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, f and u = sin(pi x) sin(2 pi y) (1 + x) for a = 2 + sin(3 x) cos(2 y)."""
    x, y = np.meshgrid(*2 * [np.linspace(0, 1, s)], indexing="ij")
    pi = np.pi
    a = 2 + np.sin(3 * x) * np.cos(2 * y)
    a_x, a_y = 3 * np.cos(3 * x) * np.cos(2 * y), -2 * np.sin(3 * x) * np.sin(2 * y)
    p, q = np.sin(pi * x) * (1 + x), np.sin(2 * pi * y)
    p_x = pi * np.cos(pi * x) * (1 + x) + np.sin(pi * x)
    p_xx = -(pi**2) * p + 2 * pi * np.cos(pi * x)
    q_y, q_yy = 2 * pi * np.cos(2 * pi * y), -4 * pi**2 * q
    return a, -(a_x * p_x * q + a_y * p * q_y + a * (p_xx * q + p * q_yy)), p * q


@BOTH
def test_order_two_on_a_manufactured_solution(method) -> None:
    errors = []
    for s in (31, 61, 121):
        a, f, u = manufactured(s)
        errors.append(np.linalg.norm(method(a, f) - u) / np.linalg.norm(u))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.01)


def test_relative_error_at_241() -> None:
    a, f, u = manufactured(241)
    assert np.linalg.norm(solve(a, f) - u) / np.linalg.norm(u) < 1e-4


@BOTH
def test_the_equations_written_out_node_by_node(method) -> None:
    s = 8
    a, f = random_problem(s)
    matrix, rhs = np.zeros((s * s, s * s)), np.zeros(s * s)
    for i in range(s):
        for j in range(s):
            row = i * s + j
            if i in (0, s - 1) or j in (0, s - 1):
                matrix[row, row] = 1
                continue
            rhs[row] = f[i, j]
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                face = (a[i, j] + a[k, m]) / 2 * (s - 1) ** 2
                matrix[row, row] += face
                matrix[row, k * s + m] -= face
    np.testing.assert_allclose(method(a, f).ravel(), np.linalg.solve(matrix, rhs), rtol=0, atol=1e-14)


def test_an_eigenvector_of_the_constant_coefficient() -> None:
    s = 33
    i = np.arange(s)
    mode = np.outer(np.sin(np.pi * 2 * i / (s - 1)), np.sin(np.pi * 5 * i / (s - 1)))
    eigenvalue = 4 * (s - 1) ** 2 * sum(np.sin(np.pi * k / (2 * (s - 1))) ** 2 for k in (2, 5))
    for method in (solve_cg, solve_lu):
        np.testing.assert_allclose(method(np.full((s, s), 3.0), mode), mode / (3 * eigenvalue), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("resolution", "seed"), [(85, 1), (121, 2), (120, 3)])
def test_cg_and_lu_agree(resolution: int, seed: int) -> None:
    a = rough(resolution, seed)
    truth = solve_lu(a)
    assert np.linalg.norm(solve_cg(a) - truth) < 1e-10 * np.linalg.norm(truth)


@BOTH
def test_what_enters_leaves_through_the_boundary(method) -> None:
    a = rough(61)
    u = method(a, 2.0)
    inner = slice(1, -1)
    out = sum(
        ((b[0, inner] + b[1, inner]) / 2 * v[1, inner]).sum()
        for b, v in ((np.rot90(a, k), np.rot90(u, k)) for k in range(4))
    )
    assert out == pytest.approx(2.0 * 59**2 / 60**2, rel=1e-11)
    assert u[inner, inner].min() > 0 and not np.pad(u[inner, inner], 1)[u == 0].any()


@BOTH
def test_symmetries_of_the_square_and_scalings(method) -> None:
    a, f = random_problem(24)
    u = method(a, f)
    for turn in (np.transpose, np.flipud, np.fliplr, np.rot90):
        np.testing.assert_allclose(method(turn(a), turn(f)), turn(u), rtol=0, atol=1e-13)
    np.testing.assert_allclose(method(7 * a, -3 * f), -3 / 7 * u, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(u, np.pad(u[1:-1, 1:-1], 1))


def test_the_matrix_is_symmetric_and_its_preconditioned_spectrum_lies_in_the_coefficients() -> None:
    """Why conjugate gradients converge at a rate that does not depend on the resolution."""
    a, _ = random_problem(14, seed=3)
    matrix = five_point_matrix(a).toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    laplacian = five_point_matrix(np.ones_like(a)).toarray()
    eigenvalues = np.linalg.eigvals(np.linalg.solve(laplacian, matrix)).real
    assert a.min() <= eigenvalues.min() < 2.5 and 7 < eigenvalues.max() <= a.max()


def test_iterations_do_not_grow_with_the_resolution_and_keep_their_bound(monkeypatch) -> None:
    calls = []
    original = solver._precondition
    monkeypatch.setattr(solver, "_precondition", lambda *args: (calls.append(0), original(*args))[1])
    counts = []
    for resolution in (41, 81, 161):
        calls.clear()
        a = rough(resolution)
        solve_cg(a)
        counts.append(len(calls))
        assert len(calls) <= solver._iteration_bound(a, solver.TOLERANCE) + 1
    assert max(counts) - min(counts) <= 4


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_the_error_keeps_the_bound_of_the_stopping_rule(tolerance: float) -> None:
    a = rough(61)
    truth, matrix = solve_lu(a)[1:-1, 1:-1].ravel(), five_point_matrix(a)
    error = solve_cg(a, tolerance=tolerance)[1:-1, 1:-1].ravel() - truth
    relative = np.sqrt(error @ (matrix @ error) / (truth @ (matrix @ truth)))
    assert 1e-3 * tolerance < relative <= tolerance * np.sqrt(12 / 3)


def test_a_contrast_of_ten_thousand() -> None:
    a = rough(85, high=3e4)
    truth = solve_lu(a)
    assert np.linalg.norm(solve_cg(a) - truth) < 1e-8 * np.linalg.norm(truth)


def test_no_convergence_is_one_clear_line(monkeypatch) -> None:
    monkeypatch.setattr(solver, "_iteration_bound", lambda a, tolerance: 1)
    with pytest.raises(KansciError, match="did not converge for coefficients from 3 to 12: use the solver lu"):
        solve(rough(41))


@pytest.mark.parametrize(
    ("a", "f", "method", "message"),
    [
        (np.ones((4, 5)), 1.0, "cg", "shape"),
        (np.ones((2, 2)), 1.0, "cg", "shape"),
        (np.zeros((5, 5)), 1.0, "cg", "not positive"),
        (np.full((5, 5), np.nan), 1.0, "lu", "not positive"),
        (np.ones((5, 5)), np.ones((4, 4)), "cg", "right-hand side of shape"),
        (np.ones((5, 5)), np.inf, "cg", "not finite"),
        (np.ones((5, 5)), 1.0, "gmres", "unknown solver 'gmres': expected one of cg, lu"),
    ],
)
def test_bad_input_is_one_clear_line(a, f, method, message) -> None:
    with pytest.raises(UsageError, match=message):
        solve(a, f, method)


def test_no_forcing_no_flow() -> None:
    np.testing.assert_array_equal(solve(rough(21), 0.0), 0)
