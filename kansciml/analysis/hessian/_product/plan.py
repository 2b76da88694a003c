"""Tells how much memory products with a Hessian need, before they run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

FALLBACK_BYTES = 2 << 30
"""What counts as available where the system does not tell."""
SHARE = 0.5
"""Share of the available memory that kept graphs may take by default: the rest is for the Lanczos basis."""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of Lanczos steps with a Hessian, in bytes, above parameters and data.

    Args:
        parameters, gradient_bytes: length n of the vectors; one of them.
        vectors_bytes: start, vector and accumulated product, three of them.
        graph_bytes: graph, result and temporaries of one product of one micro-batch at the peak, as measured.
        kept_graph_bytes, graph_kept: the same if the graphs of all micro-batches are kept; whether they are.
        samples, micro_batch: samples in all (of this process), and in the micro-batch that was measured.
        steps, probes: Lanczos steps, and probes whose bases are held at once.
        basis_bytes: steps * probes vectors, and the work space of one block of them.
        available_bytes: what may be used.
    """

    parameters: int
    gradient_bytes: int
    vectors_bytes: int
    graph_bytes: int
    kept_graph_bytes: int
    graph_kept: bool
    samples: int
    micro_batch: int
    steps: int
    probes: int
    basis_bytes: int
    available_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it at the peak."""
        return self.vectors_bytes + self.basis_bytes + (self.kept_graph_bytes if self.graph_kept else self.graph_bytes)

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.available_bytes

    @property
    def largest_micro_batch(self) -> int:
        """Samples in a micro-batch that would fit beside vectors and basis, the graph not kept; 0 if not even one."""
        own = max(self.graph_bytes - 2 * self.gradient_bytes, 1) / self.micro_batch
        room = self.available_bytes - self.vectors_bytes - self.basis_bytes - 2 * self.gradient_bytes
        return max(0, min(self.samples, int(room / own)))

    def text(self) -> str:
        """The plan in a few lines, and what to do if it does not fit."""
        if self.graph_kept:
            graph = f"graphs of all {self.samples} samples, kept: {amount(self.kept_graph_bytes)}"
        else:
            graph = f"graph of {self.micro_batch} of {self.samples} samples at a time: {amount(self.graph_bytes)}"
        bases = "" if self.probes == 1 else f" x {self.probes} probes"
        lines = [
            f"Hessian of {self.parameters:,} parameters, {amount(self.gradient_bytes)} a vector",
            f"  start, vector and accumulated product: {amount(self.vectors_bytes)}",
            f"  {graph}",
            f"  Lanczos basis, {self.steps} steps{bases}: {amount(self.basis_bytes)}",
            f"  in all {amount(self.total_bytes)} of {amount(self.available_bytes)} available",
        ]
        if not self.fits:
            if self.largest_micro_batch >= 1:
                remedy = f"keep_graph=False and micro_batch={self.largest_micro_batch} would fit"
            else:
                remedy = "take fewer steps, or a basis on disk"
            lines.append(f"  does not fit: {remedy}")
        return "\n".join(lines)


def amount(size: float) -> str:
    """Bytes for a reader: three digits and a unit of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def available_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device: CUDA's own count; of a CPU what system and container leave."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass
    try:  # a container's own limit, where there is one
        group = Path("/sys/fs/cgroup")
        limit, used = (group / name for name in ("memory.max", "memory.current"))
        found.append(max(0, int(limit.read_text()) - int(used.read_text())))
    except (OSError, ValueError):
        pass
    if not found and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=FALLBACK_BYTES)
