"""All sources by name: what they are, how to get them, and the manifest of what lies in a folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import user_path
from pddm_utils.data.download import fetch_file, remote_size, unpack
from pddm_utils.data.manifest import ManifestRow, read_manifest, write_manifest
from pddm_utils.data.sources.authors import authors_rows
from pddm_utils.data.sources.bids import bids_rows
from pddm_utils.data.sources.brats import brats_rows
from pddm_utils.data.sources.common import study_name
from pddm_utils.data.sources.decathlon import decathlon_rows
from pddm_utils.data.sources.folder import folder_rows
from pddm_utils.data.sources.ixi_archive import ixi_archive_rows
from pddm_utils.data.sources.mslub_archive import mslub_archive_rows
from pddm_utils.data.sources.soop_archive import soop_archive_rows
from pddm_utils.data.sources.soop_volumes import soop_volumes_rows


@dataclass(frozen=True)
class RemoteFile:
    """A file that may be downloaded by anyone.

    Attributes:
        url: its address.
        known_hash: its published checksum, `algorithm:hexdigest`; empty where none is published, see `fetch_file`.
        size: about how many bytes, where the server does not say.
    """

    url: str
    known_hash: str
    size: int = 0

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Choices:
    """What a manifest may be told beside the folder.

    Attributes:
        contrast: `T1`, `T2` or `FLAIR`.
        derived: folder for files that are made from the archive's, such as lesion masks.
        splits: folder of the authors' split files.
        fold: of the authors' five.
        masks: folder with one brain mask a subject.
    """

    contrast: str
    derived: Path
    splits: Path | None = None
    fold: int = 0
    masks: Path | None = None


@dataclass(frozen=True)
class Source:
    """Where scans come from.

    Attributes:
        title: what it is.
        access: how to get it.
        licence: on which terms.
        rows: lists the scans of a folder.
        files: what `fetch` downloads, the archive first; empty where a person has to ask for the data.
        options: which of `splits`, `fold`, `masks` it takes.
    """

    title: str
    access: str
    licence: str
    rows: Callable[[Path, Choices], list[ManifestRow]]
    files: tuple[RemoteFile, ...] = ()
    options: tuple[str, ...] = ()


_IXI_URL = "http://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI/"
_IXI_TABLE = RemoteFile(f"{_IXI_URL}IXI.xls", "md5:066002afe250e4375d132266fcfceac5")
_IXI_LICENCE = "Creative Commons BY-SA 3.0; name https://brain-development.org/ixi-dataset/"
_YOURS = "yours"


def _ixi(contrast: str, md5: str) -> Source:
    def rows(folder: Path, choices: Choices) -> list[ManifestRow]:
        return ixi_archive_rows(folder, contrast, choices.splits, choices.fold, choices.masks)

    title = f"IXI, {contrast}-weighted scans of healthy people, with skull"
    return Source(
        title,
        "public download",
        _IXI_LICENCE,
        rows,
        (RemoteFile(f"{_IXI_URL}IXI-{contrast}.tar", f"md5:{md5}"), _IXI_TABLE),
        ("splits", "fold", "masks"),
    )


SOURCES: dict[str, Source] = {
    "ixi-t1": _ixi("T1", "34901a0593b41dd19c1a1f746eac2d58"),
    "ixi-t2": _ixi("T2", "e3140d78730ecdd32ba92da48c0a9aaa"),
    "decathlon": Source(
        "Medical Segmentation Decathlon, Task01: brain tumours, skull-stripped",
        "public download, 7.6 GB",
        "Creative Commons BY-SA 4.0; see http://medicaldecathlon.com",
        lambda folder, choices: decathlon_rows(folder, choices.contrast, choices.derived),
        (
            RemoteFile(
                "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task01_BrainTumour.tar",
                "md5:240a19d752f0d9e9101544901065d872",
            ),
        ),
    ),
    "brats21": Source(
        "BraTS 2021 training data: brain tumours, skull-stripped",
        "register at http://braintumorsegmentation.org (Synapse syn25829067) and download it yourself",
        "the terms accepted there",
        lambda folder, choices: brats_rows(folder, choices.contrast, choices.derived, choices.splits),
        options=("splits",),
    ),
    "mslub": Source(
        "MSLUB: multiple sclerosis, with brain masks",
        "from https://lit.fe.uni-lj.si/en/research/resources/3D-MR-MS/, or the copy "
        "https://github.com/muschellij2/open_ms_data",
        "Creative Commons BY; cite Lesjak et al. 2018",
        lambda folder, choices: mslub_archive_rows(folder, choices.contrast),
    ),
    "soop": Source(
        "SOOP: 1,205 stroke patients, one axial FLAIR slice each, with lesion masks",
        "public download of the repository neurolabusc/StrokeOutcomeOptimizationProjectDemo, 165 MB",
        "CC0 (OpenNeuro ds004889); the repository BSD-2-Clause; cite Absher et al. 2024",
        lambda folder, choices: soop_archive_rows(folder, choices.contrast, choices.derived),
        (
            RemoteFile(
                "https://github.com/neurolabusc/StrokeOutcomeOptimizationProjectDemo/archive/ae553f8.zip",
                "",  # GitHub makes the archive anew; each picture is compared with its mask instead
                165_000_000,
            ),
        ),
    ),
    "soop-volumes": Source(
        "SOOP: whole FLAIR volumes of the same patients",
        "wsub-*_FLAIR.nii.gz from https://osf.io/yqktj, into one folder with the lesion masks that fetch soop brings",
        "CC0; cite Absher et al. 2024",
        lambda folder, choices: soop_volumes_rows(folder, choices.contrast, choices.derived),
    ),
    "authors": Source(
        "IXI, BraTS21 and MSLUB prepared with the paper's authors' scripts",
        "made by you with https://github.com/FinnBehrendt/patched-Diffusion-Models-UAD",
        "that of each data set",
        lambda folder, choices: authors_rows(folder, choices.contrast, choices.derived, choices.fold),
        options=("fold",),
    ),
    "bids": Source("a BIDS folder", _YOURS, _YOURS, lambda folder, choices: bids_rows(folder, choices.contrast)),
    "folder": Source(
        "a folder of NIfTI files with a scans.csv",
        _YOURS,
        _YOURS,
        lambda folder, choices: folder_rows(folder, choices.contrast),
    ),
}


def source_named(name: str) -> Source:
    """The source.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SOURCES:
        raise InputError(f"source {name!r} does not exist; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def describe(name: str) -> str:
    """Title, access and licence of a source in three lines."""
    source = source_named(name)
    return f"{name}: {source.title}\n  access:  {source.access}\n  licence: {source.licence}"


def fetch(name: str, data: str | Path, archive: str | Path | None = None) -> Path:
    """Bring a source's scans into `<data>/<name>/`: download and unpack, or unpack an archive that is there.

    Says first what will be fetched, on which terms and how large it is. Killed and started again it goes on.

    Args:
        name: of the source.
        data: folder for all data sets; the downloaded archive stays in it and may be deleted afterwards.
        archive: an archive that was downloaded by hand; nothing is downloaded then.

    Returns:
        The folder with the scans.

    Raises:
        InputError: the source cannot be downloaded without a person asking for it, or download or archive fail.
    """
    source, data = source_named(name), Path(data)
    folder = data / name
    print(describe(name), flush=True)
    if folder.exists():
        print(f"{folder} is there already; delete it to unpack it anew")
        return folder
    if archive is not None:
        return unpack(archive, folder)
    if not source.files:
        raise InputError(
            f"{name}: not downloaded by this project; {source.access}, then unpack it with --archive FILE "
            "or point the manifest command at its folder"
        )
    _check_room(source, data)
    paths = [fetch_file(file.url, data / file.name, file.known_hash) for file in source.files]
    return unpack(paths[0], folder)


def _check_room(source: Source, data: Path) -> None:
    """Say how much will come, and stop before it starts where archive and scans would not fit."""
    missing = [file for file in source.files if not (data / file.name).exists()]
    sizes = [remote_size(file.url) or file.size for file in missing]
    print(f"  size:    {sum(sizes) / 1e9:.2f} GB to download into {data}, as much again unpacked", flush=True)
    data.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(data).free, 2 * sum(sizes)
    if free < needed:
        raise InputError(f"{data}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; choose another folder")


def make_manifest(
    name: str,
    folder: str | Path,
    out: str | Path,
    contrast: str = "T2",
    splits: str | Path | None = None,
    fold: int = 0,
    masks: str | Path | None = None,
    add: bool = False,
    other_people: bool = False,
) -> list[ManifestRow]:
    """List a folder's scans and write the manifest; files made for it go to `<name>-derived/` beside it.

    Args:
        name: of the source.
        folder: where its scans lie.
        out: the CSV to write.
        contrast: `T1`, `T2` or `FLAIR`; IXI has its own.
        splits, fold, masks: see the source.
        add: keep the rows of other data sets that the CSV holds already.
        other_people: nobody here is in another data set of the CSV: the study's name joins each subject's.

    Returns:
        All rows of the written manifest.

    Raises:
        InputError: an option that the source does not take, no such layout, or a data set of that name which holds
            other scans.
    """
    source, out, folder = source_named(name), user_path(out), user_path(folder)
    given = {"splits": splits, "fold": fold or None, "masks": masks}
    for option, value in given.items():
        if value is not None and option not in source.options:
            raise InputError(f"--{option}: the source {name} takes none; leave it out")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; fetch the data first, see: python -m pddm_utils sources")
    derived = out.resolve().parent / f"{name}-derived"
    rows = source.rows(Path(folder).resolve(), Choices(contrast, derived, _path(splits), fold, _path(masks)))
    if other_people:
        rows = [replace(row, subject=f"{study_name(folder.resolve())}-{row.subject}") for row in rows]
    if add:
        rows = _added(rows, read_manifest(out), (folder.resolve(), derived), out)
    write_manifest(rows, out)
    return rows


def _path(value: str | Path | None) -> Path | None:
    return user_path(value) if value else None


def _added(rows: list[ManifestRow], old: list[ManifestRow], places: tuple[Path, Path], out: Path) -> list[ManifestRow]:
    """The rows of other data sets, then the new ones, which take the place of an earlier list of the same scans."""
    datasets = {row.dataset for row in rows}
    scans = {row.scan_id for row in rows} | {row.image for row in rows}
    replaced = [row for row in old if row.dataset in datasets]
    elsewhere = {row.scan_id for row in old if not any(Path(row.image).is_relative_to(place) for place in places)}
    foreign = [row for row in replaced if row.scan_id in elsewhere]
    if lost := foreign or [row for row in replaced if not {row.scan_id, row.image} & scans]:
        raise InputError(
            f"{out}: the data set {lost[0].dataset} is there already with {len(lost)} scan(s) that are not in "
            f"{places[0]}, such as {lost[0].image}; rename one of the folders, or write a CSV of its own with --out"
        )
    kept = [row for row in old if row.dataset not in datasets]
    people = {row.subject: row for row in kept if row.scan_id in elsewhere}
    namesakes = [(row, people[row.subject]) for row in rows if row.subject in people]
    if namesakes:
        new, known = namesakes[0]
        warnings.warn(
            f"{out}: {len(namesakes)} scan(s) are of subjects that another data set has too, such as {new.subject} in "
            f"{new.dataset} and {known.dataset}; they count as the same people. Where they are not: --other-people",
            stacklevel=3,
        )
    return kept + rows
