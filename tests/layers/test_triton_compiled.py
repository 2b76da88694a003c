"""The Triton kernels compile for the GPUs that people have, and fit their registers and memory; none is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.triton
TESTS = Path(__file__).parents[1]
SHARED = {70: 96 << 10, 80: 163 << 10, 90: 227 << 10}
"""Bytes of shared memory that a program may have, by compute capability: V100, A100, H100."""
SPILLED = 128
"""Bytes of registers that a kernel may put into memory, at most."""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("capability", SHARED)
def test_kernels_compile_ahead_of_time_and_fit(capability, record_property):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "support.triton_resources", str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 8
    for row in found:
        record_property(f"{row['kernel']} {row['dtype']}", row)
        assert row["registers"] <= 255 and row["spilled_bytes"] <= SPILLED, row
        assert row["shared_bytes"] <= SHARED[capability], row
        assert row["tensor_cores"] == row["kernel"].startswith("fused"), row
