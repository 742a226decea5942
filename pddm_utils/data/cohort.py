"""Which scans a profile trains, validates and tests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.manifest import ManifestRow, check_rows, read_manifest
from pddm_utils.data.sources import data_root, require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.mslub import FOLDER as MSLUB_FOLDER
from pddm_utils.data.sources.mslub import mslub_rows
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.data.sources.soop import soop_rows

MSLUB_CONTRASTS = {"mslub-t1": "T1", "mslub-t2": "T2", "mslub-flair": "FLAIR"}


def cohort_rows(settings: Settings) -> list[ManifestRow]:
    """All manifest rows of a profile.

    Args:
        settings: the profile. IXI and SOOP need `PDDM_DATA`; extra test sets of real scans are left out of a simulated
            cohort when they are not there (see `missing_test_sets`).

    Raises:
        InputError: real scans are needed and not there, an unknown test set, or a subject in two splits.
    """
    if settings.cohort == "ixi":
        rows = ixi_rows(
            require_data_root(),
            settings.train_subjects,
            settings.val_subjects,
            settings.test_subjects,
            settings.lesion_kinds,
            settings.val_lesion_subjects,
        )
        train = sum(row.split == "train" for row in rows)
        if train < settings.train_subjects:
            raise InputError(f"setting train_subjects={settings.train_subjects}; there are {train}")
    elif settings.cohort == "soop":
        rows = soop_rows(
            require_data_root(),
            train=settings.train_subjects,
            val=settings.val_subjects,
            val_lesion=settings.val_lesion_subjects,
            test=settings.test_subjects,
        )
    elif settings.cohort == "manifest":
        rows = _manifest_rows(settings)
    else:
        rows = simulated_rows(
            settings.contrast,
            settings.train_subjects,
            settings.val_subjects,
            settings.val_lesion_subjects,
            settings.test_subjects,
            settings.lesion_kinds,
        )
    for name in settings.extra_test_sets:
        if name not in MSLUB_CONTRASTS:
            raise InputError(f"setting extra_test_sets: {name!r}; choose among {', '.join(MSLUB_CONTRASTS)}")
        if name not in missing_test_sets(settings):
            rows += mslub_rows(require_data_root(), MSLUB_CONTRASTS[name])
    check_rows(rows, source=f"profile {settings.profile}")
    return rows


def _manifest_rows(settings: Settings) -> list[ManifestRow]:
    """Rows of the profile's own manifest in its contrast, the first so many of each split and data set."""
    limits = {
        ("train", False): settings.train_subjects,
        ("val", False): settings.val_subjects,
        ("val", True): settings.val_lesion_subjects,
        ("test", False): settings.test_subjects,
        ("test", True): settings.test_subjects,
    }
    taken: Counter[tuple] = Counter()
    rows = []
    for row in read_manifest(settings.manifest):
        role = (row.split, bool(row.lesion_mask))
        if row.contrast == settings.contrast and taken[role, row.dataset] < limits.get(role, 0):
            taken[role, row.dataset] += 1
            rows.append(row)
    for split in ("train", "val"):
        if not any(row.split == split and not row.lesion_mask for row in rows):
            raise InputError(f"{settings.manifest}: no healthy {settings.contrast} scan with split {split}; add some")
    return rows


def fold_rows(rows: Sequence[ManifestRow], fold: int, folds: int) -> list[ManifestRow]:
    """One fold of a cross-validation over the healthy subjects; test scans and scans with a lesion stay as they are.

    Healthy training and validation subjects are taken together. In name order, every `folds`-th one, from number `fold`
    on, is for validation, so each is in exactly one fold's validation split. A subject with a lesioned copy among the
    validation scans never goes to training.

    Args:
        rows: of `cohort_rows`.
        fold: 0 to `folds` - 1.
        folds: at least 2.

    Raises:
        InputError: no such fold, or fewer subjects than folds.

    Example:
        >>> rows = [ManifestRow(name, "simulated:1", "", "", "train", "mine", "T2") for name in "abcd"]
        >>> [row.split for row in fold_rows(rows, 1, 2)]
        ['train', 'val', 'train', 'val']
    """
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"fold {fold} of {folds}; use at least 2 folds, numbered from 0")
    lesioned = {row.subject for row in rows if row.lesion_mask}
    subjects = sorted({row.subject for row in rows if row.split != "test"} - lesioned)
    if len(subjects) < folds:
        raise InputError(f"{folds} folds of {len(subjects)} healthy subjects; use fewer folds or more scans")
    split = {subject: "val" if number % folds == fold else "train" for number, subject in enumerate(subjects)}
    return [replace(row, split=split.get(row.subject, row.split)) for row in rows]


def missing_test_sets(settings: Settings) -> list[str]:
    """Extra test sets that are left out of a cohort that needs no real scans: `PDDM_DATA` is not set or lacks them."""
    if settings.cohort in ("ixi", "soop"):
        return []
    root = data_root()
    return [] if root is not None and (root / MSLUB_FOLDER).is_dir() else list(settings.extra_test_sets)
