"""Who may import whom, from the syntax trees; and what `import kansciml` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kansciml"

# Floors from the bottom; a room may import the rooms named, those of its own floor never unless named.
FLOOR = {"_discovery", "_errors", "_files", "_streams", "_workers"}
LEARNING = {"layers", "models", "tasks", "training", "analysis", "backends"}
SHARED = {f"experiments.{name}" for name in ("minibatch", "memory", "ode", "vision", "fno", "hessian", "functions")}
RUNS = {"ode", "crosscheck", "runs", "reporting", *LEARNING, *FLOOR}
MAY = {
    "_discovery": {"_errors"},
    "_errors": set(),
    "_files": {"_errors"},
    "_streams": set(),
    "_workers": {"_errors"},
    "layers": FLOOR,
    "models": {"layers", *FLOOR},
    "tasks": {"backends", "models", *FLOOR},
    "training": FLOOR,
    "analysis": FLOOR,
    "backends": {"layers", "models", *FLOOR},
    "ode": {"backends", "models", "tasks", "training", *FLOOR},
    "crosscheck": {"backends", "models", "tasks", "training", *FLOOR},
    "runs": {*LEARNING, *FLOOR},
    "reporting": {"runs", "analysis", *FLOOR},
    "experiments.minibatch": RUNS,
    "experiments.memory": RUNS,
    "experiments.ode": RUNS,
    "experiments.vision": {"experiments.minibatch", "experiments.memory", *RUNS},
    "experiments.fno": {"experiments.minibatch", *RUNS},
    "experiments.hessian": {"experiments.minibatch", "experiments.ode", *RUNS},
    "experiments.functions": RUNS,
    "experiments": {*SHARED, *RUNS},  # fig1 ... fair: none of these may import another
    "sweep": {"experiments", *SHARED, *RUNS},
    "reproduce": {"experiments", *SHARED, *RUNS},
    "benchmarks": {"runs", "reporting", *LEARNING, *FLOOR},
    "commands": {"experiments", "sweep", "reproduce", "benchmarks", *SHARED, *RUNS},
    "cli": {"commands", *FLOOR},
}  # fmt: skip
RECORDS_ONLY = {"runs", "reporting", "analysis", *FLOOR}
"""What `report.py` and `findings.py` of an experiment may import, beside modules of experiments that keep to it."""


def room(module: str) -> str:
    """Room of a dotted module name below kansciml: its folder, or experiments.<folder> where experiments share it."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in MAY else parts[0]


def home(module: str) -> str:
    """What a module may import without being told: its room, and of the experiments its own folder."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "experiments" else parts[0]


def imports(path: Path, text: str | None = None) -> set[str]:
    """Modules of kansciml that a file (or `text` in its place) imports anywhere, as dotted names below kansciml."""
    package = ["kansciml", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return {name.removeprefix("kansciml.") for name in found if name.startswith("kansciml.")}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]


def forbidden(path: Path, text: str | None = None) -> list[str]:
    """What a file imports against the rules."""
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    may = MAY[room(own)]
    return [name for name in imports(path, text) if home(name) != home(own) and room(name) not in {"__version__", *may}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up_or_sideways(path):
    assert not forbidden(path)


@pytest.mark.parametrize(
    "text", ["def late():\n    from ..training import flat", "from kansciml.training.flat import train_flat"]
)
def test_the_guard_sees_a_forbidden_import(text):
    found = forbidden(ROOT / "layers" / "spline_kan.py", text)
    assert found and all(name.startswith("training.flat") for name in found)
    assert not forbidden(
        ROOT / "experiments" / "fig2" / "experiment.py", text.replace("..training", "kansciml.training")
    )


def test_only_the_julia_worker_imports_juliacall():
    for path in FILES:
        if "juliacall" in path.read_text() and path.name != "_julia_worker.py":
            tree = ast.parse(path.read_text())
            roots = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            roots |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
            assert "juliacall" not in roots, path


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_kansciml_loads_neither_torch_nor_julia_nor_matplotlib():
    assert not loaded_by("import kansciml") & {"torch", "juliacall", "matplotlib", "scipy", "numpy"}


def test_listing_systems_and_experiments_loads_no_torch():
    statement = (
        "from kansciml.tasks.ode.registry import available_systems as a; a()\n"
        "from kansciml.runs.registry import available_experiments as b; b()"
    )
    assert "torch" not in loaded_by(statement)


def test_no_file_is_longer_than_400_lines():
    for path in [*FILES, *Path(__file__).parent.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def reads_records_alone(module: str, seen: set[str]) -> list[str]:
    """What a module of an experiment, or one of an experiment that it imports, imports beside records."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():  # a name in a module
        return reads_records_alone(module.rpartition(".")[0], seen) if "." in module else []
    if module in seen:
        return []
    seen.add(module)
    found = []
    for name in imports(path):
        if room(name).startswith("experiments"):
            found += reads_records_alone(name, seen)
        elif room(name) not in {"__version__", *RECORDS_ONLY}:
            found.append(f"{module} imports {name}")
    return found


REPORTS = [path for path in FILES if path.name in ("report.py", "findings.py") and "experiments" in path.parts]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_reports_and_findings_read_records_alone(path):
    assert not reads_records_alone(".".join(path.relative_to(ROOT).with_suffix("").parts), set())


def test_no_folder_holds_more_than_16_files():
    for folder in {path.parent for path in ROOT.rglob("*.py")} - {ROOT / "commands"}:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= 16, folder


def test_the_version_of_both_packages_is_one():
    import kansciml

    project = (ROOT.parent / "julia" / "Project.toml").read_text(encoding="utf-8")
    assert f'version = "{kansciml.__version__}"' in project


def test_ci_runs_the_command_of_the_readme():
    script, readme = (ROOT.parent / name for name in (".ci/run", "README.md"))
    if script.exists():  # not in a source distribution
        assert f"&& {script.read_text().splitlines()[-1]}\n" in readme.read_text(encoding="utf-8")
