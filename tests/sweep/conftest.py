import pytest
from support.sweep_samples import FOLDER


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The tiny experiments can be imported in the processes of tasks."""
    monkeypatch.setenv("PYTHONPATH", FOLDER)
