"""The simulated cohort as manifest rows: one block of subject numbers for each role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow, inserted
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.lesion_donors import DONOR_KINDS, donor_files

# First subject number of each role. A role never outgrows its block, so splits stay disjoint, and a smaller
# cohort is a prefix of a larger one. Lesion seeds equal the subject number, so they are disjoint as well.
BLOCK = 10_000
FIRST_SUBJECT = {
    ("train", "healthy"): 0,
    ("val", "healthy"): 100_000,
    ("val", "tumour"): 110_000,
    ("val", "ms"): 120_000,
    ("test", "healthy"): 200_000,
    ("test", "tumour"): 210_000,
    ("test", "ms"): 220_000,
    ("val", "real-shape"): 130_000,
    ("test", "real-shape"): 230_000,
}


def simulated_rows(
    contrast: str,
    train: int,
    val_healthy: int,
    val_lesioned: int,
    test: int,
    lesion_kinds: Sequence[str] = ("tumour", "ms"),
    root: Path | None = None,
) -> list[ManifestRow]:
    """List the simulated cohort in one contrast; nothing is simulated until a row is loaded.

    Args:
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        train: number of healthy training subjects.
        val_healthy: number of healthy validation subjects.
        val_lesioned: number of validation subjects for each kind of lesion (different subjects).
        test: number of test subjects, healthy and for each kind of lesion (different subjects).
        lesion_kinds: from `tumour`, `ms` and `real-shape`.
        root: folder of the real masks that `real-shape` lesions take their shape from.

    Returns:
        Rows whose image is `simulated:<subject number>`; lesioned ones carry `insert:<kind>:<seed>`. Every
        subject number belongs to one split and one data set, every lesion seed to one subject.

    Raises:
        InputError: a kind that the cohort does not have, or a mask that is not there.
        ValueError: for an unknown contrast, or a count below 0 or above the block of its role.

    Example:
        >>> simulated_rows("T2", 1, 0, 0, 0)[0].dataset
        'simulated-t2-healthy'
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    kinds = {kind for _, kind in FIRST_SUBJECT} - {"healthy"}
    if unknown := sorted(set(lesion_kinds) - kinds):
        raise InputError(f"setting lesion_kinds: {unknown[0]} lesions go into the cohort ixi only; leave it out")
    counts = {split: {"healthy": n} for split, n in (("train", train), ("val", val_healthy), ("test", test))}
    for split, lesioned in (("val", val_lesioned), ("test", test)):
        counts[split] |= dict.fromkeys(lesion_kinds, lesioned)
    rows = []
    for split, kind in FIRST_SUBJECT:
        count = counts[split].get(kind, 0)
        if not 0 <= count <= BLOCK:
            raise ValueError(f"{count} {split} subjects ({kind}): the count must be between 0 and {BLOCK}")
        masks = donor_files(root or require_data_root(), kind, split, count) if count and kind in DONOR_KINDS else []
        for place, number in enumerate(range(FIRST_SUBJECT[split, kind], FIRST_SUBJECT[split, kind] + count)):
            rows.append(
                ManifestRow(
                    subject=f"simulated-{number:06d}",
                    image=f"simulated:{number}",
                    brain_mask="",
                    lesion_mask="" if kind == "healthy" else inserted(kind, number, *masks[place : place + 1]),
                    split=split,
                    dataset=f"simulated-{contrast.lower()}-{kind}",
                    contrast=contrast,
                )
            )
    return rows
