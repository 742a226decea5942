"""SOOP: stroke patients, one axial FLAIR slice each in MNI space, with lesion masks (Absher et al. 2024).

Lesion-free slices are of patients too: they train and validate in the place of healthy scans, and are called
lesion-free.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import finish
from pddm_utils.data.sources.soop_table import LESION_FREE, LESIONED, SIZE, SMALL, rows_below, write_slices

FOLDER = "soop-flair"
SLICES = "axial.npz"
ARCHIVE = "soop"  # where `fetch soop` unpacks it


def soop_rows(
    root: str | Path,
    derived: str | Path | None = None,
    train: int | None = None,
    val: int | None = None,
    val_lesion: int | None = None,
    test: int | None = None,
) -> list[ManifestRow]:
    """List the slices in the splits that `soop_subjects.csv` of the package fixes.

    Data sets: `soop-flair-free` (train, val, test) has no lesion in the slice, `soop-flair` (val, test) at least 20
    lesion pixels of 2 mm, `soop-flair-small` fewer. A lesion of which the preparation leaves no pixel, or that lies
    outside the brain for the most part, is in none (`unusable` in the table).

    Args:
        root: folder that holds `soop-flair/axial.npz`, or the unpacked archive as `soop/`.
        derived: where the slices go as NIfTI files; None for the user's folder of caches.
        train, val, val_lesion, test: keep at most so many subjects, in the order of the table: lesion-free ones to
            train and validate on, lesioned ones of `soop-flair` and as many of `soop-flair-small` to validate on, and
            those of each test set; None keeps all.

    Raises:
        InputError: the slices are not there, damaged, or lack a subject of the table.
    """
    # Late: where packed scans are taken there is neither.
    import pooch

    from pddm_utils.data.sources.soop_archive import archive_slices

    source = Path(root).resolve() / FOLDER / SLICES
    limits = {("train", LESION_FREE): train, ("val", LESION_FREE): val}
    limits |= {("val", name): val_lesion for name in (LESIONED, SMALL)}
    limits |= {("test", name): test for name in (LESIONED, SMALL, LESION_FREE)}
    place = Path(derived) if derived else pooch.os_cache("pddm_utils")
    archive = Path(root).resolve() / ARCHIVE
    if archive.is_dir() and not source.exists():
        folder = archive_slices(archive, place)
    else:
        folder = _derived_folder(source, place)
    return finish(rows_below(folder, limits), folder, f"the slices of {source}")


def _derived_folder(source: Path, derived: Path) -> Path:
    """Folder of the slices of `axial.npz` as NIfTI files, named by its content and made when it is not there."""
    try:
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read ({error.strerror}); point PDDM_DATA at the folder that holds {FOLDER}/, or "
            f"bring the archive there as {ARCHIVE}/: python -m pddm_utils fetch soop --data FOLDER"
        ) from None
    folder = derived.resolve() / f"{FOLDER}-{digest}"
    if not folder.is_dir():
        slices = _read_slices(source)
        write_slices(slices, folder, len(slices))
    return folder


def _read_slices(source: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    try:
        with np.load(source, allow_pickle=False) as arrays:
            subjects, flair, lesion = (arrays[name] for name in ("subject", "flair", "lesion"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: no table of slices ({error}); copy it again") from None
    if flair.shape != (len(subjects), *SIZE) or lesion.shape != flair.shape:
        raise InputError(f"{source}: slices of shape {flair.shape[1:]}, not {SIZE}; copy it again")
    return [(f"sub-{name}", image, mask) for name, image, mask in zip(subjects, flair, lesion, strict=True)]
