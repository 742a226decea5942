"""Real lesion masks that lend their shape and place to inserted lesions: who lends to which split, fixed now.

Strokes come from SOOP patients whose own scans train or validate, never test, and multiple sclerosis lesions from
MSLUB patients who are no test scan here. Half as many patients lend to validation as to test insertions, and nobody
to both.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.sources.soop_table import split_table
from pddm_utils.data.text_tables import read_table
from pddm_utils.data.volume import read_volume

DONOR_TABLE = Path(__file__).parent / "lesion_donors.csv"
COLUMNS = ("kind", "split", "size", "subject", "ml")
SIZES = {"small": (0.5, 3.0), "medium": (3.0, 15.0), "large": (15.0, 80.0)}  # ml of a stroke, from and below
ANY_SIZE = "any"
LEAST_MS_ML = 0.8  # of all lesions of a patient with multiple sclerosis
_FILES = {
    "real-shape": ("soop-flair/NIfTI", "bwsr{}_lesion.nii.gz"),
    "real-ms": ("mslub-masks", "{}_lesion_consensus.nii.gz"),
}
DONOR_KINDS = tuple(_FILES)


def donor_files(root: str | Path, kind: str, split: str, count: int) -> list[Path]:
    """The masks that lend their shape to the first so many insertions of a split.

    Strokes go through the three sizes by turns, so that any number has as many of each; when all patients of a size or
    split have lent, the first lends again.

    Args:
        root: folder of the real scans.
        kind: `real-shape` or `real-ms`.
        split: `val` or `test`.
        count: of the insertions.

    Raises:
        InputError: a mask is not there.
    """
    folder, name = Path(root).resolve() / _FILES[kind][0], _FILES[kind][1]
    groups: dict[str, list[str]] = {}
    for record in read_table(DONOR_TABLE, COLUMNS):
        if (record["kind"], record["split"]) == (kind, split):
            groups.setdefault(record["size"], []).append(record["subject"])
    turns = [cycle(subjects) for subjects in groups.values()]
    paths = [folder / name.format(next(turns[number % len(turns)])) for number in range(count)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such lesion mask, and {kind} lesions take their shape from it; point PDDM_DATA at the "
            f"folder that holds {_FILES[kind][0]}/, or leave {kind} out of the setting lesion_kinds"
        )
    return paths


def donor_records(root: str | Path) -> list[dict[str, str]]:
    """The table of donors, made from the masks: what `lesion_donors.csv` holds.

    SOOP patients stand in their fixed order, MSLUB patients in that of their numbers; within a kind and size every
    third lends to validation insertions, the others to test insertions.
    """
    taken: dict[tuple[str, str], int] = {}
    records = []
    for kind, size, subject, ml in _candidates(Path(root)):
        number = taken[kind, size] = taken.get((kind, size), -1) + 1
        split = "val" if number % 3 == 0 else "test"
        records.append(dict(zip(COLUMNS, (kind, split, size, subject, f"{ml:.2f}"), strict=True)))
    return sorted(records, key=lambda record: (record["kind"], record["split"], record["size"]))


def _candidates(root: Path) -> Iterator[tuple[str, str, str, float]]:
    """Kind, size, subject and volume of every mask that may lend its shape."""
    for record in split_table():
        if record["split"] != "test":
            ml = _volume_ml(root, "real-shape", record["subject"])
            for size, (least, most) in SIZES.items():
                if least <= ml < most:
                    yield "real-shape", size, record["subject"], ml
    folder, name = _FILES["real-ms"]
    for path in sorted((root / folder).glob(name.format("*"))):
        subject = path.name.removesuffix(name.format(""))
        if (ml := _volume_ml(root, "real-ms", subject)) >= LEAST_MS_ML:
            yield "real-ms", ANY_SIZE, subject, ml


def _volume_ml(root: Path, kind: str, subject: str) -> float:
    """Volume of a lesion mask."""
    volume = read_volume(root / _FILES[kind][0] / _FILES[kind][1].format(subject))
    return float(np.count_nonzero(volume.data > 0) * abs(np.linalg.det(volume.affine[:3, :3])) / 1000)
