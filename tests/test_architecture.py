"""Who may import whom, from the syntax trees; and what `import kansciml` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kansciml"

# room -> rooms it may import (its own is always allowed). No room may import one above it.
FLOOR = {"_errors", "_files", "_streams", "_workers"}
MAY = {
    "_errors": set(),
    "_files": {"_errors"},
    "_streams": set(),
    "_workers": {"_errors"},
    "layers": set(),
    "backends.base": FLOOR,
    "models": {"layers", "backends.base", *FLOOR},
    "backends": {"layers", "models", "backends.base", *FLOOR},
    "tasks": {"backends.base", *FLOOR},
    "training": FLOOR,
    "analysis": FLOOR,
    "reporting": {"analysis", *FLOOR},
    "ode": {"backends", "backends.base", "tasks", "training", *FLOOR},
    "crosscheck": {"backends", "backends.base", "models", "tasks", "training", *FLOOR},
    "experiments": {
        "ode", "crosscheck", "backends", "backends.base", "layers", "models", "tasks", "training", "analysis",
        "reporting", *FLOOR
    },
    "benchmarks": {
        "backends", "backends.base", "layers", "models", "tasks", "training", "analysis", "reporting", *FLOOR
    },
    "commands": {
        "experiments", "benchmarks", "crosscheck", "ode", "reporting", "analysis", "tasks", "backends",
        "backends.base", "layers", "models", *FLOOR
    },
    "cli": {"commands", *FLOOR},
}  # fmt: skip


def room(module: str) -> str:
    """Room of a dotted module name below kansciml."""
    if module.startswith("backends.base"):
        return "backends.base"
    return module.split(".")[0]


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
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    rooms = {name: room(name) for name in imports(path, text)}
    return [name for name, other in rooms.items() if other not in {own, "__version__", *MAY[own]}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up_or_sideways(path):
    assert not forbidden(path)


@pytest.mark.parametrize(
    "text", ["def late():\n    from ..training import flat", "from kansciml.training.flat import train_flat"]
)
def test_the_guard_sees_a_forbidden_import(text):
    found = forbidden(ROOT / "layers" / "spline_kan.py", text)
    assert found and all(name.startswith("training.flat") for name in found)
    assert not forbidden(ROOT / "experiments" / "fig2.py", text.replace("..training", "kansciml.training"))


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
        "from kansciml.experiments._registry import available_experiments as b; b()"
    )
    assert "torch" not in loaded_by(statement)


def test_no_file_is_longer_than_400_lines():
    for path in [*FILES, *Path(__file__).parent.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path
