"""Build hook: compiles the C++ kernels at installation where a compiler is found, and never fails it.

The libraries land next to their sources, so an editable installation has them as well as a wheel.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class SplineBuildHook(BuildHookInterface):
    """Adds the built libraries to a wheel, which then is of this platform; without them the wheel is of any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or os.environ.get("KANSCIML_NO_CPP", "") not in ("", "0"):
            return
        native = Path(self.root) / "kansciml" / "layers" / "_native"
        spec = importlib.util.spec_from_file_location("kansciml_native_build", native / "build.py")
        assert spec is not None and spec.loader is not None
        builder = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(builder)
            libraries = [builder.build(source) for source in builder.SOURCES]
        except (RuntimeError, OSError) as error:
            self.app.display_warning(f"kansciml is installed without its C++ kernels: {error}")
            return
        build_data["artifacts"] += [library.relative_to(self.root).as_posix() for library in libraries]
        build_data["pure_python"] = False
        # plain ctypes: any Python 3. A library linked here must not claim to run on every Linux.
        here = next(tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
        build_data["tag"] = f"py3-none-{here}"
