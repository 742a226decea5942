"""What several sources share: splits by subject, tables, and lesion labels made into one mask."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow, check_rows
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.data.volume import read_volume, save_nifti

NIFTI_ENDINGS = (".nii.gz", ".nii")


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


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Records of a CSV or TSV file with a header line.

    Raises:
        InputError: it cannot be read, lacks a column or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            records = list(csv.DictReader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the path and the file") from None
    missing = [column for column in columns if not records or column not in records[0]]
    if missing:
        raise InputError(f"{path}: no rows, or no column {', '.join(missing)}; check that it is the right file")
    return [{key: (value or "").strip() for key, value in record.items() if key} for record in records]


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


def split_tables(splits: str | Path, dataset: str, fold: int = 0) -> dict[str, list[dict[str, str]]]:
    """Records of the authors' CSV files by split; IXI has a training and a validation file for each fold."""
    names = {"train": f"{dataset}_train_fold{fold}.csv", "val": f"{dataset}_val_fold{fold}.csv"}
    if dataset != "IXI":
        names = {"val": f"{dataset}_val.csv"}
    names["test"] = f"{dataset}_test.csv"
    return {split: read_table(Path(splits) / name, ["img_name"]) for split, name in names.items()}


def subject_of(image_name: str) -> str:
    """Subject of a file name of the authors' tables: `IXI357-HH-2076` for `IXI357-HH-2076_t1.nii.gz`."""
    stem = nifti_stem(Path(image_name))
    return stem.rsplit("_", 1)[0] if stem.endswith(("_t1", "_t2", "_flair")) else stem


def lesion_union(labels: Path, target: Path, allowed: Iterable[int]) -> str:
    """A mask file with 1 wherever a label map is above 0, made once.

    Args:
        labels: NIfTI label map.
        target: where the mask is to lie; when it is there already nothing is done.
        allowed: labels that mean lesion; 0 is background.

    Returns:
        The path of the mask; empty when the label map holds no lesion.

    Raises:
        InputError: unreadable, or other labels than those allowed.
    """
    if target.is_file():
        return str(target)
    volume = read_volume(labels)
    found = set(np.unique(volume.data).tolist()) - {0.0}
    if not found <= set(map(float, allowed)):
        shown = ", ".join(f"{value:g}" for value in sorted(found))
        raise InputError(f"{labels}: labels {shown}; expected {', '.join(map(str, allowed))} for lesions and 0")
    if not found:
        return ""
    save_nifti(nib.Nifti1Image((volume.data > 0).astype(np.uint8), volume.affine), target)
    return str(target)


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


def find_mask(masks: str | Path | None, subject: str) -> str:
    """Mask of a subject in a folder of masks: the one NIfTI whose name starts with the subject's.

    Returns:
        Its path; empty when no folder is given.

    Raises:
        InputError: none there, or several.
    """
    if masks is None:
        return ""
    found = [
        path
        for path in sorted(Path(masks).glob("*"))
        if path.name.endswith(NIFTI_ENDINGS)
        and nifti_stem(path).removeprefix(subject)[:1] in ("", "_", "-", ".")
        and path.name.startswith(subject)
    ]
    if len(found) != 1:
        raise InputError(f"{masks}: {len(found)} masks of {subject}; put one there, such as {subject}_mask.nii.gz")
    return str(found[0].resolve())
