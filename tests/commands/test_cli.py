"""The command line as a user types it: results, one JSON document, one line per mistake, exit codes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from support.command_line import run, training_workers
from support.sweep_samples import alive, wait_for

from kansciml import cli
from kansciml.commands._output import _without_markup
from kansciml.reporting import style

TINY = ["--adam-steps", "4", "--lbfgs-steps", "3", "--seeds", "1", "--backend", "torch", "--workers", "1"]


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in cli.command_names())
    expected = {"ode", "crosscheck", "bench", "cost", "doctor", "list", "reference", "render", "run"}
    assert expected <= set(cli.command_names())


@pytest.mark.parametrize("command", ["ode", "vision", "fno", "run fig2", "sweep fig2", "reproduce"])
def test_presets_stand_in_the_help_and_marks_of_the_parser_s_library_do_not(capsys, command):
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0 and "--preset STR" in out
    assert "{None}" not in out and "[bold]" not in out
    framed = "| --data {None}|PATH   |"
    assert _without_markup(framed) == "| --data PATH          |"
    assert _without_markup("of [bold]{None}|INT[/bold] [x]") == "of INT[/bold]        [x]".replace("[/bold]", "")


def test_reference_prints_the_true_state(capsys):
    code, out, err = run(capsys, "reference", "lotka", "--t", "3.5", "--json")
    document = json.loads(out)
    assert code == 0 and err == ""
    # 45-digit Taylor series, tests/reference/ode_end_states.json
    assert document["u"][0] == pytest.approx([1.1279686875254, 0.7015132452501], abs=1e-9)


CSV = [
    ("t,x\n0,1\n1,nan\n", "nothing is measured after the first rows"),
    ("t,x\n0,1\n2,1\n1,2\n", "is earlier than the time"),
    ("t,x\n0,1\n1,1\n1,2\n", "repeats the time"),
    ("t\n0\n1\n", "has only one column"),
    ("t,x\n", "holds no rows of data"),
    ("", "holds no rows of data"),
    ("t,x\n0,1\n1,1,3\n", "got 3 cells, expected 2"),
]


@pytest.mark.parametrize("text, message", CSV, ids=[message for _, message in CSV])
def test_a_malformed_csv_is_one_line_and_exit_code_2(capsys, folder, text, message):
    (folder / "file.csv").write_text(text)
    code, out, err = run(capsys, "ode", "--data", "file.csv", *TINY)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err


def test_ode_leaves_numbers_and_pictures_and_is_not_run_twice(capsys, folder, every_format, monkeypatch):
    monkeypatch.setattr(style, "FORMATS", style.FORMATS[:2])  # a PDF takes as long again
    code, out, err = run(capsys, "ode", "--system", "spiral", *TINY, "--json")
    record = json.loads(out)
    assert code == 0 and record["status"] == "finished"
    assert {r["variant"] for r in record["result"]["runs"]} == {"mlp", "kan-width", "kan-params"}
    plan, models, duration = err.splitlines()[:3]
    assert plan == "plan: 3 trainings on spiral by torch, 1 at a time; 4 steps of Adam, then at most 3 of L-BFGS"
    assert models.startswith("models: MLP 2-50-2, KAN 2-50-2") and duration.startswith("time: about ")
    names = {path.rsplit("/", 1)[1] for path in record["files"]}
    assert {"loss_curves.svg", "loss_curves.png", "trajectories_spiral.svg", "phase_portraits.png"} <= names
    code, out, err = run(capsys, "ode", "--system", "spiral", *TINY)
    assert code == 0 and "finished on" in err and "plan: " not in err and "Spiral" in out
    code, out, _ = run(capsys, "list", "--json")
    assert [r["status"] for r in json.loads(out)["runs"]] == ["finished"]
    monkeypatch.setattr(style, "FORMATS", style.FORMATS[:1])
    assert run(capsys, "render", "ode")[0] == 0


def test_own_data_with_held_out_rows(capsys, folder, no_pictures):
    rows = "\n".join(f"{0.1 * i},{(1 - 0.02 * i):.6f}" for i in range(30))
    (folder / "decay.csv").write_text(f"time,level\n{rows}\n")
    flags = ["--data", "decay.csv", "--train-fraction", "0.7", "--model", "mlp", "--json"]
    code, out, _ = run(capsys, "ode", *flags, *TINY)
    runs = json.loads(out)["result"]["runs"]
    assert code == 0 and all(r["system"] == "decay" and r["test_mse"] is not None for r in runs)


def test_a_file_named_as_the_results_folder_is_one_line_and_exit_code_2(capsys, folder):
    (folder / "taken").write_text("a file, not a folder")
    code, out, err = run(capsys, "ode", *TINY, "--results", "taken")
    assert code == 2 and out == "" and err.count("\n") == 1 and "taken" in err


def test_render_without_a_run_says_how_to_make_one(capsys):
    code, _, err = run(capsys, "render", "fig2")
    assert code == 2 and err == "error: no finished run of fig2 in results: kansciml run fig2 makes one\n"


def test_list_names_both_experiments(capsys):
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    assert {"fig2", "ode"} <= {e["name"] for e in json.loads(out)["experiments"]}


def test_doctor_gives_a_verdict_per_backend(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    document = json.loads(out)
    assert code == 0 and document["backends"]["torch"]["works"] is True
    assert document["backends"]["julia"]["verdict"]
    assert document["backends"]["ODE fields"]["backend"] in ("cpp", "numpy")


def test_a_crosscheck_of_all_systems_includes_the_stiff_one(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("kansciml.crosscheck.crosscheck_field", lambda system, *a, **k: asked.append(system.name) or [])
    code, _, _ = run(capsys, "crosscheck", "--backend", "torch", "--model", "mlp")
    assert code == 0 and asked == ["fitzhugh", "lotka", "pleiades", "rigid", "robertson", "spiral"]


def test_a_failed_crosscheck_exits_1(capsys):
    # a solver this coarse cannot agree with the reference to what the gates allow
    flags = ["--system", "lotka", "--model", "mlp", "--backend", "torch", "--tolerance", "1e-3"]
    code, out, _ = run(capsys, "crosscheck", *flags)
    assert code == 1 and "no" in out


def test_julia_missing_is_one_line_with_the_remedy_and_exit_code_1(capsys, monkeypatch, no_pictures):
    for name in ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "juliacall" else find_spec(name))
    code, out, err = run(capsys, "ode", "--system", "lotka", *TINY, "--backend", "julia")
    assert code == 1 and out == "" and "pip install 'kansciml[julia]'" in err.splitlines()[-1]
    code, _, err = run(capsys, "ode", "--system", "lotka", *TINY, "--model", "mlp", "--backend", "auto")
    assert code == 0 and "backend: torch, because Julia does not start" in err


TWO_WORKERS = "ode --backend torch --adam-steps 700 --lbfgs-steps 5 --seeds 2 --model mlp --workers 2".split()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds processes through /proc")
def test_a_run_that_was_interrupted_and_then_killed_is_finished_by_the_same_command(folder, capsys, no_pictures):
    """Ctrl-C goes to all processes, as from a terminal; SIGKILL to the command alone."""
    command = [sys.executable, "-m", "kansciml", *TWO_WORKERS]
    for number, send in ((signal.SIGINT, os.killpg), (signal.SIGKILL, os.kill)):
        process = psutil.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        )
        workers = training_workers(process)
        send(process.pid, number)
        _, err = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130 and "Traceback" not in err and "the same command resumes it" in err
        wait_for(lambda workers=workers: not alive([worker.pid for worker in workers]))
    code, out, err = run(capsys, *TWO_WORKERS[:-2], "--json")  # one by one, here
    document = json.loads(out)
    assert code == 0 and document["sessions"] == 3 and "which was killed" in err
    assert [r["status"] for r in document["result"]["runs"]] == ["finished"] * 2
