"""IXI: healthy T1-weighted scans at 2 mm with brain labels, also with inserted lesions of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import LESION_KINDS
from pddm_utils.data.manifest import AGAIN, SPLITS, ManifestRow, check_rows, inserted
from pddm_utils.data.sources.lesion_donors import DONOR_KINDS, donor_files
from pddm_utils.data.text_tables import read_table

FOLDER = "ixi-t1-2mm"

# Disjoint lesion seeds: a block for each split and kind, in it the subject's place in the sorted list, and the same
# from half of the block on for second insertions. The first kinds have the first blocks: they were there before.
_FIRST_SEED = 2_000_000
_SEED_BLOCK = 10_000
_FIRST_KINDS = ("tumour", "ms")


def ixi_rows(
    root: str | Path,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    lesion_kinds: Sequence[str] = _FIRST_KINDS,
    val_lesion: int | None = None,
) -> list[ManifestRow]:
    """List the `ixi-t1-2mm` scans: healthy ones of every split, and copies with lesions in val and test.

    Data sets: `ixi-t1-healthy` (train, val, test) and for each kind `ixi-t1-<kind>` (val and test: the same subjects
    with an inserted lesion). Splits are those of `subjects.csv` (train 109, val 15, test 57); unassigned subjects are
    left out. Each subject's lesion seed, mask and foreign scan are fixed: they do not depend on the limits. A foreign
    patch comes from another subject of the same split.

    Args:
        root: folder that holds `ixi-t1-2mm/`.
        train, val, test: keep only the first so many subjects (sorted by name) of a split; None keeps all.
        lesion_kinds: which lesions to insert, from `LESION_KINDS`; may be empty.
        val_lesion: so many validation scans with a lesion of each kind; beyond the number of subjects, each gets a
            second lesion, in the data set `ixi-t1-<kind>-again`, and no third. None is one lesion a subject.

    Returns:
        Manifest rows sorted by split, data set and subject.

    Raises:
        InputError: the folder, its `subjects.csv` or one of its scans is missing.
        ValueError: unknown lesion kind or negative limit.
    """
    limits = {"train": train, "val": val, "test": test}
    unknown = sorted(set(lesion_kinds) - set(LESION_KINDS))
    if unknown:
        raise ValueError(f"unknown lesion kind {unknown[0]!r}; use {', '.join(LESION_KINDS)}")
    if any(limit is not None and limit < 0 for limit in limits.values()):
        raise ValueError(f"limits must not be negative: {limits}")
    folder = Path(root).resolve() / FOLDER
    subjects = _read_subjects(folder / "subjects.csv")
    rows = []
    for split in SPLITS:
        healthy = [_healthy_row(folder, subject, split) for subject in subjects[split][: limits[split]]]
        rows += healthy
        if split != "train":
            everybody = [_healthy_row(folder, subject, split) for subject in subjects[split]]
            count = len(healthy) if split == "test" or val_lesion is None else val_lesion
            for kind in lesion_kinds:
                rows += _lesioned_rows(Path(root), kind, healthy, everybody, count)
    check_rows(rows, source=folder)
    return rows


def _lesioned_rows(
    root: Path, kind: str, healthy: Sequence[ManifestRow], everybody: Sequence[ManifestRow], count: int
) -> list[ManifestRow]:
    """So many copies of a split's healthy scans with a lesion of one kind, two of a scan at most."""
    split = everybody[0].split if everybody else ""
    masks = donor_files(root, kind, split, 2 * len(everybody)) if kind in DONOR_KINDS else []
    rows = []
    for number in range(min(count, 2 * len(healthy))):
        again, place = divmod(number, len(healthy))
        row, lesion = healthy[place], again * len(everybody) + place
        donors: tuple[str | Path, ...] = tuple(masks[lesion : lesion + 1])
        if kind == "foreign-patch":
            other = everybody[(place + 1 + 6 * again) % len(everybody)]
            donors = (other.image, other.brain_mask)
        seed = _seed(split, kind, place + again * _SEED_BLOCK // 2)
        dataset = f"ixi-t1-{kind}" + (AGAIN if again else "")
        rows.append(replace(row, dataset=dataset, lesion_mask=inserted(kind, seed, *donors)))
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
    if kind in _FIRST_KINDS:
        block = SPLITS.index(split) * len(_FIRST_KINDS) + _FIRST_KINDS.index(kind)
    else:
        block = LESION_KINDS.index(kind) * len(SPLITS) + SPLITS.index(split)
    return _FIRST_SEED + block * _SEED_BLOCK + place
