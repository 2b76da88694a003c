"""Compile the C++ kernels of spline layers and of neural ODEs with the system's compiler, where there is one.

A source is compiled once per instruction set and linked with a dispatcher, so one library serves every processor of
the platform; it stands next to its source. Standard library only: the hook of an installation loads this file by its
path.
"""

from __future__ import annotations

import itertools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPLINE = HERE / "spline.cpp"
ODE = HERE.parents[1] / "backends" / "_native" / "ode.cpp"
SOURCES = (SPLINE, ODE)
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi", "-Wno-unknown-pragmas"),
)
X86 = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"),
}
SECONDS = 1200
"""Longest that one run of the compiler may take."""


def library_path(source: Path = SPLINE) -> Path:
    """Of the built library, with the platform in its name: libraries of several machines may share a directory."""
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return source.with_name(f"_{source.stem}-{tag}.{'dll' if os.name == 'nt' else 'so'}")


def find_compiler() -> list[str] | None:
    """The command of the C++ compiler: CXX, else the first of c++, g++, clang++; None where there is none."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        command = shlex.split(name or "")
        if command and shutil.which(command[0]):
            return command
    return None


def _run(command: list[str]) -> str | None:
    """None where the command succeeds, else the first error that it told."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return errors[0] if errors else f"exit status {done.returncode}"


def build(
    source: Path = SPLINE,
    directory: Path | str | None = None,
    compiler: list[str] | None = None,
    instruction_sets: tuple[str, ...] = tuple(X86),
) -> Path:
    """Compile and link a library; returns its path, to which it is moved complete.

    Args:
        source: one of `SOURCES`.
        directory: where the library is put; next to its source by default.
        compiler: command of a C++ compiler; `find_compiler()` by default.
        instruction_sets: beside the portable code, the first ones of "avx2", "avx512"; those that the compiler does not
            know, and all where the processor is no x86-64, are left out.

    Raises:
        RuntimeError: no compiler, or it fails; one line.
    """
    compiler = compiler or find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler found (c++, g++, clang++): install one, or set CXX")
    target = Path(directory or source.parent) / library_path(source).name
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        error = None
        for parallel in (("-fopenmp",), ()):  # a compiler may know OpenMP, and its library be missing
            error = _build(source, compiler, scratch, parallel, instruction_sets)
            if error is None:
                os.replace(Path(scratch) / "library", target)
                return target
    raise RuntimeError(f"{' '.join(compiler)} cannot build {source.name}: {error}")


def _build(
    source: Path, compiler: list[str], scratch: str, parallel: tuple[str, ...], instruction_sets: tuple[str, ...]
) -> str | None:
    """None, or what failed."""
    command = [*compiler, *FLAGS, *parallel]
    objects = {name: str(Path(scratch) / f"{name}.o") for name in ("portable", *X86)}

    def compiled(name: str, *flags: str) -> str | None:
        return _run([*command, *flags, f"-DISA={name}", "-c", str(source), "-o", objects[name]])

    native = platform.machine().lower() in ("x86_64", "amd64")
    wanted = [name for name in X86 if native and name in instruction_sets]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each takes a compiler some 20 seconds
        portable, *errors = pool.map(lambda name: compiled(name, *X86.get(name, ())), ("portable", *wanted))
    if portable is not None:
        return portable
    usable = itertools.takewhile(lambda pair: pair[1] is None, zip(wanted, errors))
    linked = [objects["portable"], *(objects[name] for name, _ in usable)]
    output = str(Path(scratch) / "library")
    return _run([*command, "-shared", f"-DDISPATCH={len(linked) - 1}", str(source), *linked, "-o", output])


if __name__ == "__main__":
    try:
        for path in SOURCES:
            if not sys.argv[1:] or path.stem in sys.argv[1:]:  # spline, ode
                print(build(path))
    except RuntimeError as error:
        sys.exit(str(error))
