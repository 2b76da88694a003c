"""Finds the Julia on this machine without starting it. Imports neither torch nor juliacall."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kansciml._errors import BackendUnavailable
from kansciml._workers import end_group, processors

MINIMUM_VERSION = (1, 10)
VERSION_TIMEOUT_S = 20.0
LOOK_TIMEOUT_S = 60.0

EXE, PROJECT = "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"

OWN_JULIA = f"to use a Julia of your own, put it on PATH, or set {EXE} and {PROJECT}"


@dataclass(frozen=True)
class JuliaInstallation:
    """A Julia that the worker can start.

    Args:
        executable: path, or None if juliacall will download Julia at first use.
        version: such as ``"1.10.8"``, or None with `executable`.
        project: Julia environment that is used, if known.
        source: where it was found, for people to read.
        ready: the packages are installed, so that a start downloads nothing.
    """

    executable: str | None
    version: str | None
    project: str | None
    source: str
    ready: bool

    def describe(self) -> str:
        """One line, such as ``Julia 1.10.8 at /usr/bin/julia (on PATH), packages installed``."""
        if self.executable is None:
            return "no Julia yet: juliacall downloads one at first use"
        packages = "packages installed" if self.ready else "packages not installed yet"
        if self.source == EXE:  # the user's own environment: what is in it shows when it is started
            packages = f"environment {self.project}"
        return f"Julia {self.version} at {self.executable} ({self.source}), {packages}"


def find_julia() -> JuliaInstallation:
    """The Julia that the backend would start.

    Looks at PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT, at what juliacall set up before, and at PATH.

    Raises:
        BackendUnavailable: juliacall is not installed, Julia does not run or is too old; the message has the remedy.
    """
    if importlib.util.find_spec("juliacall") is None:
        raise BackendUnavailable(
            "the Python package juliacall is not installed: run pip install 'kansciml[julia]' (the first use then"
            f" downloads Julia, if there is none, and its packages; {OWN_JULIA})"
        )
    exe, project = os.environ.get(EXE), os.environ.get(PROJECT)
    if bool(exe) != bool(project):
        given, missing = (EXE, PROJECT) if exe else (PROJECT, EXE)
        raise BackendUnavailable(f"{given} is set without {missing}: set both, or neither")
    if exe and project:
        path = shutil.which(exe)
        if path is None:
            raise BackendUnavailable(f"{EXE}={exe} is not an executable file: correct it, or unset it and {PROJECT}")
        if not Path(project).exists():
            raise BackendUnavailable(f"{PROJECT}={project} does not exist: correct it, or unset it and {EXE}")
        return JuliaInstallation(path, _checked_version(path), project, EXE, ready=True)
    known = _set_up_before()
    if known is not None:
        return known
    path = os.environ.get("PYTHON_JULIAPKG_EXE") or shutil.which("julia")
    if path is None:
        return JuliaInstallation(None, None, None, "download", ready=False)
    source = "PYTHON_JULIAPKG_EXE" if os.environ.get("PYTHON_JULIAPKG_EXE") else "on PATH"
    return JuliaInstallation(path, _checked_version(path), None, source, ready=False)


def package_path() -> Path:
    """Folder of the Julia package: `kansciml_julia` beside an installed kansciml, `julia` in the repository.

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(__file__).resolve().parents[2]
    for name in ("kansciml_julia", "julia"):
        if (root / name / "src" / "KanSciML.jl").is_file():
            return root / name
    raise FileNotFoundError(f"the Julia package KanSciML is not in {root}: install kansciml again")


def julia_version(executable: str) -> str | None:
    """What ``julia --version`` tells, such as ``"1.10.8"``; None if that does not run or is not Julia."""
    nothing = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [executable, "--version"], stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, start_new_session=True
        )
    except OSError:
        return None
    try:
        said, _ = process.communicate(timeout=VERSION_TIMEOUT_S)
    except BaseException as error:  # Ctrl-C too: what a launcher has started must not be left behind
        end_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    match = re.match(r"julia version (\d+\.\d+\S*)", said.decode(errors="replace"))
    return match.group(1) if process.returncode == 0 and match else None


_LOOK = """
import TOML
wanted = TOML.parsefile(only(ARGS))["deps"]
wanted["PythonCall"] = "6099a3de-0909-46bc-b1f4-468b9a2dfc0d"
for (name, uuid) in sort!(collect(wanted))
    isnothing(Base.locate_package(Base.PkgId(Base.UUID(uuid), name))) && println(name)
end
"""


def missing_packages(executable: str, project: str, package: Path) -> list[str]:
    """Names of the Julia packages which the worker needs and an environment does not have; [] if that cannot be told.

    Args:
        executable, project: of an installation that `find_julia` found.
        package: folder of the Julia package KanSciML, whose dependencies are looked for.
    """
    command = [executable, "--startup-file=no", f"--project={project}", "-e", _LOOK, str(package / "Project.toml")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LOOK_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode(errors="replace").split()


def how_to_add(missing: list[str], project: str, package: Path) -> str:
    """One line: what an environment of the user's lacks, and the command that adds it."""
    version = importlib.metadata.version("juliacall")  # PythonCall's must be the same
    add = f'import Pkg; Pkg.develop(path="{package}"); Pkg.add(name="PythonCall", version="{version}")'
    return (
        f"{PROJECT}={project} lacks {', '.join(missing)}: add them (julia --project={project} -e '{add}'), or unset"
        f" {EXE} and {PROJECT}, and juliacall sets up an environment of its own"
    )


def _checked_version(executable: str) -> str:
    version = julia_version(executable)
    if version is None:
        raise BackendUnavailable(f"{executable} does not answer to --version as Julia does: reinstall it; {OWN_JULIA}")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        raise BackendUnavailable(
            f"found Julia {version} at {executable}: kansciml needs {needed} or newer; update it (juliaup update), or"
            " take it off PATH and juliacall downloads one"
        )
    return version


def _set_up_before() -> JuliaInstallation | None:
    """The environment that juliapkg resolved in an earlier use, if nothing changed since."""
    try:
        from juliapkg.deps import can_skip_resolve
        from juliapkg.state import STATE
    except ImportError:
        return None
    try:
        meta = can_skip_resolve()
    except (OSError, KeyError, ValueError):  # a half-written file: juliapkg will write it anew
        return None
    if not meta or not any(package["name"] == "KanSciML" for package in meta["pkgs"]):
        return None
    return JuliaInstallation(meta["executable"], meta["version"], STATE["project"], "set up by juliacall", ready=True)


ENVIRONMENT = {"PYTHON_JULIACALL_STARTUP_FILE": "no", "OPENBLAS_NUM_THREADS": "1"}
THREADS = ("PYTHON_JULIACALL_THREADS", "JULIA_NUM_THREADS")
"""Variables with the number of Julia's threads, the first that is set; default: all processors that may be used."""


def worker_environment(threads: int | None = None) -> dict[str, str]:
    """What a worker's environment has to have beside, or in place of, that of this process."""
    missing = {name: value for name, value in (ENVIRONMENT | _threads()).items() if name not in os.environ}
    return missing | _absolute_project() | (_threads(threads) if threads else {})


def _threads(wanted: int | None = None) -> dict[str, str]:
    """So many threads, or one for each processor. With several, Julia has to handle signals, by which its threads stop
    for its garbage collector; then it must not be left to Python, nor to Ctrl-C, which the worker does not see."""
    told = next((value for name in THREADS if (value := os.environ.get(name))), str(processors()))
    count = str(wanted or told)
    return {
        "PYTHON_JULIACALL_THREADS": count,
        "JULIA_NUM_THREADS": count,
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "no" if count == "1" else "yes",
    }


def _absolute_project() -> dict[str, str]:
    """The worker runs in another folder: relative paths in its variables are made absolute."""
    return {
        name: os.path.abspath(value)
        for name in ("PYTHON_JULIACALL_PROJECT", "PYTHON_JULIACALL_EXE", "PYTHON_JULIAPKG_EXE")
        if (value := os.environ.get(name)) and os.path.exists(value)
    }
