"""The site is built strictly, and asks nothing of another server."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from support import guide

REMOTE = re.compile(
    r"""(?:src=|<link[^>]+rel="?(?:stylesheet|preload|icon|preconnect)"?[^>]+href=)["']?https?:|url\(["']?https?:"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, its notebooks as they are written."""
    for needed in ("mkdocs", "mkdocstrings_handlers.python", "material", "jupytext", "latex2mathml"):
        pytest.importorskip(needed, reason="the site needs pip install 'kansciml[docs]'")
    guide.hooks()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(guide.CONFIG), "-d", str(folder)]
    environment = os.environ | {"KANSCIML_GUIDE_OUTPUTS": "0", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_strictly_and_works_offline(site):
    pages = list(site.rglob("*.html"))
    assert {"index.html", "paper.html", "api/ode.html", "notebooks/own_data.html"} <= {
        page.relative_to(site).as_posix() for page in pages
    }
    for path in [*pages, *site.rglob("*.css")]:
        assert not REMOTE.search(path.read_text(encoding="utf-8")), path
    reference = (site / "api" / "index.html").read_text(encoding="utf-8") + (site / "api" / "layers.html").read_text()
    assert 'id="kansciml.UsageError"' in reference and 'id="kansciml.layers.spline_kan.SplineKAN"' in reference
    assert "<math" in (site / "api" / "layers.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.zip")) and (site / "pictures" / "fig2_anytime.png").exists()


@pytest.mark.parametrize("text", ['<script src="https://a.b/c.js">', "@import url(https://a.b/c.css)"])
def test_an_asset_of_another_server_would_be_noticed(text):
    assert REMOTE.search(text) and not REMOTE.search('<a href="https://a.b">')
