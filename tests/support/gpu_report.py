"""All that a GPU can show of the layers, in a few minutes, as one JSON file: python -m support.gpu_report FILE.

The tests marked gpu or triton, then ``kansciml bench layers --device cuda``. Run it in the folder tests.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = ["--model-only"]
"""Added where there is no GPU, to rehearse."""


def run(command):
    """Seconds, exit status and output of a command."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    return {"seconds": time.monotonic() - began, "status": done.returncode}, done


def main(target, *more):
    """Write the report to `target`; `more` goes to the benchmark, such as --shapes S3 S6."""
    import torch

    there = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        tests, done = run(["pytest", "-q", "-m", "gpu or triton", "-p", "no:cacheprovider", "--basetemp", folder])
    tests["failed"] = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    tests["summary"] = done.stdout.strip().splitlines()[-1:]
    speed, done = run(["kansciml", "bench", "layers", "--device", "cuda", "--json", *([] if there else MODEL), *more])
    speed["document"] = json.loads(done.stdout) if done.returncode == 0 else done.stderr[-2000:]
    device = torch.cuda.get_device_name() if there else None
    report = {"device": device, "torch": str(torch.__version__), "tests": tests, "speed": speed}
    Path(target).write_text(json.dumps(report, indent=1))
    print(f"{tests['summary']}, benchmark status {speed['status']}: written to {target}")
    return tests["status"] or speed["status"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
