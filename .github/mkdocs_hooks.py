"""What the site has beside the Markdown of examples/guide: the API reference, and the notebooks with their outputs.

Pages of the guide are written for GitHub; links from them to other files of the repository lead there.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("own_layer", "own_data", "torch_against_julia", "own_hessian", "darcy_operator", "new_experiment")
API = {
    "layers": (
        "Layers",
        "layers.spline_kan layers.rswaf_kan layers.kan layers.images.kan_conv layers.mlp layers.textbook_kan"
        " layers.bspline layers.prune layers.regularisation layers.layer_norm layers.spectral_conv layers.fixed_point"
        " layers.reading.symbolic layers.reading.functions layers.reading.picture training.refinement",
    ),
    "ode": (
        "Neural ODEs",
        "ode models.field_spec models.fields models.edge_penalty backends.base backends.torch backends.julia"
        " backends.select training.flat crosscheck",
    ),
    "models": (
        "Models of images and operators",
        "models.registry models.base models.mixer models.conv_mixer models.deit models.deit_weights models.fno"
        " training.loop",
    ),
    "hessian": ("Hessians", "analysis.hessian"),
    "costs": (
        "Costs and comparisons",
        "analysis.cost analysis.memory analysis.matching analysis.paired analysis.exact_tests",
    ),
    "tasks": (
        "Tasks and data",
        "tasks.ode.system tasks.ode.data tasks.darcy.config tasks.darcy.dataset tasks.darcy.coefficient"
        " tasks.darcy.solver tasks.darcy.normalise tasks.darcy.metrics tasks.vision.dataset tasks.vision.registry"
        " tasks.vision.metrics",
    ),
    "experiments": (
        "Experiments and records",
        "runs.experiment runs.findings runs.tables runs.records runs.registry runs.runner runs.archive reporting.style"
        " reporting.palette reporting.legends sweep.plan",
    ),
}
"""Page of the reference -> its title and modules below kansciml."""
STYLE = """/* On a phone wide pictures and formulas scroll in their frame. */
.formula { overflow-x: auto; }
@media (max-width: 600px) {
  article p:has(> img:only-child) { overflow-x: auto; }
  article p > img:only-child { max-width: none; width: max(100%, 40rem); }
}
"""
FORMULA = re.compile(r"^ *\.\. math:: (.+(?:\n +.+)*)|:math:`([^`]+)`", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def public_names(module: ModuleType) -> list[str]:
    """`__all__` of a module; without it, the functions and classes defined there whose names have no underscore."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("__")]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def api_pages() -> dict[str, str]:
    """The Markdown of each page of the reference. What has several public names is shown under the first."""
    shown: dict[int, str] = {}
    pages = {}
    for page, (title, modules) in API.items():
        text = [f"# {title}\n"]
        for name in modules.split():
            module = importlib.import_module(f"kansciml.{name}")
            summary = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
            text += [f"## `{module.__name__}`\n\n{summary}\n", *_entries(module, shown)]
        pages[f"api/{page}.md"] = "\n".join(text)
    package = importlib.import_module("kansciml")
    text = ["# The package\n\nWhat `import kansciml` offers; each name loads what it needs when it is first used.\n"]
    pages["api/index.md"] = "\n".join([*text, *_entries(package, shown)])
    return pages


def _entries(module: ModuleType, shown: dict[int, str]) -> list[str]:
    """An entry for each public name of a module; `shown` (id of a value -> its first name) grows with them."""
    entries = []
    for public in public_names(module):
        value, path = getattr(module, public), f"{module.__name__}.{public}"
        if isinstance(value, ModuleType):
            entries.append(f"`{path}`: see [Neural ODEs](ode.md).\n")
        elif callable(value) and id(value) in shown:
            entries.append(f"`{path}`: see [`{shown[id(value)]}`][{shown[id(value)]}].\n")
        else:
            shown[id(value)] = path
            entries.append(f"::: {path}\n    options:\n      heading_level: 3\n")
    return entries


def notebook(name: str, outputs: bool) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook of examples/, and its pictures by the names of their files; with outputs it is run."""
    import jupytext

    cells = jupytext.read(ROOT / "examples" / f"{name}.py")
    if outputs:
        from nbclient import NotebookClient

        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                cells, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
            ).execute()
    text, pictures = [], {}
    for cell in cells.cells:
        text.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}_{len(pictures)}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                text.append(f"![A picture that the cell above draws]({file})")
            elif words := output.get("text") or (output.output_type == "display_data" and data.get("text/plain")):
                text.append(f"```text\n{words.rstrip()}\n```")
    text.append(f"This page is [`examples/{name}.py`](../{name}.py): a script and, by jupytext, a notebook.\n")
    return "\n\n".join(text), pictures


def with_formulas(text: str, keep: Callable[[str], str] = str) -> str:
    """Text with the formulas that docstrings write as ``.. math::`` and ``:math:`` as MathML, which needs no script.

    Args:
        keep: takes each formula as HTML, and gives what stands for it.
    """
    from latex2mathml.converter import convert

    def typeset(match: re.Match[str]) -> str:
        block, inline = match.groups()
        html = convert(" ".join((block or inline).split()), display="block" if block else "inline")
        wide = f'<div class="formula">{html}</div>'
        return f"\n{keep(wide)}\n" if block else keep(html)

    return FORMULA.sub(typeset, text)


def on_config(config: Any) -> Any:
    """Formulas are typeset before Markdown reads their backslashes and underscores."""
    from markdown import Extension
    from markdown.preprocessors import Preprocessor

    class Typeset(Preprocessor):
        def run(self, lines: list[str]) -> list[str]:
            return with_formulas("\n".join(lines), self.md.htmlStash.store).split("\n")

    class Formulas(Extension):
        def extendMarkdown(self, md: Any) -> None:
            md.preprocessors.register(Typeset(md), "formulas", 5)  # after code was put away

    config.markdown_extensions.append(Formulas())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Pages of the guide move to the top of the site; what is made is added; other files of examples/ stay away."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_dir != config.docs_dir:
            continue
        if file.src_uri.startswith("guide/"):
            file.dest_uri = file.dest_uri.removeprefix("guide/")
        elif not file.src_uri.endswith(".png"):
            files.remove(file)
    made: dict[str, str | bytes] = {"assets/guide.css": STYLE, **api_pages()}
    for name in NOTEBOOKS:
        text, pictures = notebook(name, os.environ.get("KANSCIML_GUIDE_OUTPUTS", "1") != "0")
        made |= {f"notebooks/{name}.md": text, **{f"notebooks/{file}": image for file, image in pictures.items()}}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to notebooks lead to their pages, links to other files that the site lacks to the repository."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = Path(os.path.normpath(folder / target))
        if (
            path.parent == ROOT / "examples"
            and path.stem in NOTEBOOKS
            and not page.file.src_uri.startswith("notebooks/")
        ):
            return f"[{text}](../notebooks/{path.stem}.md{anchor})"
        if path.is_relative_to(ROOT) and path.is_file() and path.suffix != ".png" and path.parent.name != "guide":
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path.relative_to(ROOT).as_posix()}{anchor})"
        return match[0]

    return LINK.sub(led, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Without the theme's look at GitHub for stars: nothing is asked of another server."""
    return output.replace('data-md-component="source"', "")
