"""A BIDS folder: your own data under the names of the Brain Imaging Data Structure."""

from __future__ import annotations

import re
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import SPLITS, ManifestRow
from pddm_utils.data.sources.common import check_contrast, finish, nifti_stem, read_table

_SUFFIX = {"T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR"}
_ENTITY = re.compile(r"(sub|ses)-([A-Za-z0-9]+)")


def bids_rows(folder: str | Path, contrast: str) -> list[ManifestRow]:
    """List the anatomical scans of one contrast.

    The data set is `<folder>-<contrast>`, with `-ses-<label>` behind it where there are sessions. Scans are
    `sub-<label>[/ses-<label>]/anat/*_{T1w,T2w,FLAIR}.nii[.gz]`. Masks on the scan's grid are looked for below
    `derivatives/`, under the scan's name without its suffix: `..._desc-brain_mask.nii.gz` (none: the scan counts as
    skull-stripped) and `..._label-lesion_mask.nii.gz` (none: healthy). The split of a subject is the column `split`
    of `participants.tsv` (`train`, `val`, `test`); without that column all are `test`.

    Args:
        folder: root of the data set.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Raises:
        InputError: no scan found, several runs of one scan, or a participant without split.
    """
    suffix = _SUFFIX[check_contrast(contrast)]
    folder = Path(folder).resolve()
    split = _splits(folder / "participants.tsv")
    rows = []
    for image in sorted(path for part in ("*", "*/ses-*") for path in folder.glob(f"sub-{part}/anat/*_{suffix}.nii*")):
        entities = dict(_ENTITY.findall(image.name))
        subject = f"sub-{entities['sub']}"
        if split is not None and split.get(subject) not in SPLITS:
            raise InputError(f"{folder / 'participants.tsv'}: no split for {subject}; write train, val or test")
        session = f"-ses-{entities['ses']}" if "ses" in entities else ""
        stem = nifti_stem(image).removesuffix(f"_{suffix}")
        rows.append(
            ManifestRow(
                subject,
                str(image),
                _derived(folder, stem, "desc-brain_mask"),
                _derived(folder, stem, "label-lesion_mask"),
                split[subject] if split else "test",
                f"{folder.name}-{contrast.lower()}{session}",
                contrast,
            )
        )
    return finish(rows, folder, f"sub-01/anat/sub-01_{suffix}.nii.gz")


def _splits(participants: Path) -> dict[str, str] | None:
    if not participants.is_file():
        return None
    records = read_table(participants, ["participant_id"], delimiter="\t")
    return {record["participant_id"]: record["split"] for record in records} if "split" in records[0] else None


def _derived(folder: Path, stem: str, ending: str) -> str:
    found = sorted((folder / "derivatives").rglob(f"{stem}_{ending}.nii*"))
    if len(found) > 1:
        raise InputError(f"{found[1]}: a second {ending} of {stem}; keep one below derivatives/")
    return str(found[0]) if found else ""
