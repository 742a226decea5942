"""Opens the file of a scan, or says what lies in its place."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pddm_utils.core.errors import InputError

_GZIP = b"\x1f\x8b"
_LARGEST_PACKING = 1100  # bytes that gzip can pack into one
UNREADABLE = (OSError, EOFError, zlib.error)  # what unpacking a damaged file raises
_AGAIN = "download it again, signed in where the site asks for it"
_INSTEAD = {  # first bytes of a file, in small letters: what it is, and what to do
    b"version https://git-lfs": ("a Git LFS pointer, not the scan itself", "fetch the content: git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer, not the scan itself", "fetch the content: datalad get"),
    b"../.git/annex": ("a git-annex link written as text, not the scan itself", "fetch the content: datalad get"),
    b".git/annex": ("a git-annex link written as text, not the scan itself", "fetch the content: datalad get"),
    b"<!doctype html": ("a web page, not a scan", _AGAIN),
    b"<html": ("a web page, not a scan", _AGAIN),
    b"<?xml": ("a page of XML, such as a server's error, not a scan", _AGAIN),
    b"{": ("a JSON text, such as a server's error, not a scan", _AGAIN),
    b"pk\x03\x04": ("a zip archive, not a scan", "unpack it first"),
    b"\0\0\0\1": ("an MGH image of FreeSurfer, not a NIfTI file", "convert it: mri_convert SCAN.mgz SCAN.nii.gz"),
    b"nrrd": ("an NRRD image, not a NIfTI file", "convert it to .nii.gz, for example with 3D Slicer"),
}


@contextmanager
def open_scan_file(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a scan's file, unpacked where they are gzipped, whatever the name's ending.

    Raises:
        InputError: nothing can be read there.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise no_file(path)
        raw = path.open("rb")
    except (OSError, ValueError) as error:
        raise error if isinstance(error, InputError) else no_file(path) from None
    with raw:
        is_packed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        if not is_packed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield cast(BinaryIO, unpacked)


def largest_content(stream: BinaryIO) -> int:
    """How many bytes a stream of `open_scan_file` can hold at most."""
    return os.fstat(stream.fileno()).st_size * (_LARGEST_PACKING if isinstance(stream, gzip.GzipFile) else 1)


def no_file(path: Path) -> InputError:
    """Why no file can be read under a name: nothing there, a broken link, a folder, no permission."""
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():
            return InputError(f"{path}: cannot be read (no regular file); give one NIfTI file")
        path.open("rb").close()
        reason: object = "it changed while it was read"
    except FileNotFoundError:
        if path.is_symlink():
            return InputError(
                f"{path}: a link whose content is not on this machine ({path.readlink()}); fetch it: datalad get in "
                "a DataLad data set, a new download in the cache of a hub"
            )
        return InputError(f"{path}: no such file; check the path")
    except IsADirectoryError:
        return InputError(
            f"{path}: a folder, not a file; give one NIfTI file (of DICOM files: dcm2niix -z y FOLDER makes one)"
        )
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
    return InputError(f"{path}: cannot be read ({reason}); check the path and its permissions")


def read_start(path: Path, stream: BinaryIO, count: int) -> bytes:
    """The first bytes of a scan's file, up to `count`.

    Raises:
        InputError: it is clearly no NIfTI file, but a pointer to content that was not fetched, a web page, another
            format, or empty; or it cannot be unpacked.
    """
    try:
        start = stream.read(count)
    except UNREADABLE as error:
        raise damaged(path, error) from None
    if not start.strip(b"\0"):
        raise InputError(f"{path}: empty or filled with zeros, so not a scan; copy or download it again")
    if start[128:132] == b"DICM":
        raise InputError(f"{path}: a DICOM file, not a NIfTI file; convert its series with dcm2niix -z y FOLDER")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, (what, remedy) in _INSTEAD.items():
        if text.startswith(signature):
            raise InputError(f"{path}: {what}; {remedy}")
    return start


def damaged(path: Path, error: Exception) -> InputError:
    """What to say where reading a file's bytes failed."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path}: truncated or damaged ({reason}); copy or download it again")
