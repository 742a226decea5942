"""BraTS 2021 as the challenge publishes it: a folder for each patient, skull-stripped, with a label map."""

from __future__ import annotations

import warnings
from pathlib import Path

from tqdm.auto import tqdm

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import check_contrast, finish, hashed_split, published_split
from pddm_utils.data.sources.derived import lesion_union

LABELS = (1, 2, 4)  # necrotic core, oedema, enhancing tumour
VAL_SHARE = 0.08  # about the published 100 of 1,251


def brats_rows(
    folder: str | Path, contrast: str, derived: str | Path, splits: str | Path | None = None
) -> list[ManifestRow]:
    """List BraTS 2021 patients for validation and test in the data set `brats21-<contrast>`.

    Args:
        folder: the unpacked training archive: `BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz`, at any
            depth. Patients without `_seg` are left out.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        derived: where the lesion masks (labels 1, 2 and 4 made one) are written, once for each content of a label map.
        splits: folder of the authors' split files; patients that they do not name are left out. Without it the split
            follows from the patient's name.

    Raises:
        InputError: no patient found, or a label map with other labels.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    named = published_split(splits, "Brats21") if splits else None
    rows, unlabelled = [], 0
    for image in tqdm(sorted(folder.rglob(f"BraTS2021_*_{contrast.lower()}.nii.gz")), desc="lesion masks"):
        subject = image.parent.name
        labels = image.with_name(f"{subject}_seg.nii.gz")
        split = hashed_split(subject, VAL_SHARE, 1 - VAL_SHARE) if named is None else named.get(subject)
        if not labels.is_file():
            unlabelled += 1
        elif split:
            lesion = lesion_union(labels, Path(derived).resolve() / f"{subject}_lesion", LABELS)
            rows.append(ManifestRow(subject, str(image), "", lesion, split, f"brats21-{contrast.lower()}", contrast))
    if unlabelled:
        warnings.warn(f"{folder}: {unlabelled} patient(s) without a label map left out", stacklevel=2)
    return finish(rows, folder, f"BraTS2021_00000/BraTS2021_00000_{contrast.lower()}.nii.gz and ..._seg.nii.gz")
