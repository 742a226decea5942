"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pddm_utils.core.errors import InputError


def user_path(path: str | Path) -> Path:
    """A path as a user writes it: `~` at its start is the home folder, where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of nobody, or of a process without a home: a name like any other
        return Path(path)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary name to write to, beside `path`, which it replaces at the end of the block.

    Args:
        path: the file, `~` for the home folder; its folder is made when missing. Where the block fails, it stays as it
            was.

    Raises:
        InputError: it cannot be written: no room, no permission, a file in the folder's place.

    Example:
        >>> with whole_file("table.csv") as partial:  # doctest: +SKIP
        ...     partial.write_text("a,b")
    """
    path = user_path(path)
    partial = path.with_name(f".partial-{uuid.uuid4().hex}{''.join(path.suffixes[-2:])}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:  # on disk before it takes the old one's place
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: str | Path) -> Iterator[Path]:
    """A scratch folder whose files move to `folder` at the end of the block; where the block fails, none does.

    Args:
        folder: made when missing, with those above it, and removed again when the block fails before anything is in it.
            One process writes to it at a time.

    Raises:
        InputError: as `whole_file`.
    """
    folder = user_path(folder)
    scratch, made = folder / ".partial", []
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir(parents=True)
        yield scratch
        for path in sorted(scratch.iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # the first folder that holds something ends it
            for place in made:
                place.rmdir()


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error to raise where a file or folder cannot be written."""
    return InputError(f"{path}: cannot write there ({error.strerror or error}); make room or choose another folder")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one step (`InputError` as `whole_file`)."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in its place; a half-written one is never visible under the final name."""
    if final.exists():
        old = final.with_name(f".{final.name}.{uuid.uuid4().hex}.old")
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)
