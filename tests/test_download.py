"""Downloads from a real server on this machine, and archives: interrupted, damaged, hostile."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from loopback import Loopback, serve
from pddm_utils.__main__ import main
from pddm_utils.core.errors import InputError
from pddm_utils.data.download import fetch_file, remote_size, unpack
from pddm_utils.data.sources.registry import SOURCES, RemoteFile, Source, fetch

CONTENT = bytes(range(256)) * 32_000  # 8 MB
HASH = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serve() as state:
        state.files["/scans.tar"] = CONTENT
        yield state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_arrives_whole_and_is_not_fetched_again(server: Loopback, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch_file(f"{server.url}/scans.tar", tmp_path / "new" / "scans.tar", HASH, progress=False)
        assert path.read_bytes() == CONTENT and names(path.parent) == ["scans.tar"]
    assert server.ranges == [None]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_broken_download_goes_on_where_it_was(server: Loopback, tmp_path: Path, knows_ranges: bool) -> None:
    server.break_after, server.knows_ranges = 1_500_000, knows_ranges
    with pytest.raises(InputError, match=r"the download stopped .*run the command again, it goes on at \d+ bytes"):
        fetch_file(f"{server.url}/scans.tar", tmp_path / "scans.tar", HASH, progress=False)
    there = (tmp_path / "scans.tar.part").stat().st_size
    assert names(tmp_path) == ["scans.tar.part"] and 0 < there <= 1_500_000
    server.break_after = None
    path = fetch_file(f"{server.url}/scans.tar", tmp_path / "scans.tar", HASH, progress=False)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["scans.tar"]
    assert server.ranges == [None, f"bytes={there}-"]


def test_part_that_is_already_whole_is_kept(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "scans.tar.part").write_bytes(CONTENT)
    fetch_file(f"{server.url}/scans.tar", tmp_path / "scans.tar", HASH, progress=False)
    assert names(tmp_path) == ["scans.tar"] and server.ranges == [f"bytes={len(CONTENT)}-"]


def test_wrong_checksum_is_refused_and_nothing_is_left(server: Loopback, tmp_path: Path) -> None:
    server.files["/scans.tar"] = CONTENT[:-1] + b"!"
    with pytest.raises(InputError, match="another checksum than the published md5:.*was removed"):
        fetch_file(f"{server.url}/scans.tar", tmp_path / "scans.tar", HASH, progress=False)
    assert names(tmp_path) == []


def test_another_file_under_that_name_is_never_overwritten(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "scans.tar").write_text("mine")
    with pytest.raises(InputError, match="move it away"):
        fetch_file(f"{server.url}/scans.tar", tmp_path / "scans.tar", HASH, progress=False)
    assert (tmp_path / "scans.tar").read_text() == "mine" and server.ranges == []


def test_missing_file_and_silent_server_are_one_line(server: Loopback, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.tar: the download stopped .*404"):
        fetch_file(f"{server.url}/none.tar", tmp_path / "none.tar", HASH, progress=False)
    with pytest.raises(InputError, match="cannot be reached .*404.*--archive"):
        remote_size(f"{server.url}/none.tar")
    with pytest.raises(InputError, match="cannot be reached"):
        remote_size("http://127.0.0.1:9/scans.tar")
    assert remote_size(f"{server.url}/scans.tar") == len(CONTENT)


def kill_while_downloading(server: Loopback, folder: Path, times: int) -> None:
    code = (
        f"from pddm_utils.data.download import fetch_file\n"
        f"fetch_file('{server.url}/scans.tar', {str(folder / 'scans.tar')!r}, '{HASH}', progress=False)"
    )
    server.pause = 0.05
    part, before = folder / "scans.tar.part", 0
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if part.is_file() and part.stat().st_size > before + 100_000:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert names(folder) == ["scans.tar.part"]
        assert part.stat().st_size >= before
        before = part.stat().st_size
    server.pause = 0.0
    assert fetch_file(f"{server.url}/scans.tar", folder / "scans.tar", HASH, progress=False).read_bytes() == CONTENT
    assert names(folder) == ["scans.tar"] and server.ranges[1:] != [None] * times


def test_killed_download_is_completed(server: Loopback, tmp_path: Path) -> None:
    kill_while_downloading(server, tmp_path, times=2)


def tar_of(path: Path, members: dict[str, bytes | str], mode: str = "w") -> Path:
    """An archive; a str as content makes a symbolic link to it."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            if isinstance(content, str):
                item.type, item.linkname = tarfile.SYMTYPE, content
                archive.addfile(item)
            else:
                item.size = len(content)
                archive.addfile(item, io.BytesIO(content))
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_archives_are_unpacked_whole(tmp_path: Path) -> None:
    members = {"a.nii": b"1", "deep/er/ä ö.nii": b"2"}
    archives = [
        tar_of(tmp_path / "a.tar", members),
        tar_of(tmp_path / "b.tar.gz", members, "w:gz"),
        zip_of(tmp_path / "c.zip", members),
    ]
    for number, archive in enumerate(archives):
        folder = unpack(archive, tmp_path / "out" / str(number))
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.nii")} == members
    assert names(tmp_path / "out") == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "ok/../../escaped.txt", "..\\escaped.txt"])
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_path_traversal_is_refused_before_anything_is_written(tmp_path: Path, make, name: str) -> None:
    if make is zip_of and name.startswith("..\\") and os.name != "nt":
        name = "a/" + name  # zipfile keeps the backslash inside a name
    archive = make(tmp_path / "bad", {"good.txt": b"good", name: b"bad"})
    with pytest.raises(InputError, match="leads out of the folder; nothing was unpacked"):
        unpack(archive, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*.txt")) and not (tmp_path / "deep" / "out").exists()


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "bad.tar", {"good.txt": b"good", "link": str(tmp_path)})
    with pytest.raises(InputError, match="'link' is a link"):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["bad.tar"]


@pytest.mark.parametrize("content", [b"", b"no archive", CONTENT[:5000]])
def test_damaged_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(InputError, match="not a whole .tar or .zip archive"):
        unpack(tmp_path / "bad.tar", tmp_path / "out")
    assert names(tmp_path) == ["bad.tar"]


def test_truncated_and_missing_archives_leave_nothing(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "cut.tar", {"a.nii": CONTENT})
    archive.write_bytes(archive.read_bytes()[:1_000_000])
    with pytest.raises(InputError, match="cut.tar: "):
        unpack(archive, tmp_path / "out")
    with pytest.raises(InputError, match="none.tar: "):
        unpack(tmp_path / "none.tar", tmp_path / "out")
    assert names(tmp_path) == ["cut.tar"]


def test_killed_unpacking_is_done_anew_and_what_is_there_stays(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", {f"{number:03d}.nii": CONTENT for number in range(60)})
    code = f"from pddm_utils.data.download import unpack\nunpack({str(archive)!r}, {str(tmp_path / 'out')!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while process.poll() is None and not (tmp_path / ".out.partial" / "003.nii").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".out.partial").exists() and not (tmp_path / "out").exists()
    assert len(names(unpack(archive, tmp_path / "out"))) == 60
    (tmp_path / "out" / "000.nii").write_text("mine")
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "000.nii").read_text() == "mine" and names(tmp_path) == ["a.tar", "out"]


def test_fetch_announces_downloads_and_unpacks(server: Loopback, tmp_path: Path, monkeypatch, capsys) -> None:
    content = tar_of(tmp_path / "made.tar", {"IXI002-Guys-0828-T2.nii.gz": b"scan"}).read_bytes()
    server.files["/IXI-T2.tar"], server.files["/IXI.xls"] = content, b"table"
    files = tuple(
        RemoteFile(f"{server.url}/{name}", "md5:" + hashlib.md5(server.files[f"/{name}"]).hexdigest())
        for name in ("IXI-T2.tar", "IXI.xls")
    )
    real = SOURCES["ixi-t2"]
    monkeypatch.setitem(SOURCES, "ixi-t2", Source(real.title, real.access, real.licence, real.rows, files))
    assert main(["fetch", "ixi-t2", "--data", str(tmp_path / "data")]) == 0
    told = capsys.readouterr().out
    assert told.index("licence: Creative Commons") < told.index("size:") < told.index("unpacked:")
    assert names(tmp_path / "data") == ["IXI-T2.tar", "IXI.xls", "ixi-t2"]
    assert names(tmp_path / "data" / "ixi-t2") == ["IXI002-Guys-0828-T2.nii.gz"]
    (tmp_path / "data" / "IXI-T2.tar").unlink()
    asked = len(server.ranges)
    fetch("ixi-t2", tmp_path / "data")
    assert len(server.ranges) == asked, "nothing is fetched again once it is unpacked"


def test_gated_sources_say_where_to_ask_and_take_an_archive(tmp_path: Path, capsys) -> None:
    for name, place in (("brats21", "braintumorsegmentation.org"), ("mslub", "lit.fe.uni-lj.si")):
        assert main(["fetch", name, "--data", str(tmp_path / "data")]) == 2
        assert place in capsys.readouterr().err and not (tmp_path / "data").exists()
    archive = zip_of(tmp_path / "brats.zip", {"BraTS2021_00000/BraTS2021_00000_t2.nii.gz": b"scan"})
    assert main(["fetch", "brats21", "--data", str(tmp_path / "data"), "--archive", str(archive)]) == 0
    assert names(tmp_path / "data" / "brats21") == ["BraTS2021_00000"]


def test_sources_are_listed_with_access_and_licence(capsys) -> None:
    assert main(["sources"]) == 0
    told = capsys.readouterr().out
    assert told.count("access:") == told.count("licence:") == len(SOURCES)
    assert main(["fetch", "ixi-t3", "--data", "x"]) == 2
    assert "choose one of ixi-t1, ixi-t2" in capsys.readouterr().err
    for source in SOURCES.values():
        assert all(len(file.known_hash) == len("md5:") + 32 for file in source.files if file.known_hash)


def test_a_zip_archive_without_a_published_checksum_must_be_whole(server: Loopback, tmp_path: Path) -> None:
    content = zip_of(tmp_path / "made.zip", {"a/b.txt": b"text" * 1000}).read_bytes()
    server.files["/whole.zip"], server.files["/cut.zip"] = content, content[:-40]
    path = fetch_file(f"{server.url}/whole.zip", tmp_path / "whole.zip", "", progress=False)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="is no whole zip archive, and was removed; try again later"):
        fetch_file(f"{server.url}/cut.zip", tmp_path / "cut.zip", "", progress=False)
    assert not list(tmp_path.glob("cut.zip*"))
