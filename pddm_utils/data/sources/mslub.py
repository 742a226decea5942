"""MSLUB: two patients with multiple sclerosis, skull-stripped, with lesion masks agreed by three raters."""

from __future__ import annotations

from pathlib import Path

from pddm_utils.data.manifest import ManifestRow, check_rows
from pddm_utils.data.scan import CONTRASTS

FOLDER = "mslub-mni"
PATIENTS = ("07", "19")


def mslub_rows(root: str | Path, contrast: str) -> list[ManifestRow]:
    """List the `mslub-mni` scans of one contrast: patients 07 and 19, both in the test split.

    Args:
        root: folder that holds `mslub-mni/`.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Returns:
        Two manifest rows of the data set `mslub-<contrast>`; the brain is where the skull-stripped image has
        values.

    Raises:
        InputError: a file is missing.
        ValueError: unknown contrast.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    folder = Path(root).resolve() / FOLDER
    rows = [
        ManifestRow(
            subject=f"mslub-{patient}",
            image=str(folder / f"patient{patient}" / f"{contrast}.nii.gz"),
            brain_mask="",
            lesion_mask=str(folder / f"patient{patient}" / "lesion_consensus.nii.gz"),
            split="test",
            dataset=f"mslub-{contrast.lower()}",
            contrast=contrast,
        )
        for patient in PATIENTS
    ]
    check_rows(rows, source=folder)
    return rows
