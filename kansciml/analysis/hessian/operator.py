"""The Hessian of a loss over a fixed data set, as an operator on vectors: no matrix is ever formed.

Products are reverse over reverse (Pearlmutter 1994): the gradient is computed with its graph, and each product is one
backward pass through that graph. Forward over reverse in PyTorch 2.13 is wrong for LayerNorm and train-mode BatchNorm.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kansciml._errors import KansciError, UsageError
from kansciml.analysis.hessian._product.batches import Batches, Count, mapped
from kansciml.analysis.hessian._product.evaluation import Evaluation
from kansciml.analysis.hessian._product.fingerprint import fingerprint
from kansciml.analysis.hessian._product.loss import GradientGraph, Loss
from kansciml.analysis.hessian._product.parameters import FlatParameters, Selection
from kansciml.analysis.hessian._product.plan import SHARE, MemoryPlan, available_memory
from kansciml.analysis.hessian._product.processes import Processes

from ._krylov.basis_store import BLOCK_BYTES

WRONG = 1e-3
"""What products in float64 may differ from differences of gradients, relative: well above 1e-9, what those do."""


class HessianOperator:
    r"""H v for H = d^2 L / d theta^2, with L the mean loss over all samples: L = sum_b N_b L_b / sum_b N_b.

    N_b is the number of samples of batch b, or what `count` gives for it, so that L is the loss of one big batch.

    theta is the flat vector of the chosen trainable parameters, in the order of ``named_parameters()``; a complex
    parameter counts as pairs (Re, Im), so that H is real and symmetric. Unused parameters give zero rows. The module
    keeps its mode (train or eval), buffers, gradients and frozen parameters; random states stay as they were.

    Args:
        module: any module; the derivative is taken in the mode it is in.
        loss: ``loss(module, batch)``, a real scalar, the mean over the batch's samples; see `supervised`.
        batches: one batch (tensor, tuple, mapping, dataclass or other record of tensors, nested at will; None if the
            loss needs no data), or batches that can be read again and again (list, DataLoader). The samples lie along
            the first axis of each tensor.
        parameters: names of parameters or submodules, or ``wanted(name, parameter) -> bool``; None (default): all.
        micro_batch: cut batches into at most so many samples, which bounds the memory; None (default): do not.
        keep_graph: keep the gradient's graph between products, which makes them 1.4 to 2.3 times as fast: True, False,
            or ``"auto"`` (default): if the graphs of all samples fit into `memory`, measured on one micro-batch.
        memory: bytes that kept graphs may take; None (default): half of what is available now.
        check: refuse a loss that is random or changes buffers (dropout or batch norm in train mode), that is no mean
            over samples where several batches are averaged, or whose products on a few samples are not symmetric or,
            where it goes through custom functions, not differences of gradients. Takes about three gradients. If
            False, random numbers are the same in each product, those that come next at construction, and the mean is
            taken over the batches as they are.
        distributed: the processes of torch.distributed each hold a share of the data; products are summed over them.
            All must then ask for the same products.
        count: ``count(batch)``, what the batch's loss is the mean over, by number: for cross-entropy with labels that
            are ignored, how many are not; with class weights, the sum of the labels' weights. None (default): samples.
            Where it is given, batches that are not cut are taken at its word.

    Attributes: size (n), dtype (of vectors: the parameters' real dtype, float32 at least), device, names (of the
    parameters in the order of the flat vector), shapes, distributed, fingerprint.

    Raises:
        UsageError: nothing to differentiate, unknown names, no data, data that can be read only once, a loss that is no
            real scalar, depends on no parameter, or is no mean over samples where it must be; batches whose samples
            cannot be told.
        KansciError: the loss fails the check or is not finite; a product does not fit into memory.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        batches: Any,
        *,
        parameters: Selection = None,
        micro_batch: int | None = None,
        keep_graph: bool | str = "auto",
        memory: int | None = None,
        check: bool = True,
        distributed: bool = False,
        count: Count | None = None,
    ) -> None:
        if not (isinstance(keep_graph, bool) or keep_graph == "auto"):
            raise UsageError(f"got keep_graph {keep_graph!r}: expected True, False or 'auto'")
        if memory is not None and not memory > 0:
            raise UsageError(f"got memory {memory}: expected a positive number of bytes")
        self.distributed = distributed
        self._flat = flat = FlatParameters.select(module, parameters)
        self.size, self.dtype, self.device, self.names = flat.size, flat.dtype, flat.device, flat.names
        self.shapes = tuple(p.shape for p in flat.tensors)
        data = Batches(batches, micro_batch, self.device, count)
        self._processes = Processes(distributed, self.device)
        self._processes.require_same(self.size, "numbers of parameters")
        self._wanted, self._memory = keep_graph, memory
        self._kept: list[tuple[GradientGraph, float]] | None = None
        self._evaluation = Evaluation(module, loss, flat, data, self._processes)
        if check:
            self._evaluation.check()
            if self._evaluation.custom:
                self._require_derivatives()

    def split(self, vector: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """A flat vector by parameter: name to tensor of the parameter's shape and dtype (complex ones too)."""
        self._require_vector(vector, one=True)
        return self._flat.split(vector)

    def join(self, parts: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
        """The flat vector of parts by parameter; the inverse of `split`."""
        return self._flat.join(parts)

    def matvec(self, vector: Float[Tensor, " n *columns"]) -> Float[Tensor, " n *columns"]:
        """H v of one vector, or of each column, in the operator's dtype, on its device.

        Raises:
            UsageError: another size, or no real floating-point vector.
            KansciError: the parameters changed since the operator was made, a second derivative that PyTorch does not
                have, or too little memory.
        """
        self._require_vector(vector)
        columns = 1 if vector.dim() == 1 else vector.shape[1]
        if self.distributed:
            self._processes.require_same(float(vector.double().sum()) + columns, "vectors")
        weights = 0.0
        with self._evaluation.begun(), self._processes.together():
            self._evaluation.require_unchanged()
            vector = vector.detach().to(self.device, self.dtype)
            rows = [vector] if vector.dim() == 1 else list(vector.t())
            graphs = self._graphs()
            if columns == 1 and isinstance(graphs, list) and len(graphs) == 1 and not self.distributed:
                ((graph, _),) = graphs
                parts = graph.product(self._flat.tensors, self._flat.parts(rows[0]), True)
                return self._flat.joined(parts).view_as(vector)
            total = self._flat.zeros(columns)
            for graph, weight in graphs:
                weights += weight
                for index, row in enumerate(rows):
                    again = self.graph_kept or index + 1 < columns
                    parts = graph.product(self._flat.tensors, self._flat.parts(row), again)
                    self._flat.add_to(total[index], parts, weight)
                    del parts
                del graph
        self._evaluation.mean_(total, weights)
        return total[0] if vector.dim() == 1 else total.t()

    def _graphs(self) -> Iterable[tuple[GradientGraph, float]]:
        if not self.graph_kept:
            return self._evaluation.graphs()
        if self._kept is None:
            self._kept = list(self._evaluation.graphs(self.basis_kept))
        return self._kept

    def gradient(self) -> Float[Tensor, " n"]:
        """The gradient of the mean loss."""
        with self._evaluation.begun():
            return self._evaluation.first_order()[0]

    def loss_value(self) -> float:
        """The mean loss over all samples."""
        if self._evaluation.value is None:
            self.gradient()
        assert self._evaluation.value is not None
        return self._evaluation.value

    def finite_difference_error(self, *, seed: int = 0, step: float | None = None) -> float:
        """How far a product is from (g(theta + h v) - g(theta - h v)) / 2h, relative, along one random direction v.

        Far from zero where an operation's second derivative is silently wrong or missing, as of a custom
        `autograd.Function` whose backward pass is no differentiable code. Where all is well it is near 1e-9 in float64
        and 1e-2 in float32 (less where the third derivative is small).

        Args:
            seed: of the Gaussian direction, scaled to unit length (default 0).
            step: h; default eps^(1/3) * max(1, |theta|).
        """
        direction = torch.randn(self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        direction = (direction / torch.linalg.vector_norm(direction)).to(self.device, self.dtype)
        slope = self._evaluation.slope_along(direction, step)
        found = self.matvec(direction)
        largest = max(float(torch.linalg.vector_norm(part)) for part in (found, slope))
        return float(torch.linalg.vector_norm(found - slope)) / max(largest, 1e-300)

    def _require_derivatives(self) -> None:
        """Refuse, by a KansciError, products that are no differences of gradients, in float64 on a few samples.

        The backward pass of a custom function that detaches, or computes with NumPy, can leave a Hessian that lacks
        terms and is symmetric all the same. Two steps are tried, so that a kink in between does not count; losses that
        work in their own precision alone are not.
        """
        evaluation = self._evaluation
        try:
            module = copy.deepcopy(evaluation.module).double()
            few = mapped(evaluation.tried, _doubled)
            tried = HessianOperator(
                module, evaluation.loss, [few], parameters=self.names, check=False, keep_graph=False, count=lambda _: 1
            )
            size = max(1.0, sum(float(p.detach().abs().square().sum()) for p in module.parameters()) ** 0.5)
            errors = [tried.finite_difference_error(step=step * size) for step in (6e-6, 3e-7)]
        except Exception:  # the check has passed: what fails here is the copy, or float64
            return
        if min(errors) > WRONG:
            raise KansciError(
                f"products with the Hessian are not differences of gradients (off by {min(errors):.1e} of their size),"
                f" so that PyTorch differentiates something wrongly the second time; look at the backward pass of"
                f" {', '.join(evaluation.custom)}. check=False skips this check"
            )

    @property
    def graph_kept(self) -> bool:
        """Whether products use a kept graph; with ``keep_graph="auto"`` this measures first."""
        if self._wanted == "auto":
            self._wanted = self._evaluation.kept_bytes() <= self._limit
        return bool(self._wanted)

    @functools.cached_property
    def basis_kept(self) -> bool:
        """Whether a kept graph keeps the splines of its KAN layers too, because they fit; this measures first."""
        fits = self.graph_kept and self._evaluation.has_basis
        return fits and self._evaluation.kept_bytes(basis=True) <= self._limit

    @property
    def _limit(self) -> int:
        """Bytes that kept graphs may take."""
        return self._memory or int(SHARE * available_memory(self.device))

    def memory_needed(self, steps: int = 100, probes: int = 1, available: int | None = None) -> MemoryPlan:
        """What `steps` Lanczos steps need, in bytes; graphs are measured by one product of the first micro-batch.

        Args:
            steps, probes: Lanczos steps, whose vectors are the basis; probes whose bases are held at once.
            available: bytes to fit into; None: what the device has left now.
        """
        use, vector = self._evaluation.use(), self._flat.bytes
        return MemoryPlan(
            parameters=self.size,
            gradient_bytes=vector,
            vectors_bytes=3 * vector,
            graph_bytes=use.peak_bytes,
            kept_graph_bytes=self._evaluation.kept_bytes(self.basis_kept),
            graph_kept=self.graph_kept,
            samples=self._evaluation.samples,
            micro_batch=self._evaluation.micro_batch,
            steps=steps,
            probes=probes,
            basis_bytes=steps * probes * vector + min(8 * steps * self.size, BLOCK_BYTES),
            available_bytes=available or available_memory(self.device),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of parameters, buffers, data (each process's share) and loss: the same for the same Hessian."""
        evaluation = self._evaluation
        with evaluation.begun(), self._processes.together():
            evaluation.require_unchanged()
            own = fingerprint(evaluation.module, self.names, evaluation.batches, self.dtype)
        return hashlib.sha256(self._processes.digest(own) + f"{self.loss_value():.3e}".encode()).hexdigest()

    def _require_vector(self, vector: Tensor, one: bool = False) -> None:
        good = isinstance(vector, Tensor) and vector.is_floating_point() and vector.shape[:1] == (self.size,)
        if not good or vector.dim() > (1 if one else 2):
            got = f"shape {tuple(vector.shape)} and {vector.dtype}" if isinstance(vector, Tensor) else type(vector)
            columns = "" if one else f" or ({self.size}, m)"
            raise UsageError(f"got a vector of {got}: expected ({self.size},){columns}, real floating point")


def _doubled(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def hvp(
    module: nn.Module, loss: Loss, batches: Any, vector: Tensor | Mapping[str, Tensor], **options: Any
) -> Tensor | dict[str, Tensor]:
    """One product H v, in the form of the vector given.

    Args:
        module, loss, batches, options: as for `HessianOperator`, which is what to use for more than one product.
        vector: (n,), (n, m), or a mapping of all chosen parameters' names to tensors of their shapes.

    Raises:
        UsageError, KansciError: as for `HessianOperator`.
    """
    operator = HessianOperator(module, loss, batches, **{"keep_graph": False, **options})
    if isinstance(vector, Mapping):
        return operator.split(operator.matvec(operator.join(vector)))
    return operator.matvec(vector)
