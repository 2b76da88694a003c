"""The Julia backend that tests marked `julia` share."""

from __future__ import annotations

import pytest

from kansciml import BackendUnavailable
from kansciml.backends.julia import JuliaBackend, find_julia


@pytest.fixture(scope="session")
def julia():
    """A started Julia backend; skips where there is no Julia."""
    try:
        installation = find_julia()
    except BackendUnavailable as error:
        pytest.skip(str(error).partition(":")[0])
    if not installation.ready:
        pytest.skip(installation.describe())
    with JuliaBackend(may_download=False) as started:
        yield started
