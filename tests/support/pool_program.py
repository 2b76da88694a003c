"""``python -m support.pool_program FOLDER``: a command whose two workers go on until they are asked to end."""

import sys
import time
from pathlib import Path

from kansciml import cli
from kansciml._workers import WorkerPool, stopping


def work(folder: Path, number: int) -> None:
    (folder / f"{number}.began").touch()
    while not stopping():
        time.sleep(0.02)
    (folder / f"{number}.saved").touch()


def run(arguments, out) -> int:
    with WorkerPool(2) as pool:
        futures = [pool.submit(work, Path(arguments[0]), number) for number in range(2)]
        Path(arguments[0], "asked").touch()
        for future in futures:
            future.result()
    return 0


if __name__ == "__main__":
    cli.run = run
    sys.exit(cli.main(sys.argv[1:]))
