"""What several sources share: names of contrasts and files, splits by subject, and the last check of the rows."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow, check_rows
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.data.text_tables import read_table

NIFTI_ENDINGS = (".nii.gz", ".nii")
_NAMELESS = {"rawdata", "raw", "bids", "data", "dataset", "sourcedata", "nifti", "derivatives", "scans", "/"}


def check_contrast(contrast: str) -> str:
    """The contrast itself.

    Raises:
        InputError: it is none of T1, T2, FLAIR.
    """
    if contrast not in CONTRASTS:
        raise InputError(f"contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    return contrast


def nifti_stem(path: Path) -> str:
    """File name without `.nii` or `.nii.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def study_name(folder: Path) -> str:
    """Name of the study whose scans lie in a folder: the folder's, or for one such as `rawdata` that of the one above.

    Example:
        >>> study_name(Path("/studies/epilepsy/rawdata"))
        'epilepsy'
    """
    own = (part for part in reversed(folder.parts) if part.lower() not in _NAMELESS)
    return next(own, folder.name)


def hashed_split(subject: str, val: float, test: float) -> str:
    """Split of a subject that depends on its name alone, so that new subjects move nobody.

    Args:
        subject: identifier.
        val, test: shares of the subjects, on average; the rest is `train`.

    Example:
        >>> hashed_split("IXI002-Guys-0828", val=0.1, test=0.2)
        'train'
    """
    place = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8]) / 2**64
    return "test" if place < test else "val" if place < test + val else "train"


def published_split(splits: str | Path, dataset: str, fold: int = 0) -> dict[str, str]:
    """Split of each subject as the authors' CSV files state it, each subject in one split only.

    A subject in several of their files stays in the test, else the validation split, with a warning: trained and
    tested on the same person, a result would say little.

    Args:
        splits: folder with `<dataset>_train_fold<fold>.csv`, `<dataset>_val_fold<fold>.csv` (or `<dataset>_val.csv`)
            and `<dataset>_test.csv`, as in the authors' public code; not part of this project.
        dataset: `IXI`, `Brats21` or `MSLUB`.
        fold: 0 to 4, for IXI.

    Raises:
        InputError: a file is missing or has no column `img_name`.
    """
    split: dict[str, str] = {}
    shared = set()
    for name, records in split_tables(splits, dataset, fold).items():  # train, val, test: the last one stays
        for record in records:
            subject = subject_of(record["img_name"])
            if split.get(subject, name) != name:
                shared.add(subject)
            split[subject] = name
    if shared:
        warnings.warn(
            f"{splits}: {len(shared)} subject(s) of {dataset} stand in more than one split and were kept in "
            f"the test (else validation) split only: {', '.join(sorted(shared))}",
            stacklevel=2,
        )
    return split


def split_tables(
    splits: str | Path, dataset: str, fold: int = 0, columns: Sequence[str] = ("img_name",)
) -> dict[str, list[dict[str, str]]]:
    """Records of the authors' CSV files by split; IXI has a training and a validation file for each fold."""
    names = {"train": f"{dataset}_train_fold{fold}.csv", "val": f"{dataset}_val_fold{fold}.csv"}
    if dataset != "IXI":
        names = {"val": f"{dataset}_val.csv"}
    names["test"] = f"{dataset}_test.csv"
    return {split: read_table(Path(splits) / name, columns) for split, name in names.items()}


def subject_of(image_name: str) -> str:
    """Subject of a file name of the authors' tables: `IXI357-HH-2076` for `IXI357-HH-2076_t1.nii.gz`."""
    stem = nifti_stem(Path(image_name))
    return stem.rsplit("_", 1)[0] if stem.endswith(("_t1", "_t2", "_flair")) else stem


def finish(rows: list[ManifestRow], folder: Path, layout: str) -> list[ManifestRow]:
    """Rows in a fixed order, after the checks every manifest gets.

    Raises:
        InputError: there are none, or they fail `check_rows`.
    """
    if not rows:
        raise InputError(f"{folder}: no scan found; expected {layout}")
    check_rows(rows, source=folder)
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(rows, key=lambda row: (order[row.split], row.dataset, row.subject))


def find_masks(masks: Path, subjects: Collection[str]) -> dict[str, str]:
    """Mask of each subject in a folder of masks: the one NIfTI whose name starts with the subject's.

    Returns:
        Their absolute paths, by subject.

    Raises:
        InputError: a subject has none, or several.
    """
    found: dict[str, list[Path]] = {subject: [] for subject in subjects}
    lengths = {len(subject) for subject in subjects}
    for path in sorted(path for path in masks.glob("*") if path.name.endswith(NIFTI_ENDINGS)):
        stem = nifti_stem(path)
        for length in lengths:
            if stem[:length] in found and stem[length : length + 1] in ("", "_", "-", "."):
                found[stem[:length]].append(path)
    for subject, paths in found.items():
        if len(paths) != 1:
            raise InputError(f"{masks}: {len(paths)} masks of {subject}; put one there, such as {subject}_mask.nii.gz")
    return {subject: str(paths[0].absolute()) for subject, paths in found.items()}
