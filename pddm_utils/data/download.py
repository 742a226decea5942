"""Downloads and archives: checked, resumed after an interruption, and never half there under their final name."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pooch
import requests

from pddm_utils.core.errors import InputError

_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError)


def fetch_file(url: str, path: str | Path, known_hash: str, progress: bool = True) -> Path:
    """Download one file; started again after an interruption it goes on where it was.

    What has arrived lies beside `path` as `<name>.part`; the file gets its name after its checksum was found right.

    Args:
        url: `http` or `https` address.
        path: where the file is to lie. A file there is kept when its checksum is right, and never overwritten.
        known_hash: `algorithm:hexdigest`, such as `md5:34901a05...`; empty for a zip archive without a published one,
            which is then only looked at for being whole.
        progress: show a progress bar.

    Returns:
        `path`.

    Raises:
        InputError: no answer from the server, a wrong checksum, no room, or another file under that name.
    """
    path = Path(path)
    if path.exists():
        if not _hash_is(path, known_hash):
            raise InputError(f"{path}: is there, but its checksum is not the published one; move it away and try again")
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            _append(url, stream, progress)
            stream.flush()
            os.fsync(stream.fileno())
    except requests.RequestException as error:
        raise InputError(
            f"{url}: the download stopped ({_cause(error)}); run the command again, it goes on at "
            f"{part.stat().st_size} bytes"
        ) from None
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror}); make room or choose another folder") from None
    if not _hash_is(part, known_hash):
        part.unlink()
        wrong = f"has another checksum than the published {known_hash}" if known_hash else "is no whole zip archive"
        raise InputError(f"{url}: what arrived {wrong}, and was removed; try again later")
    os.replace(part, path)
    return path


def remote_size(url: str) -> int | None:
    """Size of a remote file in bytes as its server states it; None when the server does not.

    Raises:
        InputError: no answer, or an error as answer.
    """
    try:
        answer = requests.head(url, timeout=30, allow_redirects=True, headers={"Accept-Encoding": "identity"})
        answer.raise_for_status()
    except requests.RequestException as error:
        raise InputError(
            f"{url}: cannot be reached ({_cause(error)}); check the network, or fetch the file with a "
            "browser and pass it with --archive"
        ) from None
    size = answer.headers.get("Content-Length", "")
    return int(size) if size.isdigit() else None


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a `.tar`, `.tar.gz` or `.zip` archive into a folder that appears whole or not at all.

    Args:
        archive: every name in it is checked before anything is written.
        folder: what is there already is left as it is, and nothing is unpacked.

    Returns:
        `folder`.

    Raises:
        InputError: unreadable archive; a member with an absolute path, a `..`, a link or a device; no room.

    Example:
        >>> unpack("IXI-T2.tar", "data/ixi-t2")  # doctest: +SKIP
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        _extract(archive, partial)
        partial.rename(folder)
    except _ARCHIVE_ERRORS as error:
        raise InputError(f"{archive}: not a whole .tar or .zip archive ({error}); download it again") from None
    except OSError as error:
        raise InputError(
            f"{archive}: cannot be unpacked into {folder} ({error.strerror or error}); check the path "
            "of the archive and the room on the disk"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _append(url: str, stream: BinaryIO, progress: bool) -> None:
    """Write what is missing of a remote file at the end of `stream`."""
    start = stream.seek(0, os.SEEK_END)

    def start_anew_if_whole(response: requests.Response, **_: object) -> None:
        if response.status_code == 200:  # a server that knows no ranges sends everything
            stream.truncate(0)

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    download = pooch.HTTPDownloader(
        progressbar=progress, chunk_size=1 << 16, headers=headers, hooks={"response": start_anew_if_whole}
    )
    try:
        download(url, stream, None)
    except requests.HTTPError as error:
        if not (
            start and error.response is not None and error.response.status_code == 416
        ):  # 416: nothing is missing, the checksum decides
            raise


def _hash_is(path: Path, known_hash: str) -> bool:
    """Whether a file has this checksum or, where there is none, is a zip archive to its end."""
    if not known_hash:
        return zipfile.is_zipfile(path)
    algorithm, _, digest = known_hash.partition(":")
    return pooch.file_hash(str(path), alg=algorithm) == digest.lower()


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for item in opened.infolist():
                _check_member(
                    archive, item.filename, stat.S_IFMT(item.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                )
            opened.extractall(folder)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            _check_member(archive, member.name, member.isfile() or member.isdir())
        opened.extractall(folder, filter="data")


def _check_member(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not plain:
        raise InputError(
            f"{archive}: its member {name!r} is a link or leads out of the folder; nothing was unpacked, "
            "get the archive from its publisher"
        )


def _cause(error: Exception) -> str:
    """The innermost reason of an error of requests, which wrap each other."""
    while error.__context__ is not None:
        error = error.__context__  # type: ignore[assignment]
    return (str(error).splitlines() or [type(error).__name__])[0]
