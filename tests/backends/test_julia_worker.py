"""The Julia worker from outside, without Julia: frames, what is installed, workers that fail, clear messages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kansciml import BackendUnavailable, KansciError, SolveError, UsageError
from kansciml._errors import WorkerDied
from kansciml.backends import _julia_install, julia
from kansciml.backends._julia_install import package_path
from kansciml.backends.base import OdeProblem
from kansciml.backends.julia import JuliaBackend, JuliaInstallation, find_julia
from kansciml.models.field_spec import FieldSpec
from kansciml.training.flat import FlatTraining, train_flat

ROOT = Path(__file__).resolve().parents[2]

# ---- what is installed ----------------------------------------------------------------------------------------------


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """juliacall seems installed and never used; no Julia on PATH."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: object() if name == "juliacall" else real(name, *rest)
    )
    monkeypatch.setattr(_julia_install, "_set_up_before", lambda: None)
    for name in ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT", "PYTHON_JULIAPKG_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _fake_julia(folder: Path, body: str) -> Path:
    path = folder / "julia"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_juliacall_the_message_has_the_remedy(clean, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'kansciml\[julia\]'") as caught:
        find_julia()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1


def test_without_julia_it_would_be_downloaded(clean):
    found = find_julia()
    assert (found.executable, found.ready) == (None, False)
    assert "downloads" in found.describe()


def test_julia_on_path_is_found(clean):
    path = _fake_julia(clean, "echo julia version 1.11.3")
    assert find_julia() == JuliaInstallation(str(path), "1.11.3", None, "on PATH", ready=False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo julia version 1.9.4", r"found Julia 1\.9\.4 at .*julia: kansciml needs 1\.10 or newer"),
        ("echo julia version 0.7.0", r"found Julia 0\.7\.0"),
        ("echo something else", "does not answer to --version"),
        ("exit 3", "does not answer to --version"),
    ],
)
def test_wrong_or_broken_julia_is_one_clear_line(clean, body, message):
    _fake_julia(clean, body)
    with pytest.raises(BackendUnavailable, match=message) as caught:
        JuliaBackend().start()
    assert "\n" not in str(caught.value)


def test_own_julia_needs_both_variables(clean, monkeypatch):
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    with pytest.raises(BackendUnavailable, match="PYTHON_JULIACALL_EXE is set without PYTHON_JULIACALL_PROJECT"):
        find_julia()
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(clean))
    with pytest.raises(BackendUnavailable, match="/nowhere/julia is not an executable file"):
        find_julia()
    path = _fake_julia(clean, "echo julia version 1.10.8")
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(path))
    assert find_julia() == JuliaInstallation(str(path), "1.10.8", str(clean), "PYTHON_JULIACALL_EXE", ready=True)
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(clean / "missing"))
    with pytest.raises(BackendUnavailable, match="missing does not exist"):
        find_julia()


def test_nothing_is_downloaded_unless_allowed(clean):
    with pytest.raises(BackendUnavailable, match="--backend julia, which downloads Julia and them"):
        JuliaBackend(may_download=False, command=("false",)).start()


def test_unknown_sensealg_lists_the_known_ones():
    with pytest.raises(UsageError, match="unknown sensealg 'Adjoint': expected one of Replay, "):
        JuliaBackend("Adjoint")


def test_this_process_loads_neither_torch_nor_juliacall():
    code = """
        import sys
        from kansciml.backends import julia
        try:
            julia.find_julia()
        except julia.BackendUnavailable:
            pass
        print([name for name in ("torch", "juliacall") if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


STANDARD_LIBRARY = {"LinearAlgebra", "Logging", "Random"}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def toml_table(text: str, name: str) -> dict[str, str]:
    """A table of plain strings; Python 3.10 has no TOML of its own."""
    body = text.split(f"\n[{name}]\n")[1].split("\n[")[0]
    return dict(re.findall(r'^(\w+) = "(.*)"$', body, re.MULTILINE))


NOT_NUMERIC = ("ADTypes", "PrecompileTools")
"""Types without numbers, and a package that follows the version of Julia: these keep their range."""


def test_every_package_of_julia_is_pinned_within_its_range():
    project = (package_path() / "Project.toml").read_text()
    pins = json.loads((package_path() / "juliapkg.json").read_text())["packages"]
    own = pins.pop("KanSciML")
    assert f'\nuuid = "{own["uuid"]}"' in project and own["path"] == "." and own["dev"] is True
    packages, ranges = {**toml_table(project, "deps"), **toml_table(project, "weakdeps")}, toml_table(project, "compat")
    assert {name: pin["uuid"] for name, pin in pins.items()} == {
        name: uuid for name, uuid in packages.items() if name not in STANDARD_LIBRARY
    }
    for name, pin in pins.items():
        if name in NOT_NUMERIC:
            assert pin["version"] == ranges[name], name
            continue
        assert re.fullmatch(r"=\d+\.\d+\.\d+", pin["version"]), name
        lowest, pinned = numbers(ranges[name]), numbers(pin["version"][1:])
        # as Pkg reads a range: the first number that is not 0 stays
        fixed = next(i for i, number in enumerate(lowest) if number) + 1
        assert lowest <= pinned and lowest[:fixed] == pinned[:fixed], name


# ---- a worker that fails --------------------------------------------------------------------------------------------

SPEC = FieldSpec("mlp", (2, 3, 2))
PROBLEM = OdeProblem.single(SPEC, np.ones(2), np.array([0.0, 1.0]), np.ones((2, 2)))
PARAMS = SPEC.initial_parameters(0)

FAKE_WORKER = """
import os, sys, time
import numpy as np
from kansciml.backends._julia_frames import read_frame, write_frame
requests, replies = sys.stdin.buffer, sys.stdout.buffer
write_frame(replies, {"stage": "starting Julia"})
write_frame(replies, {"ready": {"julia": "1.10.0", "project": "p"}})
while True:
    try:
        header, arrays = read_frame(requests)
    except EOFError:
        break
    RESULTS = {name: np.zeros(shape) for name, shape in header.get("results", {}).items()}
    if header["do"] == "setup":
        write_frame(replies, {"problem": 1})
    elif header["do"] in ("load", "release"):
        write_frame(replies, {})
    elif header["do"] == "value_and_grad":
        #ON_GRADIENT
    else:  # du/dt = u
        write_frame(replies, {}, {"slopes": arrays["x"]})
"""


@pytest.fixture
def fake_backend(monkeypatch):
    """A started backend whose worker runs the given statements when a gradient is asked for."""
    started: list[JuliaBackend] = []
    monkeypatch.setattr(julia, "find_julia", lambda: JuliaInstallation("julia", "1.10.0", None, "test", ready=True))

    def start(on_gradient: str, **options) -> JuliaBackend:
        code = FAKE_WORKER.replace("#ON_GRADIENT", on_gradient)
        started.append(JuliaBackend(command=(sys.executable, "-c", code), **options).start())
        return started[-1]

    yield start
    for backend in started:
        backend.close()


AT_GRADIENT = "the Julia worker died while computing the gradient by Replay "


def say(*lines: str) -> str:
    return "; ".join(f"print({line!r}, file=sys.stderr, flush=True)" for line in lines)


@pytest.mark.parametrize(
    ("on_gradient", "message"),
    [
        ("os.kill(os.getpid(), 9)", AT_GRADIENT + "(SIGKILL)"),
        ("os.abort()", AT_GRADIENT + "(SIGABRT)"),
        ("sys.exit(0)", AT_GRADIENT + "(exit code 0)"),
        (say("ERROR: OutOfMemoryError()", "Stacktrace:", " [1] fill") + "; sys.exit(3)",
         AT_GRADIENT + "(exit code 3): ERROR: OutOfMemoryError()"),
        (say("┌ Warning: slow", "└ @ Main", "[77] signal (11.1): Segmentation fault", "jl_apply at julia.h:1982",
             "Allocations: 12 (Pool: 12; Big: 0); GC: 0") + "; os.kill(os.getpid(), 11)",
         AT_GRADIENT + "(SIGSEGV): [77] signal (11.1): Segmentation fault"),
        ("raise ValueError('no such state')", AT_GRADIENT + "(exit code 1): ValueError: no such state"),
        (say("WARNING: method overwritten", "┌ Warning: slow", "└ @ Main") + "; sys.exit(4)",
         AT_GRADIENT + "(exit code 4)"),
        ("print('not a frame', flush=True); time.sleep(60)",
         "the Julia worker was ended: it broke the protocol, got b'not a fr' where a frame should begin"),
    ],
)  # fmt: skip
def test_worker_that_dies_says_how_and_why_in_one_line(fake_backend, on_gradient, message):
    solver = fake_backend(on_gradient).solver(PROBLEM)
    for _ in range(2):  # and it stays that way
        with pytest.raises(WorkerDied) as caught:
            solver.value_and_grad(PARAMS)
        assert str(caught.value) == message and caught.value.exit_code == 1
    solver.close()


def test_what_was_said_before_the_last_request_is_not_its_cause(fake_backend):
    counted = "count = globals().get('count', 0) + 1"
    first = say("ERROR: told and overcome") + "; write_frame(replies, {'loss': 0.5}, RESULTS)"
    backend = fake_backend(f"exec({counted!r}, globals()); exec({first!r} if count == 1 else 'os._exit(5)')")
    solver = backend.solver(PROBLEM)
    assert solver.value_and_grad(PARAMS)[0] == 0.5
    time.sleep(0.2)  # for the line to be read
    with pytest.raises(WorkerDied, match=r"by Replay \(exit code 5\)$"):
        solver.value_and_grad(PARAMS)


def test_worker_that_died_while_nothing_was_asked_is_not_blamed_on_a_request(fake_backend):
    backend = fake_backend("write_frame(replies, {'loss': 0.5}, RESULTS)")
    solver = backend.solver(PROBLEM)
    solver.value_and_grad(PARAMS)
    backend._process._process.terminate()
    backend._process._process.wait(5)
    with pytest.raises(WorkerDied, match=r"^the Julia worker died \(SIGTERM\)$"):
        solver.value_and_grad(PARAMS)


def test_only_a_training_with_a_checkpoint_says_that_one_is_kept(fake_backend, tmp_path):
    solver = fake_backend("os._exit(5)").solver(PROBLEM)
    settings = FlatTraining(adam_steps=2, lbfgs_steps=0)
    for checkpoint, kept in ((None, False), (tmp_path / "run.npz", True)):
        with pytest.raises(WorkerDied) as caught:
            train_flat(solver.value_and_grad, PARAMS, settings, checkpoint=checkpoint)
        assert str(caught.value).endswith("; the last checkpoint is kept, the same command resumes") == kept
        assert checkpoint is None or checkpoint.exists()


def test_worker_that_hangs_is_ended(fake_backend):
    backend = fake_backend("time.sleep(60)", request_timeout=0.3)
    with pytest.raises(KansciError, match="no answer in time while computing the gradient by Replay"):
        backend.solver(PROBLEM).value_and_grad(PARAMS)


def test_solver_failure_and_other_errors_are_told_apart(fake_backend):
    solver = fake_backend('write_frame(replies, {"error": "blows up near t = 1", "kind": "solve"})').solver(PROBLEM)
    with pytest.raises(SolveError, match="blows up near t = 1"):
        solver.value_and_grad(PARAMS)
    solver = fake_backend('write_frame(replies, {"error": "MethodError", "kind": "julia"})').solver(PROBLEM)
    with pytest.raises(KansciError, match="Julia: MethodError") as caught:
        solver.value_and_grad(PARAMS)
    assert not isinstance(caught.value, SolveError)
    assert np.array_equal(solver.rhs(np.ones((1, 2)), 0.0, PARAMS), np.ones((1, 2)))  # the worker lives on


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_interruption_ends_the_worker(fake_backend):
    backend = fake_backend("time.sleep(60)")
    solver = backend.solver(PROBLEM)
    process = backend._process._process
    main = threading.main_thread().ident
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solver.value_and_grad(PARAMS)
    timer.join()
    assert process.wait(5) == -signal.SIGKILL


def test_closing_ends_the_worker_and_may_be_repeated(fake_backend):
    backend = fake_backend("pass")
    process = backend._process._process
    backend.close()
    backend.close()
    assert process.returncode == 0
    with pytest.raises(KansciError, match="not running"):
        backend.solver(PROBLEM)


def test_worker_that_does_not_start_makes_the_backend_unavailable(monkeypatch):
    monkeypatch.setattr(julia, "find_julia", lambda: JuliaInstallation("julia", "1.10.0", None, "test", ready=True))
    code = "import sys; sys.exit('ERROR: could not load library')"
    with pytest.raises(BackendUnavailable, match=r"does not start: .*could not load library"):
        JuliaBackend(command=(sys.executable, "-c", code)).start()


def test_environment_without_the_packages_names_them_and_the_remedy(clean, monkeypatch):
    body = 'case "$*" in *--version*) echo julia version 1.10.8;; *Project.toml) echo Lux; echo PythonCall;; esac'
    path = _fake_julia(clean, body)
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(clean))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9.37")
    with pytest.raises(BackendUnavailable) as caught:
        JuliaBackend(command=(sys.executable, "-c", "import sys; sys.exit('ERROR: Package not found')")).start()
    told = str(caught.value)
    assert told.startswith(f"Julia does not start: PYTHON_JULIACALL_PROJECT={clean} lacks Lux, PythonCall: add them (")
    assert f'Pkg.develop(path="{package_path()}")' in told and 'version="0.9.37"' in told and "\n" not in told


def test_environment_with_the_packages_is_not_said_to_lack_any(clean, monkeypatch):
    path = _fake_julia(clean, 'case "$*" in *--version*) echo julia version 1.10.8;; esac')
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(clean))
    with pytest.raises(BackendUnavailable, match=r"^Julia does not start: .* \(exit code 1\): ERROR: no library$"):
        JuliaBackend(command=(sys.executable, "-c", "import sys; sys.exit('ERROR: no library')")).start()


def test_progress_names_the_stages_and_the_first_gradient(monkeypatch):
    monkeypatch.setattr(julia, "find_julia", lambda: JuliaInstallation("julia", "1.10.0", None, "test", ready=True))
    code = FAKE_WORKER.replace("#ON_GRADIENT", 'write_frame(replies, {"loss": 0.5}, RESULTS)')
    lines: list[str] = []
    backend = JuliaBackend(command=(sys.executable, "-c", code)).start(lines.append)
    solver = backend.solver(PROBLEM)
    assert solver.value_and_grad(PARAMS)[0] == 0.5
    solver.value_and_grad(PARAMS)
    backend.close()
    assert [line.partition(" (")[0] for line in lines[1:3]] == ["julia: starting Julia", "julia: Julia 1.10.0 ready"]
    assert len(lines) == 4 and lines[3].startswith("julia: first gradient (Replay) after ")
