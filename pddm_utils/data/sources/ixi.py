"""IXI: healthy T1-weighted scans at 2 mm with brain labels, also with inserted lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import LESION_KINDS, SPLITS, ManifestRow, check_rows
from pddm_utils.data.text_tables import read_table

FOLDER = "ixi-t1-2mm"

# Disjoint lesion seeds: a block for each split and kind, in it the subject's place in the sorted list.
_FIRST_SEED = 2_000_000
_SEED_BLOCK = 10_000


def ixi_rows(
    root: str | Path,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    lesion_kinds: Sequence[str] = LESION_KINDS,
) -> list[ManifestRow]:
    """List the `ixi-t1-2mm` scans: healthy ones of every split, and copies with lesions in val and test.

    Data sets: `ixi-t1-healthy` (train, val, test) and `ixi-t1-tumour`, `ixi-t1-ms` (val and test: the same
    subjects with an inserted lesion). Splits are those of `subjects.csv` (train 109, val 15, test 57);
    unassigned subjects are left out. Each subject's lesion seed is fixed: it does not depend on the limits.

    Args:
        root: folder that holds `ixi-t1-2mm/`.
        train, val, test: keep only the first so many subjects (sorted by name) of a split; None keeps all.
        lesion_kinds: which lesions to insert, from `("tumour", "ms")`; may be empty.

    Returns:
        Manifest rows sorted by split, data set and subject.

    Raises:
        InputError: the folder, its `subjects.csv` or one of its scans is missing.
        ValueError: unknown lesion kind or negative limit.
    """
    limits = {"train": train, "val": val, "test": test}
    unknown = sorted(set(lesion_kinds) - set(LESION_KINDS))
    if unknown:
        raise ValueError(f"unknown lesion kind {unknown[0]!r}; use {' or '.join(LESION_KINDS)}")
    if any(limit is not None and limit < 0 for limit in limits.values()):
        raise ValueError(f"limits must not be negative: {limits}")
    folder = Path(root).resolve() / FOLDER
    subjects = _read_subjects(folder / "subjects.csv")
    rows = []
    for split in SPLITS:
        healthy = [_healthy_row(folder, subject, split) for subject in subjects[split][: limits[split]]]
        rows += healthy
        if split != "train":
            rows += [
                replace(row, dataset=f"ixi-t1-{kind}", lesion_mask=f"insert:{kind}:{_seed(split, kind, place)}")
                for kind in lesion_kinds
                for place, row in enumerate(healthy)
            ]
    check_rows(rows, source=folder)
    return rows


def _read_subjects(path: Path) -> dict[str, list[str]]:
    """Sorted subject names of each split."""
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file); point PDDM_DATA at the folder that holds {FOLDER}/")
    records = read_table(path, ("subject", "split"))
    return {split: sorted(record["subject"] for record in records if record["split"] == split) for split in SPLITS}


def _healthy_row(folder: Path, subject: str, split: str) -> ManifestRow:
    return ManifestRow(
        subject=subject,
        image=str(folder / "T1" / f"{subject}_T1.nii.gz"),
        brain_mask=str(folder / "DLMUSE" / f"{subject}_T1_DLMUSE.nii.gz"),
        lesion_mask="",
        split=split,
        dataset="ixi-t1-healthy",
        contrast="T1",
    )


def _seed(split: str, kind: str, place: int) -> int:
    block = SPLITS.index(split) * len(LESION_KINDS) + LESION_KINDS.index(kind)
    return _FIRST_SEED + block * _SEED_BLOCK + place
