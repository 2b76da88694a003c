"""All that a GPU can show, in a few minutes, as one JSON file: python -m support.gpu_report FILE.

Run it in the folder tests. In turn: the device, the tests marked gpu or triton, ``kansciml bench layers`` and
``kansciml bench vision`` with ``--device cuda``, memory against the counted one. The file is written after each, so
that what was measured is there whatever ends the program. Without a GPU, or with --rehearse, all of it runs on the CPU
in small. --only names parts, --seconds bounds each of them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

PARTS = ("device", "tests", "layers", "vision", "memory")
REPORTED = r"^(?:FAILED|ERROR) (\S+)"
MARKED, MARKS = "gpu or triton", r"mark\.(gpu|triton)|= GPU"
"""The tests that are run, and what is in their files: reading all others would take long."""
KANSCIML = ("-m", "kansciml", "bench")


def commands(rehearse, folder):
    """What each part runs, and the environment that it is given besides."""
    small = ("--rehearse", "--shapes", "S1", "--rounds", "3") if rehearse else ()
    images = ("--rehearse", "--models", "conv-mixer-128-4") if rehearse else ()
    own = [str(path) for path in sorted(Path().rglob("test_*.py")) if re.search(MARKS, path.read_text())]
    options = ("-q", "-p", "no:cacheprovider", "--basetemp", folder, "-m", "gpu" if rehearse else MARKED)
    return {
        "device": (("-c", "import torch; print(torch.__config__.show())"), {}),
        "tests": (("-m", "pytest", *options, *own), {"KANSCIML_TEST_DEVICE": "cpu"} if rehearse else {}),
        "layers": ((*KANSCIML, "layers", "--device", "cuda", "--json", *small), {}),
        "vision": ((*KANSCIML, "vision", "--device", "cuda", "--json", *images), {}),
        "memory": (("-m", "support.gpu_memory", "cpu" if rehearse else "cuda"), {}),
    }


def run(command, more, seconds):
    """Seconds, exit status, and what a command printed: its JSON, the summary of tests, or its last lines."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]), **more}
    try:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=seconds, env=environment
        )
        status, out, error = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        status = None
        out, error = ((part or b"").decode(errors="replace") for part in (late.stdout, late.stderr))
    found = {"seconds": round(time.monotonic() - began, 1), "status": status}
    if "pytest" in command:
        return found | {"failed": re.findall(REPORTED, out, re.MULTILINE), "end": out.splitlines()[-40:]}
    try:
        return found | {"document": json.loads(out)}
    except json.JSONDecodeError:
        return found | {"end": [*out.splitlines()[-20:], *error.splitlines()[-20:]]}


def main(arguments):
    """Write the report; the exit status tells whether every part went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rehearse", action="store_true", default=not torch.cuda.is_available())
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=300.0)
    given = parser.parse_args(arguments)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    report = {"device": name, "torch": str(torch.__version__), "rehearsed": given.rehearse, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        every = commands(given.rehearse, folder)
        for part in given.only:
            report["parts"][part] = found = run(*every[part], given.seconds)
            given.file.write_text(json.dumps(report, indent=1))
            print(f"{part}: status {found['status']} after {found['seconds']} s", flush=True)
    return int(any(part["status"] != 0 for part in report["parts"].values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
