"""Solves -div(a grad u) = f on the unit square, u = 0 on its boundary, by the five-point scheme of second order.

The nodes are i / (s - 1), boundary included; the coefficient of the face between two nodes is their arithmetic mean:

    sum over the four neighbours n of node i:  (a_i + a_n) / 2 (u_i - u_n) = h^2 f_i,   h = 1 / (s - 1).

Two direct routes to its solution. Conjugate gradients, preconditioned by the Laplacian, which two sine transforms
invert: the preconditioned matrix has all its eigenvalues in [min a, max a] (Nielsen, Tveito & Hackbusch, 2009), so that
the number of iterations does not grow with s. And a sparse LU, which no contrast can upset.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float64, Num
from scipy import fft
from scipy.sparse.linalg import splu

from kansciml._errors import KansciError, UsageError, unknown_name
from kansciml.tasks.darcy.config import SOLVERS

TOLERANCE = 1e-12
Nodes = Num[np.ndarray, "s s"]
"""Numbers at the nodes."""


def solve(a: Nodes, f: float | Nodes = 1.0, solver: str = "cg") -> Float64[np.ndarray, "s s"]:
    """The solution u at the nodes.

    Args:
        a: coefficient, positive.
        f: right-hand side, a number or at the nodes, where its boundary values play no part. Default 1.
        solver: ``"cg"`` (default) or ``"lu"``.

    Raises:
        UsageError: another shape, a coefficient that is not positive and finite, an unknown solver.
        KansciError: conjugate gradients did not converge.
    """
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, SOLVERS)
    return solve_cg(a, f) if solver == "cg" else solve_lu(a, f)


def solve_lu(a: Nodes, f: float | Nodes = 1.0) -> Float64[np.ndarray, "s s"]:
    """`solve` by a sparse LU factorisation."""
    a, rhs = _checked(a, f)
    n = len(rhs)
    # The matrix is symmetric and diagonally dominant: no pivoting, and an ordering for symmetric matrices, which leaves
    # half the fill-in of SciPy's default.
    options = {"SymmetricMode": True}
    factors = splu(five_point_matrix(a), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    return np.pad(factors.solve(rhs.ravel()).reshape(n, n), 1)


def solve_cg(a: Nodes, f: float | Nodes = 1.0, tolerance: float = TOLERANCE) -> Float64[np.ndarray, "s s"]:
    """`solve` by conjugate gradients, preconditioned by the Laplacian.

    Stops when the residual, in the norm that the preconditioner L defines, sqrt(r^T L^-1 r), has fallen by `tolerance`.
    Then the relative error of u in the energy norm sqrt(u^T A u) is at most tolerance * sqrt(max a / min a).

    Raises:
        UsageError: as `solve`.
        KansciError: twice the iterations that the bound asks for were not enough, as with extreme contrasts.
    """
    a, residual = _checked(a, f)
    n = len(residual)
    face_x, face_y = _faces(a)
    inverse = _inverse_laplacian(n)
    padded = np.zeros((n + 2, n + 2))
    direction = padded[1:-1, 1:-1]  # a view: the boundary stays zero
    u = np.zeros((n, n))
    z = _precondition(residual, inverse)
    direction[...] = z
    # No BLAS in the sums: its threads would add in another order on another number of processors.
    rz = float(np.sum(residual * z))
    target = tolerance**2 * rz
    for _ in range(2 * _iteration_bound(a, tolerance)):
        if rz <= target:
            return np.pad(u, 1)
        flux_x = face_x * np.diff(padded[:, 1:-1], axis=0)  # (n + 1, n), between rows
        flux_y = face_y * np.diff(padded[1:-1], axis=1)  # (n, n + 1)
        image = flux_x[:-1] - flux_x[1:]
        image += flux_y[:, :-1]
        image -= flux_y[:, 1:]
        step = rz / float(np.sum(direction * image))
        u += step * direction
        image *= step
        residual -= image
        z = _precondition(residual, inverse)
        new = float(np.sum(residual * z))
        direction *= new / rz
        direction += z
        rz = new
    raise KansciError(
        f"conjugate gradients did not converge for coefficients from {a.min():g} to {a.max():g}: use the solver lu"
    )


def five_point_matrix(a: Float[np.ndarray, "s s"]) -> scipy.sparse.csc_array:
    """The scheme's matrix for the inner nodes, row by row: symmetric, (s - 2)^2 rows, in units of h^-2."""
    face_x, face_y = _faces(a)
    n = face_x.shape[1]
    diagonal = face_x[:-1] + face_x[1:] + face_y[:, :-1] + face_y[:, 1:]
    along_y = np.zeros((n, n))  # the last node of a row has no neighbour in the next row
    along_y[:, :-1] = -face_y[:, 1:-1]
    next_y, next_x = along_y.ravel()[:-1], -face_x[1:-1].ravel()
    bands = [diagonal.ravel(), next_y, next_y, next_x, next_x]
    matrix = scipy.sparse.diags(bands, offsets=[0, 1, -1, n, -n])
    return scipy.sparse.csc_array(matrix)


def _faces(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the faces between inner nodes and their neighbours along x, (s - 1, s - 2), and y, transposed."""
    return (a[1:, 1:-1] + a[:-1, 1:-1]) / 2, (a[1:-1, 1:] + a[1:-1, :-1]) / 2


def _inverse_laplacian(n: int) -> np.ndarray:
    """1 / eigenvalues of the five-point Laplacian (n, n), with the factor that two unscaled transforms leave."""
    eigenvalues = 4 * np.sin(np.pi * np.arange(1, n + 1) / (2 * (n + 1))) ** 2
    return 1 / ((eigenvalues[:, None] + eigenvalues) * (2 * (n + 1)) ** 2)


def _precondition(residual: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    modes = fft.dstn(residual, type=1)
    modes *= inverse
    return fft.dstn(modes, type=1, overwrite_x=True)


def _iteration_bound(a: np.ndarray, tolerance: float) -> int:
    """Least k with 2 ((sqrt(c) - 1) / (sqrt(c) + 1))^k <= tolerance for the contrast c = max a / min a."""
    root = math.sqrt(a.max() / a.min())
    rate = max((root - 1) / (root + 1), 0.1)
    return math.ceil(math.log(tolerance / 2) / math.log(rate))


def _checked(a: np.ndarray, f: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a (s, s) and h^2 f at the inner nodes (s - 2, s - 2), in float64; the latter new."""
    a = np.asarray(a, np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or len(a) < 3:
        raise UsageError(f"got a coefficient of shape {a.shape}: expected (s, s) with s of 3 or more")
    if not (np.isfinite(a).all() and a.min() > 0):
        raise UsageError("got a coefficient that is not positive and finite everywhere: the equation is not elliptic")
    f = np.asarray(f, np.float64)
    if f.ndim and f.shape != a.shape:
        raise UsageError(f"got a right-hand side of shape {f.shape}: expected a number or {a.shape}")
    if not np.isfinite(f).all():
        raise UsageError("got a right-hand side that is not finite everywhere")
    return a, np.array(np.broadcast_to(f, a.shape)[1:-1, 1:-1]) / (len(a) - 1) ** 2
