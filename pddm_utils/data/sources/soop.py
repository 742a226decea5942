"""SOOP: stroke patients, one axial FLAIR slice each in MNI space, with lesion masks (Absher et al. 2024).

Lesion-free slices are of patients too: they train and validate in the place of healthy scans, and are called
lesion-free.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pooch
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import QUARTILES
from pddm_utils.data.sources.common import finish
from pddm_utils.data.text_tables import read_table
from pddm_utils.data.volume import save_nifti

FOLDER = "soop-flair"
SLICES = "axial.npz"
SPLIT_TABLE = Path(__file__).parent / "soop_subjects.csv"
SIZE = (189, 157)  # pixels of 1 mm; rows from anterior to posterior, columns from the patient's left to right
LESIONED, SMALL, LESION_FREE = "soop-flair", "soop-flair-small", "soop-flair-free"
SMALLEST_LESION = 20  # pixels of 2 mm, of the main data set

# Of a slice as (x, y, z) voxels to RAS mm: that of the 3-D lesion masks, from their slice 68, with x the other way.
AFFINE = np.array([[1.0, 0, 0, -78], [0, 1, 0, -112], [0, 0, 1, 18], [0, 0, 0, 1]])


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
        root: folder that holds `soop-flair/` with its `axial.npz`.
        derived: where the slices go as NIfTI files; None for the user's folder of caches.
        train, val, val_lesion, test: keep at most so many subjects, in the order of the table: lesion-free ones to
            train and validate on, lesioned ones of `soop-flair` and as many of `soop-flair-small` to validate on, and
            those of each test set; None keeps all.

    Raises:
        InputError: the slices are not there, damaged, or lack a subject of the table.
    """
    source = Path(root).resolve() / FOLDER / SLICES
    limits = {("train", LESION_FREE): train, ("val", LESION_FREE): val}
    limits |= {("val", name): val_lesion for name in (LESIONED, SMALL)}
    limits |= {("test", name): test for name in (LESIONED, SMALL, LESION_FREE)}
    folder = _derived_folder(source, Path(derived) if derived else pooch.os_cache("pddm_utils"))
    return finish(rows_below(folder, limits), folder, f"the slices of {source}")


def rows_below(folder: Path, limits: dict[tuple[str, str], int | None]) -> list[ManifestRow]:
    """Rows of the files that `write_slices` left in a folder, at most so many for each (split, data set)."""
    rows, taken = [], dict.fromkeys(limits, 0)
    for record in read_table(SPLIT_TABLE, ("subject", "split", "dataset")):
        role = (record["split"], record["dataset"])
        limit = limits.get(role, 0)
        if limit is not None and taken.get(role, 0) >= limit:
            continue
        taken[role] += 1
        name = record["subject"]
        lesion = "" if record["dataset"] == LESION_FREE else str(folder / f"{name}_lesion.nii.gz")
        rows.append(
            ManifestRow(
                subject=f"soop-{name}",
                image=str(folder / f"{name}_FLAIR.nii.gz"),
                brain_mask="",
                lesion_mask=lesion,
                split=record["split"],
                dataset=record["dataset"],
                contrast="FLAIR",
                scaling=QUARTILES,
            )
        )
    return rows


def write_slices(subjects: Iterable[tuple[str, np.ndarray, np.ndarray]], folder: Path) -> None:
    """Write each slice and its lesion mask as NIfTI into a folder that appears whole or not at all.

    Args:
        subjects: name, slice and mask, both `(189, 157)`, rows from anterior to posterior.
        folder: what is there already is left as it is.
    """
    if folder.is_dir():
        return
    partial = folder.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        for name, flair, lesion in tqdm(subjects, desc="slices to NIfTI"):
            save_nifti(slice_image(flair), partial / f"{name}_FLAIR.nii.gz")
            if lesion.any():
                save_nifti(slice_image(lesion), partial / f"{name}_lesion.nii.gz")
        if not folder.is_dir():  # another process may have been first, with the same content
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def slice_image(values: np.ndarray) -> nib.Nifti1Image:
    """A slice `(189, 157)`, rows from anterior to posterior, as a NIfTI image of 157 x 189 x 1 voxels in MNI space."""
    image = nib.Nifti1Image(np.ascontiguousarray(values[::-1].T[..., None].astype(np.uint8)), AFFINE)
    image.header.set_sform(AFFINE, "mni")
    image.header.set_xyzt_units("mm")
    return image


def _derived_folder(source: Path, derived: Path) -> Path:
    """Folder of the slices of `axial.npz` as NIfTI files, named by its content and made when it is not there."""
    try:
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read ({error.strerror}); point PDDM_DATA at the folder that holds {FOLDER}/"
        ) from None
    folder = derived.resolve() / f"{FOLDER}-{digest}"
    if not folder.is_dir():
        write_slices(_read_slices(source), folder)
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
