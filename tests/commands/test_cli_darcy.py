"""``kansciml darcy`` as a user types it."""

from __future__ import annotations

import json

from support.command_line import run

from kansciml.tasks.darcy.dataset import DarcyConfig, dataset_folder, load

FLAGS = ["--resolution", "21", "--n-train", "3", "--n-test", "2", "--data-seed", "4"]


def test_it_generates_says_where_and_goes_on(capsys, tmp_path) -> None:
    code, out, _ = run(capsys, "darcy", *FLAGS, "--out", str(tmp_path), "--json")
    document = json.loads(out)
    config = DarcyConfig(resolution=21, n_train=3, n_test=2, data_seed=4)
    assert code == 0 and document["folder"] == str(dataset_folder(config, tmp_path))
    assert (document["made"], document["kept"], document["size"]) == (5, 0, 5)
    assert len(load(config, tmp_path)) == 3 and len(load(config, tmp_path, "test")) == 2
    code, out, _ = run(capsys, "darcy", *FLAGS, "--out", str(tmp_path), "--workers", "2")
    assert code == 0 and f"data: {document['folder']}" in out and "21 x 21 to 5 x 5" in out


def test_without_a_folder_the_data_go_where_load_looks(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KANSCIML_DATA", raising=False)
    code, out, _ = run(capsys, "darcy", *FLAGS)
    config = DarcyConfig(resolution=21, n_train=3, n_test=2, data_seed=4)
    assert code == 0 and str(dataset_folder(config)) in out and len(load(config)) == 3
