"""The folder of figures: every picture and table of the page as a file, named by the item it belongs to."""

from __future__ import annotations

from pathlib import Path

from kansciml._errors import KansciError
from kansciml._files import write_bytes
from kansciml.reproduce.page.content import FINISHED, Entry, Page, slug
from kansciml.runs.tables import save_tables

PICTURE_KINDS = ("svg", "png", "pdf")


def figure_stem(entry: Entry, picture: Path) -> str:
    """``figure-2-loss-curves``; a picture named after its item alone is not named twice."""
    own = slug(picture.stem)
    return entry.slug if own.replace("-", "") == entry.slug.replace("-", "") else f"{entry.slug}-{own}"


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Copy the pictures of all finished runs, in every kind of file there is of them, and write their tables.

    Returns:
        All files that belong to the page; those whose bytes are the same already are left as they are.

    Raises:
        KansciError: a picture cannot be read, or the folder not be written.
    """
    paths = []
    for entry in page.entries:
        if entry.status != FINISHED:
            continue
        for picture in entry.pictures:
            for kind in PICTURE_KINDS:
                source = picture.with_suffix(f".{kind}")
                if source.is_file():
                    paths.append(_copy(source, folder / f"{figure_stem(entry, picture)}.{kind}"))
        if entry.tables:
            paths += save_tables(entry.tables, folder, f"{entry.slug}-tables")
    return paths


def _copy(source: Path, target: Path) -> Path:
    try:
        data = source.read_bytes()
        if target.is_file() and target.read_bytes() == data:
            return target
    except OSError as error:
        raise KansciError(f"cannot read {source}: {error.strerror}: check its permissions") from error
    return write_bytes(target, data)
