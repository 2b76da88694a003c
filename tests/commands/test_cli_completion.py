"""Completion scripts, asked by the shells themselves where they are installed."""

import shutil
import subprocess

import pytest
from support.command_line import run

from kansciml.commands import _completion

ASK = {
    "bash": "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kansciml;"
    ' printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": "compdef() {{ }}; compadd() {{ print -rl -- ${{(M)found:#$words[CURRENT]*}} }}; source {script};"
    " words=({words}); CURRENT=$#words; _kansciml",
    "fish": "source {script}; complete -C (string join ' ' -- {words})",
    "tcsh": "source {script}; complete kansciml",
}


@pytest.fixture
def quick(monkeypatch):
    """Flags without loading what the commands load."""
    flags = {"run fig1": ["--help", "--batches", "--batch"], "render": ["--help", "--results"]}
    monkeypatch.setattr(_completion, "flags_of", lambda *command: flags.get(" ".join(command), []))


@pytest.mark.parametrize("shell", _completion.INSTALL)
def test_a_shell_completes_commands_flags_values_and_runs(capsys, folder, quick, shell):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    (folder / "results" / "ode" / "0047").mkdir(parents=True)
    (folder / "results" / "ode" / "0047" / "record.json").touch()
    code, script, err = run(capsys, "--print-completion", shell)
    assert code == 0 and err == ""
    (folder / "script").write_text(script)

    def asked(*words):
        typed = " ".join(word or "''" for word in ("kansciml", *words))
        command = ASK[shell].format(script=folder / "script", words=typed)
        quiet = {"bash": "--norc", "fish": "--no-config"}.get(shell, "-f")
        done = subprocess.run([program, quiet, "-c", command], capture_output=True, text=True, check=True)
        return done.stdout.split()

    if shell == "tcsh":
        (rules,) = [asked()]
        assert "batches" in " ".join(rules) and "ode-0047" not in rules
        return
    assert asked("re")[:5] == ["reference", "render", "reproduce", "rerun", "results"]
    assert sorted(asked("run", "fig1", "--b")) == ["--batch", "--batches"]
    assert asked("render", "--r") == ["--results"]
    assert asked("ode", "--preset", "sm") == ["small", "smoke"] if shell == "fish" else ["smoke", "small"]
    assert asked("hessian", "ode-") == ["ode-0047"]
    assert asked("reproduce", "fig1", "fig3") == ["fig3"]


def test_the_flags_are_those_of_the_help():
    assert _completion.flags_of("list") == ["--help", "--json", "--results"]
    assert "--rtol" in _completion.flags_of("rerun") and _completion.flags_of("run", "fig99") == []


@pytest.mark.parametrize("given", [(), ("powershell",), ("bash", "more")])
def test_a_wrong_shell_is_one_line(capsys, given):
    code, out, err = run(capsys, "--print-completion", *given)
    assert code == 2 and out == "" and err.count("\n") == 1 and "one of bash, zsh, fish, tcsh" in err
