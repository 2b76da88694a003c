"""Where a result came from."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import numpy as np

import kansciml
from kansciml.runs import provenance


def test_versions_name_what_is_installed_and_what_is_not(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    versions = provenance.package_versions()
    own = {"python": platform.python_version(), "kansciml": kansciml.__version__}
    assert versions == {**own, "numpy": np.__version__, "no-such-package": None}


def test_machine_and_memory():
    machine = provenance.machine()
    assert machine["cores"] >= 1 and machine["device"] and machine["processor"]
    own, workers = provenance.peak_memory_mb()
    assert 5 < own < 1e6 and workers >= 0


def test_commit_is_that_of_the_checkout_or_none():
    commit = provenance.package_commit()
    in_checkout = (Path(provenance.__file__).parents[2] / ".git").exists()
    assert re.fullmatch(r"[0-9a-f]{40}(\+modified)?", commit) if in_checkout and commit else commit is None


def test_another_repository_around_the_package_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    package = tmp_path / "venv" / "site-packages" / "kansciml" / "reporting"
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.package_commit() is None
