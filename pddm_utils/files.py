"""Writing files and folders in one step: what stands under the final name is always whole."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    After an error nothing of it is left, and an older file under the final name is as it was.

    Args:
        path: final name, in a folder that exists. The temporary name ends in the same way, for writers that
            choose the format by it.

    Example:
        >>> with written_whole("scores.csv") as temporary:  # doctest: +SKIP
        ...     table.to_csv(temporary)
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:  # on disk before it takes the old one's place
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one step."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in its place; a half-written one is never visible under the final name."""
    if final.exists():
        old = final.with_name(f".{final.name}.{uuid.uuid4().hex}.old")
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)
