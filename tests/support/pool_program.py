"""``python -m support.pool_program pool|call FOLDER``: a command whose workers go on until they are asked to end."""

import sys
import time
from concurrent.futures import wait
from pathlib import Path

from kansciml import cli
from kansciml._workers import WorkerPool, call_in_process, stopping


def pooled(folder: Path, number: int) -> None:
    (folder / f"{number}.began").touch()
    while not stopping():
        time.sleep(0.02)
    (folder / f"{number}.saved").touch()


def called(folder: str) -> None:
    try:
        Path(folder, "0.began").touch()
        time.sleep(60)
    finally:
        Path(folder, "0.saved").touch()


def run(arguments, out) -> int:
    what, folder = arguments
    if what == "call":
        from support import pool_program

        return call_in_process(pool_program.called, folder)
    with WorkerPool(2) as pool:
        futures = [pool.submit(pooled, Path(folder), number) for number in range(2)]
        Path(folder, "asked").touch()
        while wait(futures, 0.25).not_done:  # a wait without end may miss a signal that comes as it begins
            pass
        for future in futures:
            future.result()
    return 0


if __name__ == "__main__":
    cli.run = run
    sys.exit(cli.main(sys.argv[1:]))
