"""Commands under torchrun. As a program it runs several of them in the same processes, which takes one start.

``torchrun ... -m support.torchrun FOLDER COMMANDS`` leaves what each process said, by its rank. All commands but the
last end where the processes would; the last one ends them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kansciml import cli
from kansciml.reporting import style
from kansciml.runs import ranks
from support.sweep_samples import FOLDER


def torchrun(*program: object) -> subprocess.CompletedProcess:
    """Two processes over the loopback run a module or a file."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", *map(str, program)]
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300)


def _environment() -> dict[str, str]:
    loopback = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))
    return {**os.environ, "PYTHONPATH": FOLDER, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}


def pair(program: str, *arguments: object) -> None:
    """Two processes, as torchrun starts them but without its own, run a program's text with the rank and `arguments`.

    Each ends by `ranks.end`, which also leaves the process group: the program has everything written down by then.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {**_environment(), "TORCHELASTIC_RUN_ID": "pair"}
    start = f"{program}\nfrom kansciml.runs import ranks\nranks.end(0)"
    started = []
    try:
        for rank in range(2):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-c", start, *map(str, (rank, *arguments))]
            started.append(subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True))
        told = [process.communicate(timeout=200)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], told
    finally:
        for process in started:
            process.kill()
            process.wait()


def commands(folder: Path, given: Sequence[Sequence[object]]) -> tuple[list[list[tuple]], subprocess.CompletedProcess]:
    """(exit code, standard output, standard error) of both processes for all commands but the last, and the end."""
    texts = [[str(part) for part in command] for command in given]
    done = torchrun("-m", "support.torchrun", folder, json.dumps(texts))
    said = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(one) for one in said] == [len(given) - 1] * 2, done.stderr
    return list(zip(*said)), done


class _Ended(BaseException):
    pass


def _end(code: int) -> None:
    raise _Ended(code)


def _run(command: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    ranks._told = False
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(command)
        except _Ended as end:
            (code,) = end.args
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    *rest, last = json.loads(sys.argv[2])
    style.FORMATS = ()  # nobody looks at the pictures
    end, ranks.end = ranks.end, _end
    said = [_run(command) for command in rest]
    Path(sys.argv[1], f"rank{ranks.rank()}.json").write_text(json.dumps(said))
    ranks.end, ranks._told = end, False
    sys.exit(cli.main(last))
