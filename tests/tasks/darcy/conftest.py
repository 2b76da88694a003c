import pytest

from kansciml.tasks.darcy.config import DarcyConfig


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("KANSCIML_DATA", "KANSCIML_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config() -> DarcyConfig:
    """Two training shards and one of test samples, in a fraction of a second."""
    return DarcyConfig(resolution=21, subsample=5, n_train=40, n_test=7, data_seed=3)
