"""The command line as a user types it: results, one JSON document, one line per mistake, exit codes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command_line import run, training_workers
from support.sweep_samples import alive, wait_for

from kansciml import cli
from kansciml.commands._output import _without_markup

TINY = ["--adam-steps", "4", "--lbfgs-steps", "3", "--seeds", "1", "--backend", "torch", "--workers", "1"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    return tmp_path


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in cli.command_names())
    expected = {"ode", "crosscheck", "bench", "cost", "doctor", "list", "reference", "render", "run"}
    assert expected <= set(cli.command_names())


@pytest.mark.parametrize(
    "command", ["ode", "crosscheck", "doctor", "list", "run fig2", "bench ode", "reference", "render"]
)
def test_every_command_has_help(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0 and "usage" in capsys.readouterr().out


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


MISTAKES = [
    ("ode --system lorenz", "unknown system 'lorenz': expected one of fitzhugh, lotka, pleiades, rigid, spiral"),
    ("ode --model cnn", "unknown model 'cnn': expected one of mlp, kan, both"),
    ("ode --backend jax", "unknown backend 'jax': expected one of auto, torch, julia, both"),
    ("ode --backend torch --gradient magic", "unknown gradient 'magic': expected one of replay, backprop, adjoint"),
    ("ode --sensealg Magic", "unknown sensealg 'Magic': expected one of"),
    ("ode --rtol -1e-7", "got rtol -1e-07: expected a number between 0 and 1"),
    ("ode --hidden 0", "got hidden widths (0,): expected positive"),
    ("ode --grid 0", "got grid 0"),
    ("ode --grid-range 1 -1", "lower then higher"),
    ("ode --activation swish", "unknown activation 'swish'"),
    ("ode --input-scaling log", "unknown input_scaling 'log'"),
    ("ode --seeds 0", "got seeds 0: expected at least 1; see kansciml ode"),
    ("ode --adam-steps x", "--adam-steps"),
    ("ode --preset huge", "unknown preset of ode 'huge': expected one of smoke, small, paper"),
    ("ode --preset", "--preset wants a value"),
    ("ode --workers 0", "got --workers 0"),
    ("ode --data=", "got an empty value for --data: give one, or leave it out"),
    ("ode --preset=", "got an empty value for --preset"),
    ("ode --adam-steps", "--adam-steps wants a value"),
    ("ode --grid-range 1", "--grid-range wants 2 values"),
    ("ode --grid 1.5", "--grid: got '1.5', expected an integer"),
    ("ode --workers many", "--workers: got 'many', expected an integer"),
    ("ode --grid-range 0 nan", "got grid_range nan: expected a finite number"),
    ("ode --first-seed -1", "got first_seed -1: expected an integer from 0 on"),
    ("ode --seeds 20261129", "seed 20261129 alone is first_seed 20261129 with seeds 1"),
    ("run fig2 --rtol 0", "got rtol 0.0: expected a number between 0 and 1"),
    ("run fig2 --seeds 20261129", "got seeds 20261129: expected at least 1 and at most 10000"),
    ("sweep ode --set backend=torch --seeds 20261129 --dry-run", "got seeds 20261129"),
    ("crosscheck --seed -1", "got seed -1"),
    ("darcy --data-seed -1", "got data_seed -1"),
    ("darcy --seed 1", "--data-seed"),
    ("ode --sytem lotka", "Unrecognized options: --sytem"),
    ("ode --data missing.csv", "missing.csv does not exist"),
    ("ode --data missing.txt", "missing.txt does not exist"),
    ("ode --data /dev/null", "holds no rows of data"),
    ("ode --train-fraction 2 --data good.csv", "got train_fraction 2.0"),
    ("ode --system missing.py", "missing.py does not exist"),
    ("run", "run wants an experiment: one of fair, fig1, fig2"),
    ("run fig9", "unknown experiment 'fig9'"),
    ("run fig2 --systems lorenz", "unknown system 'lorenz'"),
    ("run fig2 --backend both", "unknown backend 'both'"),
    ("render", "render wants an experiment"),
    ("reference lorenz", "unknown system 'lorenz'"),
    ("reference lotka --t -1", "expected finite times from 0 on"),
    ("crosscheck --model cnn", "unknown model 'cnn'"),
    ("crosscheck --system lorenz", "unknown system 'lorenz'"),
    ("crosscheck --backend jax", "unknown backend 'jax'"),
    ("bench", "bench wants a name"),
    ("bench rocket", "unknown benchmark 'rocket'"),
    ("bench ode --rounds 1", "got rounds 1"),
    ("train", "unknown command 'train'"),
]


@pytest.mark.parametrize("command, message", MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, folder, command, message):
    (folder / "good.csv").write_text("t,x\n0,1\n1,2\n2,1\n")
    code, out, err = run(capsys, *command.split())
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert "parsing config" not in err  # where the parser was when a setting was refused
    assert not (folder / "results").exists()
    code, out, _ = run(capsys, *command.split(), "--json")
    assert code == 2 and message in json.loads(out)["error"]


CSV = [
    ("t,x\n0,1\n1,nan\n", "column 2: got 'nan', expected a finite number"),
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


def test_ode_leaves_numbers_and_pictures_and_is_not_run_twice(capsys, folder, every_format):
    code, out, err = run(capsys, "ode", "--system", "spiral", *TINY, "--json")
    record = json.loads(out)
    assert code == 0 and record["status"] == "finished"
    assert {r["variant"] for r in record["result"]["runs"]} == {"mlp", "kan-width", "kan-params"}
    names = {path.rsplit("/", 1)[1] for path in record["files"]}
    assert {"loss_curves.svg", "loss_curves.png", "trajectories_spiral.svg", "phase_portraits.png"} <= names
    start = time.monotonic()
    code, out, err = run(capsys, "ode", "--system", "spiral", *TINY)
    assert code == 0 and "finished on" in err and "Spiral" in out and time.monotonic() - start < 5
    code, out, _ = run(capsys, "list", "--json")
    assert [r["status"] for r in json.loads(out)["runs"]] == ["finished"]
    assert run(capsys, "render", "ode")[0] == 0


def test_own_data_with_held_out_rows(capsys, folder):
    rows = "\n".join(f"{0.1 * i},{(1 - 0.02 * i):.6f}" for i in range(30))
    (folder / "decay.csv").write_text(f"time,level\n{rows}\n")
    code, out, _ = run(capsys, "ode", "--data", "decay.csv", "--train-fraction", "0.7", "--json", *TINY)
    runs = json.loads(out)["result"]["runs"]
    assert code == 0 and all(r["system"] == "decay" and r["test_mse"] is not None for r in runs)


def test_a_file_named_as_the_results_folder_is_one_line_and_exit_code_2(capsys, folder):
    (folder / "taken").write_text("a file, not a folder")
    code, out, err = run(capsys, "ode", *TINY, "--results", "taken")
    assert code == 2 and out == "" and err.count("\n") == 1 and "taken" in err


def test_render_without_a_run_says_how_to_make_one(capsys):
    code, _, err = run(capsys, "render", "fig2")
    assert code == 1 and "kansciml run fig2 makes one" in err


def test_list_names_both_experiments(capsys):
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    assert {"fig2", "ode"} <= {e["name"] for e in json.loads(out)["experiments"]}


def test_doctor_gives_a_verdict_per_backend(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    document = json.loads(out)
    assert code == 0 and document["backends"]["torch"]["works"] is True
    assert document["backends"]["julia"]["verdict"]


def test_a_failed_crosscheck_exits_1(capsys):
    # a solver this coarse cannot agree with the reference to what the gates allow
    flags = ["--system", "lotka", "--model", "mlp", "--backend", "torch", "--tolerance", "1e-3"]
    code, out, _ = run(capsys, "crosscheck", *flags)
    assert code == 1 and "no" in out


def test_julia_missing_is_one_line_with_the_remedy_and_exit_code_1(capsys, monkeypatch):
    for name in ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "juliacall" else find_spec(name))
    code, out, err = run(capsys, "ode", "--system", "lotka", *TINY, "--backend", "julia")
    assert code == 1 and out == "" and "pip install 'kansciml[julia]'" in err.splitlines()[-1]
    code, _, err = run(capsys, "ode", "--system", "lotka", *TINY, "--backend", "auto")
    assert code == 0 and "backend: torch, because Julia does not start" in err


TWO_WORKERS = "ode --backend torch --adam-steps 700 --lbfgs-steps 5 --seeds 2 --model mlp --workers 2".split()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds processes through /proc")
def test_a_run_that_was_interrupted_and_then_killed_is_finished_by_the_same_command(folder, capsys):
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
