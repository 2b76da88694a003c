"""What every command says to a wrong request, in one line and one document, and what its help names."""

import json
import re

import pytest
from support.command_line import run

HELP = {
    "cost": ("--in", "--out", "--batch", "--grid", "--order", "--model"),
    "cost --model deit-tiny": ("--variant", "--fair", "--match", "--placement", "--image-size"),
    "hessian": tuple("RUN --steps --probes --seed --models --samples --threshold --exact --out --force".split()),
    "darcy": ("--resolution", "--n-train", "--out", "--workers"),
    "fno": ("--residual", "--data-dir", "--eval-subsamples"),
    "vision": ("--data-dir", "--model"),
    "evaluate": ("--split", "--subsample", "--data", "--model"),
    "reproduce": ("smoke",),
    **dict.fromkeys(("ode", "crosscheck", "doctor", "list", "run fig2", "bench ode", "reference", "render"), ()),
    **dict.fromkeys(("sweep", "sweep fig2", "results", "results export", "rerun"), ()),
}


@pytest.mark.parametrize("command", HELP)
def test_help_names_the_flags(capsys, command):
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0 and "usage" in out and all(flag in out for flag in HELP[command])
    shown, _, examples = out.partition("\nexamples:\n")
    name, *rest = command.split()
    lines = [line.partition("#")[0] for line in examples.splitlines()]
    assert len(lines) > 1 and all("kansciml " in line for line in lines) and f"kansciml {name}" in lines[0]
    if not rest and name not in ("cost", "results"):  # what the examples of a command use, it has
        assert all(
            flag in shown for line in lines for flag in re.findall(r" (--[a-z-]+)", line.partition("kansciml")[2])
        )


def test_a_preset_is_told_as_the_flags_that_it_stands_for(capsys):
    _, out, _ = run(capsys, "run", "ode", "--help")
    text = " ".join(out.partition("presets (")[2].split())
    assert "smoke seconds: --seeds 2 --adam-steps 30 --lbfgs-steps 20 small half a minute of two cores" in text
    assert "the defaults paper --adam-steps 5000 --lbfgs-steps 20000 examples:" in text


MISTAKES = [
    ("ode --system lorenz", "unknown system 'lorenz': expected one of fitzhugh, lotka, pleiades, rigid, robertson"),
    ("ode --model cnn", "unknown model 'cnn': expected one of mlp, kan, both"),
    ("ode --model none", "got model none without --field: expected mlp, kan, or both"),
    ("ode --field f.jl --backend torch", "got field f.jl with backend torch: a layer of Lux is trained in Julia"),
    ("ode --field f.jl --backend julia", "f.jl does not exist: expected a Julia file that ends in a layer of Lux"),
    ("ode --field f.py --backend julia", "got field f.py: expected a Julia file, whose name ends in .jl"),
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
    ("ode --hidden a b", "--hidden: got 'a', 'b', expected an integer"),
    ("ode --grid-range 0 nan", "got grid_range nan: expected a finite number"),
    ("ode --first-seed -1", "got first_seed -1: expected an integer from 0 on"),
    ("ode --seeds 20261129", "seed 20261129 alone is first_seed 20261129 with seeds 1"),
    ("run fig2 --rtol 0", "got rtol 0.0: expected a number between 0 and 1"),
    ("run fig2 --seeds 20261129", "got seeds 20261129: expected at least 1 and at most 10000"),
    ("sweep ode --set backend=torch --seeds 20261129 --dry-run", "got seeds 20261129"),
    ("crosscheck --seed -1", "got seed -1"),
    ("darcy --data-seed -1", "got data_seed -1"),
    ("darcy --subsample 3 --resolution 21", "got subsample 3 of 21 nodes: expected a divisor of 20"),
    ("darcy --workers 0", "got workers 0: expected a positive number of processes"),
    ("darcy --solver gmres", "unknown solver 'gmres'"),
    ("darcy --points 3", "points"),
    ("darcy --seed 3", "--seed of kansciml darcy is now called --data-seed"),
    ("ode --sytem lotka", "Unrecognized options: --sytem"),
    ("ode --data missing.csv", "missing.csv does not exist"),
    ("ode --data missing.txt", "missing.txt does not exist"),
    ("ode --data /dev/null", "holds no rows of data"),
    ("ode --train-fraction 2 --data good.csv", "got train_fraction 2.0"),
    ("ode --system missing.py", "missing.py does not exist"),
    ("run", "run wants an experiment: one of fair, fig1, fig2"),
    ("run fig9", "unknown experiment 'fig9'"),
    ("run fig2 --systems lorenz", "unknown system 'lorenz'"),
    ("run fig2 --backend jax", "unknown backend 'jax'"),
    ("render", "render wants a finished run first: its folder, or its name"),
    ("render fig2 --folder results/fig2/x", "--folder is gone: kansciml render takes the folder of a run"),
    ("reference lorenz", "unknown system 'lorenz'"),
    ("reference lotka --t -1", "expected finite times from 0 on"),
    ("crosscheck --model cnn", "unknown model 'cnn'"),
    ("crosscheck --system lorenz", "unknown system 'lorenz'"),
    ("crosscheck --backend jax", "unknown backend 'jax'"),
    ("bench", "bench wants a name"),
    ("bench rocket", "unknown benchmark 'rocket'"),
    ("bench ode --rounds 1", "got rounds 1"),
    ("bench ode --threads -1", "got threads -1"),
    ("bench ode --sensealgs Gauss", "unknown sensealg"),
    ("train", "unknown command 'train'"),
    ("sweep", "sweep wants an experiment: one of "),
    ("sweep fig9", "unknown experiment 'fig9'"),
    ("sweep fig2 --preset huge", "unknown preset of fig2 'huge'"),
    ("sweep fig2 --set gird=3", "unknown setting 'gird' of Fig2Config: expected one of grid, "),
    ("sweep fig2 --set grid=3,x", "grid: got 'x', expected an integer"),
    ("sweep fig2 --set grid", "got --set 'grid': expected name=value"),
    ("sweep fig2 --set grid=0", "grid=0: "),
    ("sweep fig2 --seeds x", "got seeds 'x': expected how many (20), or which ones (0,3,7)"),
    ("sweep fig1 --seeds 3", "fig1 has no seeds: leave out --seeds"),
    ("sweep fig2 --workers 0", "got --workers 0: expected a positive number"),
    ("sweep fig2 --retries -1", "got --retries -1"),
    ("sweep fig2 --workers 2 --scheduler tcp://h:1", "leave --workers out"),
    ("sweep fig1 --preset smoke --scheduler dask", "expected local, or an address such as tcp://host:8786"),
    ("sweep ode --set backend=auto", "add --set backend=torch"),
    ("results --where grid", "--where is now --query"),
    ("results --status done", "unknown status 'done': expected one of running, finished, interrupted, failed"),
    ("rerun", "rerun wants a finished run first"),
    ("rerun x --rtol 2", "got --rtol 2.0"),
    ("vision --model deit-tiny", "got patch 16 for images of 8 x 8"),
    ("vision --dataset mnist --data-dir nowhere", "--data-dir nowhere is not a folder"),
    ("vision --dataset mnist --data-dir .", "--data-dir . holds no MNIST"),
    ("vision --preset huge", "unknown preset of vision 'huge': expected one of smoke, small, paper"),
    ("vision --preset paper --dataset imagenet", "unknown data set 'imagenet'"),
    ("vision --match params --model conv-mixer --variant kan-spline", "placement 'replace'"),
    ("evaluate", "evaluate wants a finished run first"),
    ("fno --subsample 11", "got subsample 11 of 421 nodes: expected a divisor of 420"),
    ("fno --data broken.mat", "broken.mat cannot be read as a MATLAB file"),
    ("fno --modes 40 40", "choose fewer modes, or a finer grid"),
    ("fno --preset huge", "unknown preset of fno 'huge': expected one of smoke, small, paper"),
    ("run fig4b --parts lift", "unknown part 'lift': expected one of ends, whole, recompute"),
    ("reproduce fig9", "unknown item 'fig9': expected one of all, fig1"),
    ("reproduce --preset huge", "unknown preset 'huge': expected one of smoke, small, paper"),
    ("reproduce fig1 --workers 0", "got --workers 0: expected a positive number"),
    ("reproduce fig1 --colour red", "--colour"),
    ("hessian", "hessian wants a finished run first"),
    ("hessian --steps 5", "hessian wants a finished run first"),
    ("cost --in 0", "got inputs 0"),
    ("cost --in x", "--in"),
    ("cost --model deit", "unknown model 'deit': expected one of conv-mixer-128-4"),
    ("cost --model deit-tiny --variant kan", "unknown variant 'kan'"),
    ("cost --model deit-tiny --patch 15", "got patch 15 for images of 224 x 224"),
    ("cost --model deit-tiny --placement head", "unknown option of deit 'placement'"),
    ("cost --model deit-tiny --match time", "unknown measure to match 'time'"),
    ("cost --model deit-tiny --match params --variant mlp", "expected a KAN variant"),
    ("cost --model conv-mixer-128-4 --match params", "placement 'replace'"),
    ("cost --model mixer-nano --in 3", "--in"),
    ("cost --model", "--model"),
    ("cost --variant mlp", "--variant"),
]


@pytest.mark.parametrize("command, message", MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, folder, command, message):
    (folder / "good.csv").write_text("t,x\n0,1\n1,2\n2,1\n")
    (folder / "broken.mat").write_bytes(b"no MATLAB file")
    code, out, err = run(capsys, *command.split(), "--json")
    lines = [line for line in err.splitlines() if not line.startswith("Darcy")]  # whose data come first
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert "parsing config" not in err  # where the parser was when a setting was refused
    assert json.loads(out) == {"error": lines[0].removeprefix("error: "), "exit_code": 2}
    assert "broken" in command or not (folder / "results").exists()


@pytest.mark.parametrize(
    "command, message",
    [
        ("ode --rtol -1e-7", "got rtol -1e-07"),
        ("results export", "results export wants a file: --csv FILE, --json FILE, or both"),
        ("train", "unknown command 'train'"),
    ],
)
def test_without_a_document_the_line_alone_is_printed(capsys, command, message):
    code, out, err = run(capsys, *command.split())
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err
