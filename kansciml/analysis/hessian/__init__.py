"""Curvature of a loss: Hessian-vector products, spectra, extreme eigenvalues, traces, sharpness."""

from kansciml.analysis.hessian._product.loss import supervised
from kansciml.analysis.hessian._product.plan import MemoryPlan, available_memory

from ._krylov.basis_store import BasisPlan, plan_basis
from ._matrix import FormedMatrix, formed_matrix, matrix_of
from ._measures import kinds
from ._probes import Estimate
from .eigenvalues import Eigenpairs, top_eigenvalues
from .lanczos import Tridiagonal, lanczos
from .operator import HessianOperator, hvp
from .scales import adaptive_scale, filter_scale
from .sharpness import EXACT_LIMIT, Sharpness, exact_bytes, exact_seconds, sharpness
from .spectrum import Spectrum, count_above, spectral_density, symlog_edges
from .symmetric import MatrixOperator, ScaledOperator, SymmetricOperator
from .trace import trace
from .verdicts import SharpnessVerdict, compare_sharpness

__all__ = [
    "EXACT_LIMIT",
    "BasisPlan",
    "Eigenpairs",
    "Estimate",
    "FormedMatrix",
    "HessianOperator",
    "MatrixOperator",
    "MemoryPlan",
    "ScaledOperator",
    "Sharpness",
    "SharpnessVerdict",
    "Spectrum",
    "SymmetricOperator",
    "Tridiagonal",
    "adaptive_scale",
    "available_memory",
    "compare_sharpness",
    "count_above",
    "exact_bytes",
    "exact_seconds",
    "filter_scale",
    "formed_matrix",
    "hvp",
    "kinds",
    "lanczos",
    "matrix_of",
    "plan_basis",
    "sharpness",
    "spectral_density",
    "supervised",
    "symlog_edges",
    "top_eigenvalues",
    "trace",
]
