"""The 1,205 SOOP patients in their fixed order, and their slices as NIfTI files and manifest rows."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import cannot_write
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import QUARTILES
from pddm_utils.data.text_tables import read_table
from pddm_utils.data.volume import save_nifti

SPLIT_TABLE = Path(__file__).parent / "soop_subjects.csv"
SIZE = (189, 157)  # pixels of 1 mm; rows from anterior to posterior, columns from the patient's left to right
LESIONED, SMALL, LESION_FREE, UNUSABLE = "soop-flair", "soop-flair-small", "soop-flair-free", "unusable"
FEWEST_PIXELS = 20  # of 2 mm in a lesion of `LESIONED`; smaller ones are in `SMALL`

# Of a slice as (x, y, z) voxels to RAS mm: that of the 3-D lesion masks, from their slice 68, with x the other way.
AFFINE = np.array([[1.0, 0, 0, -78], [0, 1, 0, -112], [0, 0, 1, 18], [0, 0, 0, 1]])
LEVEL_MM = 18.0  # MNI z of the slices


def rows_below(folder: Path, limits: Mapping[tuple[str, str], int | None] | None = None) -> list[ManifestRow]:
    """Rows of the files that `write_slices` left in a folder, at most so many for each (split, data set)."""
    taken: Counter[tuple[str, str]] = Counter()
    rows = []
    for record in split_table():
        role = (record["split"], record["dataset"])
        limit = (limits or {}).get(role)
        if record["dataset"] == UNUSABLE or (limit is not None and taken[role] >= limit):
            continue
        taken[role] += 1
        image, lesion = (str(folder / f"{record['subject']}_{what}.nii.gz") for what in ("FLAIR", "lesion"))
        rows.append(row_of(record, image, "" if record["dataset"] == LESION_FREE else lesion))
    return rows


def row_of(record: Mapping[str, str], image: str, lesion: str, brain: str = "", dataset: str = "") -> ManifestRow:
    """The manifest row of a subject of `split_table`."""
    return ManifestRow(
        subject=f"soop-{record['subject']}",
        image=image,
        brain_mask=brain,
        lesion_mask=lesion,
        split=record["split"],
        dataset=dataset or record["dataset"],
        contrast="FLAIR",
        scaling=QUARTILES,
    )


def split_table() -> list[dict[str, str]]:
    """The subjects in their fixed order, with `subject`, `split`, `dataset` and `lesion_mm2` (of the slice)."""
    return read_table(SPLIT_TABLE, ("subject", "split", "dataset", "lesion_mm2"))


def check_flair(contrast: str) -> None:
    """Refuse another contrast than FLAIR.

    Raises:
        InputError: as said.
    """
    if contrast != "FLAIR":
        raise InputError(f"contrast {contrast!r}: the SOOP scans at hand are FLAIR; give --contrast FLAIR")


def write_slices(subjects: Iterable[tuple[str, np.ndarray, np.ndarray]], folder: Path, count: int) -> None:
    """Write each slice and its lesion mask as NIfTI into a folder that appears whole or not at all.

    Args:
        subjects: name, slice and mask, both `(189, 157)`, rows from anterior to posterior.
        folder: what is there already is left as it is.
        count: of the subjects, for the progress bar.
    """
    if folder.is_dir():
        return
    partial = folder.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        for name, flair, lesion in tqdm(subjects, desc="slices to NIfTI", total=count):
            save_nifti(slice_image(flair), partial / f"{name}_FLAIR.nii.gz")
            if lesion.any():
                save_nifti(slice_image(lesion), partial / f"{name}_lesion.nii.gz")
        try:
            partial.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def slice_image(values: np.ndarray) -> nib.Nifti1Image:
    """A slice `(189, 157)`, rows from anterior to posterior, as a NIfTI image of 157 x 189 x 1 voxels in MNI space."""
    image = nib.Nifti1Image(np.ascontiguousarray(values[::-1].T[..., None].astype(np.uint8)), AFFINE)
    image.header.set_sform(AFFINE, "mni")
    image.header.set_xyzt_units("mm")
    return image
