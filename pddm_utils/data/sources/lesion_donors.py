"""Real lesion masks that lend their shape and place to inserted lesions: who lends to which split, fixed now.

Strokes come from SOOP patients whose own scans train or validate, never test, and multiple sclerosis lesions from
MSLUB patients who are no test scan here. Half as many patients lend to validation as to test insertions, and nobody
to both.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.text_tables import read_table

DONOR_TABLE = Path(__file__).parent / "lesion_donors.csv"
COLUMNS = ("kind", "split", "size", "subject", "ml")
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
