"""Where a result came from: versions, machine, threads, memory, commit. Loads neither torch nor Julia."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from kansciml import __version__

PACKAGES = ("numpy", "scipy", "torch", "torchdiffeq", "juliacall")


def package_versions() -> dict[str, str | None]:
    """Version of Python and of each package a result can depend on; None where it is not installed."""
    # what runs, not what an editable installation once was
    versions: dict[str, str | None] = {"python": platform.python_version(), "kansciml": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # A checkout on the path is not an installed distribution, but may still name its version.
            versions[name] = getattr(sys.modules.get(name), "__version__", None)
    return versions


def machine() -> dict[str, Any]:
    """Platform, processor, device (the GPU if torch has used one), cores, and threads in use."""
    torch = sys.modules.get("torch")
    # Asking for a name would start CUDA, and processes forked after that could not use it.
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_initialized() else None
    threads = torch.get_num_threads() if torch is not None else os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    cpu = Path("/proc/cpuinfo")  # of Linux
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "platform": platform.platform(),
        "processor": next(iter(models), platform.processor() or platform.machine()),
        "device": gpu or "cpu",
        "cores": os.cpu_count(),
        "threads": int(str(threads)) if str(threads).isdigit() else None,
    }


def peak_memory_mb() -> tuple[float | None, float | None]:
    """Largest resident memory in MB (1e6 bytes) of this process and of its largest ended child; None if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1.0 if sys.platform == "darwin" else 1024.0  # bytes there, kibibytes elsewhere
    own, children = (
        resource.getrusage(who).ru_maxrss * unit / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own, children


def package_commit() -> str | None:
    """Commit of the git checkout this package is run from ("+modified" if its sources differ); None if installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # a user's own repository around site-packages is not ours
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        modified = _git(root, "status", "--porcelain", "--", "kansciml", "julia")
    except (OSError, subprocess.SubprocessError):  # no git, or a repository it refuses to read
        return None
    return commit + ("+modified" if modified else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
