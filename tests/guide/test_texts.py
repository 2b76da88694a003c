"""README and guide: short enough, no dead link, and every block of code is run or read by what it is for."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from functools import cache, partial
from pathlib import Path

import pytest
from support import guide

from kansciml import BackendUnavailable, __version__, cli, ode
from kansciml.backends.julia import find_julia
from kansciml.commands import _experiments
from kansciml.commands._output import Output
from kansciml.runs.registry import available_experiments, get_experiment

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LINKED = [
    *guide.GUIDE,
    *(guide.ROOT / name for name in ("julia/README.md", ".github/CONTRIBUTING.md", ".github/CHANGELOG.md")),
]
TINY = ode.FlatTraining(adam_steps=3, lbfgs_steps=2)
DISPATCHED = ("ode", "run", "vision", "fno", "tune")
NAMES = {path: path.name for path in LINKED}
pages = partial(pytest.mark.parametrize, "path", ids=NAMES.get)


def test_the_readme_has_at_most_2000_words():
    text = (guide.ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # where tables come from is not read
    assert len(shown.split()) <= 2000


def test_the_readme_cites_this_version():
    assert f"version = {{{__version__}}}," in (guide.ROOT / "README.md").read_text(encoding="utf-8")


def dead(path, text: str) -> list[str]:
    """The links of a text that lead nowhere."""
    found = []
    for link in LINK.findall(text):
        if link.startswith(("http:", "https:")):
            continue
        target, _, anchor = link.partition("#")
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in guide.anchors(place)):
            found.append(link)
    return found


@pages([path for path in LINKED if path.exists()])
def test_links_and_anchors_resolve(path):
    if not guide.CONFIG.exists():
        pytest.skip("a source distribution lacks some of the files")
    assert not dead(path, guide.prose(path))


def test_a_dead_link_is_noticed():
    assert dead(guide.ROOT / "README.md", "[a](nowhere.md) [b](examples/guide/paper.md#nowhere)") == [
        "nowhere.md",
        "examples/guide/paper.md#nowhere",
    ]


def test_the_guide_says_what_presets_cost():
    text = (guide.ROOT / "examples" / "guide" / "paper.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| .* `kansciml run (\w+) --preset small`.*\| ([^|]+) \|$", text, re.MULTILINE))
    assert len(shown) >= 8
    assert shown == {name: get_experiment(name).costs["small"] for name in shown}


@pages([path for path in guide.GUIDE if guide.blocks(path, "python")])
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ode, "train", partial(ode.train, training=TINY))
    names: dict[str, object] = {"__name__": "guide"}
    for number, code in enumerate(guide.blocks(path, "python")):
        exec(compile(code, f"{path.name}, block {number}", "exec"), names)


class Parsed(BaseException):
    """The arguments were read, and a run would begin."""


@cache
def flags(command: tuple[str, ...]) -> set[str]:
    """The flags that the help of a command names, and those of what `evaluate` scores."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        cli.run([*command, "--help"], Output())
    found = set(re.findall(r"--[a-z][\w-]*", shown.getvalue()))
    if command == ("evaluate",):
        scorings = [get_experiment(name).scoring for name in available_experiments()]
        settings = {name for one in scorings if one is not None for name in vars(one.options())}
        found |= {f"--{name.replace('_', '-')}" for name in settings}
    return found | {"--help", "--json", "--version"}


def read_by_the_cli(words: list[str], monkeypatch) -> None:
    """Have the command line read a command: runs are stopped where they would begin, flags of others looked up."""

    def stop(*_: object) -> None:
        raise Parsed

    name, *rest = words[1:]
    for word in rest:
        if word.endswith((".csv", ".mat")):
            Path(word).touch()
    assert name in cli.command_names() or name.startswith("--"), f"no command {name}"
    if name.startswith("--"):
        assert cli.run([name, *rest], Output()) == 0
    elif name in DISPATCHED and not (name == "run" and rest[:1] and rest[0].isupper()):
        monkeypatch.setattr(_experiments, "resolved", stop)
        with pytest.raises(Parsed):
            cli.run([name, *rest], Output())
    else:
        sub = rest[:1] if name in ("bench", "results") and rest and not rest[0].startswith("-") else []
        sub = rest[:2] if rest[:1] == ["--model"] else sub  # whose flags are others
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= flags((name, *sub)), f"{' '.join(words)}: no flags {given - flags((name, *sub))}"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty folder that has the examples: a user's, with the data that commands name."""
    (tmp_path / "examples").symlink_to(guide.ROOT / "examples")
    monkeypatch.chdir(tmp_path)


@pages(guide.GUIDE)
def test_shell_blocks_are_commands_that_exist(path, checkout, monkeypatch):
    extras = re.findall(r"^(\w+) = \[", (guide.ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for code in guide.blocks(path, "sh"):
        for words in guide.shell_commands(code):
            if words[0] == "kansciml":
                read_by_the_cli(words, monkeypatch)
            elif words[:2] == ["pip", "install"]:
                asked = re.findall(r"\[([\w,]+)\]", words[-1])
                assert all(extra in extras for one in asked for extra in one.split(","))
            elif words[0] == "julia":
                files = [word for word in words[1:] if word.endswith(".jl")]
                folders = [word.partition("=")[2] for word in words if word.startswith("--project=")]
                assert all((guide.ROOT / name).exists() for name in files + folders)
            else:
                assert words[0] in ("pytest", "dask"), words


@pages([path for path in guide.GUIDE if guide.SPAN.search(guide.prose(path))])
def test_commands_in_the_text_exist(path, checkout, monkeypatch):
    for span in guide.SPAN.findall(guide.prose(path)):
        words = next(iter(guide.shell_commands(span.replace("|", " "))))
        if words[1].islower() or words[1].startswith("-"):
            read_by_the_cli(words, monkeypatch)


@pytest.mark.parametrize("line", ["kansciml ode --sistem lotka", "kansciml results --quer x", "kansciml odes"])
def test_a_command_that_does_not_exist_is_noticed(line, monkeypatch):
    with pytest.raises(Exception, match=r"sistem|quer|odes"):
        read_by_the_cli(line.split(), monkeypatch)


@pytest.mark.julia
@pytest.mark.slow
@pages([path for path in guide.GUIDE if guide.blocks(path, "julia")])
def test_julia_blocks_run(path):
    try:
        julia = find_julia()
    except BackendUnavailable as error:
        pytest.skip(str(error).partition(":")[0])
    if not julia.ready or julia.executable is None:
        pytest.skip(julia.describe())
    code = "\n".join(guide.blocks(path, "julia"))
    command = [julia.executable, "--startup-file=no", f"--project={julia.project}", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
