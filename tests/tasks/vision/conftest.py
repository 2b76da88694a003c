"""Small files in the official layouts, a local server to download them from, and the real data where they are."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.vision import _folders
from kansciml.tasks.vision._cifar_binary import CifarBinary
from kansciml.tasks.vision._idx import IdxFile, IdxImages
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.registry import get_dataset

REAL = os.environ.get("KANSCIML_DATA")
FILES = {"train": ("a.bin", "b.bin"), "test": ("t.bin",)}
RECORDS = {"train": 30, "test": 12}
CLASSES = 7


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the user's folder nor the user's cache takes part in a test. Returns the empty cache."""
    monkeypatch.delenv("KANSCIML_DATA", raising=False)
    monkeypatch.setattr(_folders, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "vision"


@pytest.fixture
def real_data() -> Callable[[str, str], Images]:
    """load(name, split) of the real data sets in the folder KANSCIML_DATA."""

    def load(name: str, split: str) -> Images:
        if not REAL:
            pytest.skip("KANSCIML_DATA is not set: expected a folder with the unpacked MNIST, CIFAR-10 and CIFAR-100")
        try:
            return get_dataset(name).load(REAL, split)
        except UsageError as error:
            if "holds no" not in str(error):
                raise
            pytest.skip(str(error))

    return load


class TinyCifar:
    """Two training files and a test file of random records; two label bytes, the second counts."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "tiny-bin"
        self.folder.mkdir(parents=True)
        rng = np.random.default_rng(3)
        self.rows = {}
        for split, names in FILES.items():
            rows = rng.integers(0, 256, (len(names), RECORDS[split], 3074), dtype=np.uint8)
            rows[..., 1] %= CLASSES
            for name, part in zip(names, rows):
                part.tofile(self.folder / name)
            self.rows[split] = rows.reshape(-1, 3074)

    def fingerprint(self, split: str) -> str:
        """The sum of the records' hashes, label and pixels, by another way than the package's."""
        rows = sorted(row.tobytes() for row in self.rows[split][:, 1:])
        total = sum(int(hashlib.blake2b(row, digest_size=8).digest()[::-1].hex(), 16) for row in rows)
        return f"{total % 2**64:016x}"

    def archive(self, extra: tuple[str, ...] = (), drop: str = "") -> bytes:
        """The official archive: the files in a folder, in another order than they are read, and `extra` ones."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name in sorted(set(os.listdir(self.folder)) - {drop}, reverse=True):
                tar.add(self.folder / name, arcname=f"tiny-bin/{name}")
            for name in extra:
                entry = tarfile.TarInfo(name)
                entry.size = 4
                tar.addfile(entry, io.BytesIO(b"evil"))
        return buffer.getvalue()

    def files(self, urls: tuple[str, ...] = (), md5: str = "0" * 32, checked: bool = True) -> CifarBinary:
        return CifarBinary(
            title="Tiny",
            folder="tiny-bin",
            archive="tiny.tar.gz",
            urls=urls,
            md5=md5,
            label_bytes=2,
            files=FILES,
            records=RECORDS,
            fingerprints={split: self.fingerprint(split) for split in FILES} if checked else None,
        )


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCifar:
    return TinyCifar(tmp_path / "data")


class TinyIdx:
    """20 images of 5 x 4 pixels and their labels, as idx files."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.folder = root
        rng = np.random.default_rng(4)
        self.images = rng.integers(0, 256, (20, 5, 4), dtype=np.uint8)
        self.labels = rng.integers(0, 10, 20, dtype=np.uint8)
        self.content = {}
        for name, array in (("x-images-idx3-ubyte", self.images), ("x-labels-idx1-ubyte", self.labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            self.content[name] = header + array.tobytes()

    def write(self, folder: Path, packed: bool, dotted: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.content.items():
            name = name.replace("-idx", ".idx") if dotted else name
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)

    def files(self, mirrors: tuple[str, ...] = ()) -> IdxImages:
        images, labels = (
            IdxFile(
                name,
                shape=struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]]),
                md5_gz=hashlib.md5(gzip.compress(content, mtime=0)).hexdigest(),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            for name, content in self.content.items()
        )
        return IdxImages(
            title="TinyIdx", folders=("tiny", "TINY/raw"), mirrors=mirrors, files={"test": (images, labels)}
        )


@pytest.fixture
def tiny_idx(tmp_path: Path) -> TinyIdx:
    return TinyIdx(tmp_path / "idx")


class Server:
    """Serves a folder on the loopback interface and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        asked = self.asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                asked.append(self.path)

        handler = functools.partial(Handler, directory=str(folder))
        self.folder = folder
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def photographs() -> tuple[Dataset, Images]:
    """70 colour images of 16 x 16 pixels in 7 classes, ten of each."""
    rng = np.random.default_rng(5)
    images = Images(rng.integers(0, 256, (70, 3, 16, 16), dtype=np.uint8), np.arange(70) % CLASSES)
    dataset = Dataset(
        name="photographs",
        title="Photographs",
        citation="random numbers",
        class_names=tuple("abcdefg"),
        channels=3,
        size=16,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        n_train=70,
        n_test=70,
        read=lambda *_: images,
    )
    return dataset, images
