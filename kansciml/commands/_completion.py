"""``kansciml --print-completion SHELL``: a script that completes commands, flags, and names of experiments and runs.

The script holds them all, so that nothing of Python runs while someone types; after an update it is to be written anew.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from kansciml._errors import KansciError, check_name
from kansciml.commands._output import Output

INSTALL = {
    "bash": "save it as ~/.local/share/bash-completion/completions/kansciml, or source it in ~/.bashrc",
    "zsh": "save it as ~/.zfunc/_kansciml, with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc",
    "fish": "save it as ~/.config/fish/completions/kansciml.fish",
    "tcsh": "save it as ~/.kansciml.tcsh, with source ~/.kansciml.tcsh in ~/.tcshrc",
}
"""Shells, and what to do with the script of each."""
NAMING = ("evaluate", "hessian", "predict", "render", "rerun")
"""Commands whose first argument is a run."""
RUNS = r"ls -d results/*/*/record.json 2>/dev/null | sed 's|results/\(.*\)/\(.*\)/record.json|\1-\2|'"
"""Names of the runs in the folder of all results."""
Words = Mapping[str, Iterable[str]]
WORDS = """\
_kansciml_words() {{  # command, word after it, word to complete, word before that, its place
  case "$4" in
{values}
  esac
  case "$5:$3" in
    1:*) echo {commands} ;;
    *:-*)
      case "$1 $2" in
{flags}
      esac ;;
    *)
      case "$1:$5" in
{first}
      esac
      case "$1:$5" in {naming}) {runs} ;; esac ;;
  esac
}}
"""
BASH = """\
_kansciml() {
  local w=("${COMP_WORDS[@]}") n=$COMP_CWORD
  COMPREPLY=($(compgen -W "$(_kansciml_words "${w[1]}" "${w[2]}" "${w[n]}" "${w[n-1]}" "$n")" -- "${w[n]}"))
}
complete -o default -F _kansciml kansciml
"""
ZSH = """\
_kansciml() {
  local n=$((CURRENT - 1))
  local -a found=(${=$(_kansciml_words "$words[2]" "$words[3]" "$words[CURRENT]" "$words[n]" "$n")})
  compadd -a found || _files
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _kansciml "$@"; else compdef _kansciml kansciml; fi
"""
FISH = """\
function __kansciml
  set -l w (commandline -opc) (commandline -ct)
  set -l n (math (count $w) - 1)
  sh -c $__kansciml_words'_kansciml_words "$@" | tr " " "\\\\n"' sh "$w[2]" "$w[3]" "$w[-1]" "$w[$n]" $n
end
complete -c kansciml -a "(__kansciml)"
"""


def completion_script(shell: str, commands: Sequence[str]) -> str:
    """The script for a shell.

    Raises:
        UsageError: there is none for this shell.
    """
    check_name("shell", shell, INSTALL)
    from kansciml.commands.bench import benchmark_names
    from kansciml.runs.registry import available_experiments
    from kansciml.tasks.ode.registry import available_systems

    experiments = available_experiments()
    first: Words = {
        **dict.fromkeys(("run", "sweep", *NAMING), experiments),
        "bench": benchmark_names(),
        "reference": available_systems(),
        "reproduce": ["all", *experiments],
        "results": ["export", "pack"],
    }
    values: Words = {
        "--preset": ("smoke", "small", "paper"),
        "--backend": ("auto", "torch", "julia", "both"),
        "--system": available_systems(),
        "--status": ("finished", "running", "interrupted", "failed"),
    }
    flags = {f"{name} {one}": flags_of(name, one) for name in ("bench", "run", "results") for one in first[name]}
    flags |= {name: flags_of(name) for name in commands if name not in ("bench", "run")}
    known = [*commands, "--help", "--version", "--print-completion"]
    head = f"# Completion of kansciml in {shell}: {INSTALL[shell]}.\n"
    if shell == "tcsh":
        return head + _tcsh(known, first, values, flags)
    script = WORDS.format(
        values=_cases({name: own for name, own in values.items()}, "; return"),
        commands=" ".join(known),
        flags=_cases({f'"{name}"' if " " in name else f'"{name} "*': own for name, own in flags.items()}),
        first=_cases({f"{name}:{'*' if name == 'reproduce' else 2}": own for name, own in first.items()}),
        naming=" | ".join(f"{name}:2" for name in NAMING),
        runs=RUNS,
    )
    if shell == "fish":
        quoted = script.replace("\\", "\\\\").replace("'", "\\'")
        return f"{head}set -g __kansciml_words '{quoted}'\n{FISH}"
    return f"#compdef kansciml\n{head}{script}{ZSH}" if shell == "zsh" else head + script + BASH


def flags_of(*command: str) -> list[str]:
    """The flags that the help of a command names; none of one that cannot be loaded."""
    shown = io.StringIO()
    with contextlib.suppress(KansciError, SystemExit), contextlib.redirect_stdout(shown):
        importlib.import_module(f"kansciml.commands.{command[0]}").main([*command[1:], "--help"], Output())
    return re.findall(r"^\W{1,3}(?:-h, )?(--[a-z][\w-]*)", shown.getvalue(), re.MULTILINE)


def _cases(words: Words, then: str = "") -> str:
    return "\n".join(f"    {pattern}) echo {' '.join(own)}{then} ;;" for pattern, own in words.items())


def _tcsh(commands: Iterable[str], first: Words, values: Words, flags: Words) -> str:
    """tcsh knows no function: its flags are those of all commands."""
    every = sorted({flag.removeprefix("--") for own in flags.values() for flag in own})
    rules = [f"'c/--/({' '.join(every)})/'", f"'p/1/({' '.join(commands)})/'"]
    rules += [f"'n/{name}/({' '.join(own)})/'" for name, own in {**values, **first}.items()]
    return f"complete kansciml {' '.join(rules)}\n"
