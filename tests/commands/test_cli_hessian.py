"""``kansciml hessian`` as a user types it: results, resuming, and one line per mistake."""

import json
import shutil

import pytest
from support.command_line import run
from support.settings import changed

from kansciml.experiments.hessian import measure, report
from kansciml.experiments.ode import experiment as ode
from kansciml.runs.records import load_record
from kansciml.runs.runner import run_experiment
from kansciml.training.flat import FlatTraining

CONFIG = changed(
    ode.OdeConfig(),
    system="spiral",
    backend="torch",
    seeds=1,
    hidden=(3,),
    match="params",
    training=FlatTraining(3, lbfgs_steps=2),
)
QUICK = ["--steps", "6", "--probes", "3", "--exact", "never", "--deflate", "0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KANSCIML_WORKERS", "1")
        return run_experiment(
            ode.EXPERIMENT, CONFIG, results=tmp_path_factory.mktemp("runs"), log=lambda line: None
        ).folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def hessian(capsys, *arguments):
    return run(capsys, "hessian", *map(str, arguments))


def test_a_run_is_measured_once(capsys, folder, monkeypatch):
    code, out, err = hessian(capsys, folder, "--json")
    document = json.loads(out)
    assert code == 0 and "in all" in err  # the memory it needs, beforehand
    models = {row["group"]: row for row in document["result"]["models"]}
    assert set(models) == {"mlp", "kan-params"} and all(row["sharpness"]["exact"] for row in models.values())
    for row in models.values():
        assert row["sharpness"]["loss"] == pytest.approx(row["recorded_loss"], rel=1e-9)
    top = {group: row["sharpness"]["measures"]["top"]["value"] for group, row in models.items()}
    verdict = next(row for row in document["result"]["verdicts"] if row["measure"] == "top")
    assert verdict["verdict"] == ("sharper" if top["kan-params"] > top["mlp"] else "flatter")
    assert {path.rpartition(".")[2] for path in document["files"]} == {"svg", "md", "json"}
    again = hessian(capsys, folder, "--json")
    assert "finished on" in again[2] and json.loads(again[1])["result"] == document["result"]
    monkeypatch.setattr(report, "save_report", lambda *arguments: [])
    forced = json.loads(hessian(capsys, folder, "--json", "--force")[1])["result"]["models"]
    assert [row["sharpness"] for row in forced] == [row["sharpness"] for row in document["result"]["models"]]


def test_other_models_are_added_to_those_measured(capsys, folder, monkeypatch, no_pictures):
    hessian(capsys, folder, *QUICK, "--models", "mlp")
    names = []
    original = measure.sharpness
    monkeypatch.setattr(measure, "sharpness", lambda *a, **o: names.append(o["checkpoints"].name) or original(*a, **o))
    code, out, err = hessian(capsys, folder, *QUICK, "--all")
    assert code == 0 and names == ["spiral.kan-params.torch.0"] and "1 of 2 models were measured before" in err
    assert out.index("spiral.mlp.torch.0: MLP") < out.index("spiral.kan-params.torch.0: KAN")
    assert out.count("Lanczos quadrature") == 2 and "+-" in out and f"results: {folder}" in out
    assert "sharper than MLP 2-3-2?" in out
    code, out, _ = hessian(capsys, folder, *QUICK)
    first, rows = out.splitlines()[0], [line for line in out.splitlines() if "eigenvalue" in line or "trace" in line]
    assert code == 0 and "is sharper than MLP 2-3-2 by" in first and "of those that scaling layers leaves" in first
    assert 4 <= len(rows) <= 12 and "--all prints every measure" in out and "Lanczos quadrature" not in out
    _, out, _ = hessian(capsys, folder, *QUICK, "--models", "mlp", "--out", folder / "alone")
    assert out.startswith("Nothing to compare") and "spiral.mlp.torch.0" in out


def test_ctrl_c_keeps_the_probes_that_are_done(capsys, folder, monkeypatch, no_pictures):
    original = measure.sharpness

    def stopped(*arguments, progress, **options):
        def stop(done, total, what):
            progress(done, total, what)
            if done == 4:
                raise KeyboardInterrupt

        return original(*arguments, progress=stop, **options)

    flags = [*QUICK, "--models", "mlp"]
    with monkeypatch.context() as patch:
        patch.setattr(measure, "sharpness", stopped)
        code, out, err = hessian(capsys, folder, *flags)
    assert code == 130 and out == "" and "the same command resumes it" in err
    (measured,) = (folder / "hessian").iterdir()
    assert load_record(measured).status == "interrupted"
    assert {path.name for path in measured.glob("checkpoints/*/*.npz")} == {"plain.npz", "adaptive.npz"}
    code, out, _ = hessian(capsys, folder, *flags, "--json")
    resumed = json.loads(out)
    assert code == 0 and resumed["sessions"] == 2 and not list(measured.glob("checkpoints/*/*.npz"))
    whole = json.loads(hessian(capsys, folder, *flags, "--json", "--out", folder / "elsewhere")[1])
    first, second = ([row["sharpness"] for row in document["result"]["models"]] for document in (resumed, whole))
    assert first == second


def test_fewer_samples_are_another_measurement(capsys, folder, no_pictures):
    losses = []
    for samples in ("3", "1000000"):
        document = json.loads(hessian(capsys, folder, *QUICK, "--samples", samples, "--models", "mlp", "--json")[1])
        losses.append(document["result"]["models"][0]["sharpness"]["loss"])
    assert losses[0] != pytest.approx(losses[1]) and len(list((folder / "hessian").iterdir())) == 2


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (["{missing}"], 2, "expected the folder of one, or its name or hash"),
        (["{run}", "--models", "cnn"], 2, "unknown model 'cnn': expected one of mlp, kan-params"),
        (["{run}", "--steps", "0"], 2, "got steps 0"),
        (["{run}", "--threshold", "-1"], 2, "threshold"),
        (["{run}", "--exact", "maybe"], 2, "unknown exact 'maybe': expected one of auto, both, never"),
        (["{run}", "{run}"], 2, "Unrecognized options"),
    ],
)
def test_mistakes_are_one_line(capsys, folder, tmp_path, flags, code, message):
    places = {"missing": tmp_path / "missing", "run": folder}
    found, out, err = hessian(capsys, *(flag.format(**places) for flag in flags))
    assert found == code and out == "" and message in err and err.count("\n") == 1


def test_an_unfinished_run_and_one_without_models(capsys, folder):
    path = folder / "record.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "status": "failed"}))
    code, _, err = hessian(capsys, folder)
    assert code == 1 and "is not finished (failed): resume it first" in err and err.count("\n") == 1
    path.write_text(json.dumps({**content, "experiment": "fig1"}))
    code, _, err = hessian(capsys, folder)
    assert code == 1 and "trains no models" in err and err.count("\n") == 1
