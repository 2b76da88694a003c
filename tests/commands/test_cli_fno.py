"""``kansciml fno`` as a user types it."""

import json
from pathlib import Path

from support.command_line import run

TINY = ["--resolution", "57", "--subsample", "4", "--n-train", "8", "--n-test", "4", "--epochs", "2", "--batch-size"]
TINY += ["4", "--width", "4", "--modes", "3", "3", "--iterations", "2", "--projection", "6", "--accelerator", "cpu"]
TINY += ["--data-dir", "data"]


def test_train_with_residual_connections_then_take_a_hessian(capsys, folder):
    flags = ["--variant", "kan-spline", "--residual", "--eval-subsamples", "8", "2", "--json"]
    code, out, _ = run(capsys, "fno", *TINY, *flags)
    record = json.loads(out)
    (row,) = record["result"]["runs"]
    assert code == 0 and record["status"] == "finished"
    assert row["group"] == "kan-spline-residual" and row["network"]["residual"] and 0 < row["relative_l2"] < 1
    assert set(row["relative_l2_at"]) == {"8", "15", "29"}
    assert {"curves.svg", "prediction_1.svg", "tables.md"} <= {Path(path).name for path in record["files"]}
    code, out, err = run(capsys, "fno", *TINY, *flags[:-1])  # finished runs are not repeated
    assert code == 0 and "finished on" in err and "Resolution" in out
    assert run(capsys, "render", "fno")[0] == 0
    flags = ["--exact", "never", "--steps", "4", "--probes", "2", "--samples", "4", "--deflate", "0"]
    code, out, _ = run(capsys, "hessian", record["folder"], *flags, "--json")
    (model,) = json.loads(out)["result"]["models"]
    assert code == 0 and model["sharpness"]["measures"]["top"]["value"] > 0
