"""A BIDS folder: your own data under the names of the Brain Imaging Data Structure."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import SPLITS, ManifestRow
from pddm_utils.data.sources.bids_files import SUFFIXES, BidsFile, Masks, bids_files, scans_of
from pddm_utils.data.sources.common import check_contrast, finish, study_name
from pddm_utils.data.text_tables import read_table

_LEFT_OUT = "n/a"  # as a split: BIDS's word for a missing value
_GROUP_COLUMNS = (
    *("group", "diagnosis", "dx", "diagnosis_group", "patient_group", "participant_group", "clinical_group"),
    *("pathology", "disease", "condition", "patient", "health_status", "clinical_status", "status", "cohort"),
)
_HEALTHY = {
    *("control", "controls", "healthy", "healthy control", "healthy controls", "hc", "hv", "healthy volunteer"),
    *("con", "ctrl", "ctl", "cn", "nc", "normal", "normal control", "no", "none", "false"),
}


@dataclass
class _Participants:
    """What `participants.tsv` says, by `sub-<label>`.

    Attributes:
        path: the table.
        split: of each participant; None without that column.
        group: such as `patient`; empty without such a column.
    """

    path: Path
    split: dict[str, str] | None = None
    group: dict[str, str] = field(default_factory=dict)


def bids_rows(folder: str | Path, contrast: str) -> list[ManifestRow]:
    """List the anatomical scans of one contrast.

    The data set is `<study>-<contrast>` (`study_name`), with `-ses-<label>` behind it where there are sessions, and
    `-run-<label>`, `-acq-<label>` ... where a session holds several scans of the contrast. Scans are
    `sub-<label>[/ses-<label>]/anat/*_{T1w,T2w,FLAIR}.nii[.gz]`. A mask is looked for in the whole data set: of the
    scan's name, or of the same session on the scan's grid. Brain masks are named `..._desc-brain_mask` (none: the scan
    counts as skull-stripped); masks of lesions have `lesion` or `tumor` in the name, or end in `_roi`.

    The split of a subject is the column `split` of `participants.tsv` (`train`, `val`, `test`; `n/a` leaves it out);
    without that column all are `test`. A column such as `group` or `diagnosis` says who is healthy (`control`).

    Args:
        folder: root of the data set.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Raises:
        InputError: no scan found, a participant without split, lesion masks that fit no scan, or a scan for training
            or validation without a lesion mask that may be a patient's.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    people = _participants(folder / "participants.tsv")
    files = bids_files(folder)
    scans, masks = _kept(scans_of(files, folder, contrast), people), Masks(files)
    names, problems, rows = _datasets(scans, f"{study_name(folder)}-{contrast.lower()}"), [], []
    for scan in scans:
        subject = f"sub-{scan.entities['sub']}"
        split = people.split[subject] if people.split else "test"
        try:
            lesion, brain = masks.lesion_of(scan), masks.brain_of(scan)
        except InputError as error:
            problems.append(str(error))
            continue
        rows.append(ManifestRow(subject, str(scan.path), brain, lesion, split, names[scan.path], contrast))
    problems += _unclear(rows, masks, people)
    if masks.unknown:
        warnings.warn(
            f"{masks.unknown[0].path}: a mask whose name does not say of what, one of {len(masks.unknown)}; not used. "
            "Name it ..._desc-brain_mask or ..._label-lesion_mask",
            stacklevel=2,
        )
    if problems:
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError("\n  ".join(problems[:10]) + more)
    return finish(rows, folder, _expected(folder, SUFFIXES[contrast]))


def _participants(path: Path) -> _Participants:
    if not path.is_file():
        return _Participants(path)
    records = read_table(path, ["participant_id"])
    column = next((name for name in _GROUP_COLUMNS if name in records[0]), None)
    split: dict[str, str] = {}
    group: dict[str, str] = {}
    for record in records:
        subject = f"sub-{record['participant_id'].removeprefix('sub-')}"
        for name, values in (("split", split), (column, group)):
            if name in record and values.setdefault(subject, record[name].lower()) != record[name].lower():
                raise InputError(f"{path}: {subject} stands there twice, each time with another {name}; keep one")
    return _Participants(path, split if "split" in records[0] else None, group)


def _kept(scans: list[BidsFile], people: _Participants) -> list[BidsFile]:
    """The scans of participants that are not left out, each of which has a split."""
    kept = []
    for scan in scans:
        subject = f"sub-{scan.entities['sub']}"
        split = people.split.get(subject, "") if people.split is not None else "test"
        if split not in (*SPLITS, _LEFT_OUT):
            raise InputError(f"{people.path}: no split for {subject}; write train, val or test, or n/a to leave it out")
        if split != _LEFT_OUT:
            kept.append(scan)
    return kept


def _datasets(scans: list[BidsFile], name: str) -> dict[Path, str]:
    """The data set of each scan: sessions apart, and whatever else tells several scans of one session apart."""
    visits = defaultdict(list)
    for scan in scans:
        visits[scan.visit].append(scan.entities)
    telling = {"ses"}
    for several in visits.values():
        for key in {key for entities in several for key in entities}:
            if len({entities.get(key) for entities in several}) > 1:
                telling.add(key)
    return {
        scan.path: "".join([name, *(f"-{key}-{value}" for key, value in scan.entities.items() if key in telling)])
        for scan in scans
    }


def _unclear(rows: list[ManifestRow], masks: Masks, people: _Participants) -> list[str]:
    """Scans without a lesion mask that may show one: refused for training and validation, told for testing."""
    with_masks = {f"sub-{label}" for label, found in masks.lesion.items() if found}
    problems, tested = [], []
    for row in rows:
        group, sick = people.group.get(row.subject, ""), row.subject in with_masks
        if row.lesion_mask or (group in _HEALTHY and not sick) or not (people.group or with_masks):
            continue
        if row.split == "test":
            tested.append(row.subject)
            continue
        reason = f"its group is {group!r}" if people.group else "others of the data set have lesion masks"
        reason = "it has a lesion mask in another session" if sick else reason
        problems.append(
            f"{row.image}: would count as healthy for the split {row.split}, but {reason}; add its lesion mask, or "
            "write in participants.tsv control as its group, or n/a as its split"
        )
    if tested:
        warnings.warn(
            f"{people.path.parent}: {len(tested)} scan(s) for testing have no lesion mask and are not known to be "
            f"healthy; scores will count them as healthy: {', '.join(tested[:5])}{', ...' if tested[5:] else ''}",
            stacklevel=3,
        )
    return problems


def _expected(folder: Path, suffix: str) -> str:
    inner = sorted({path.parent.name for path in folder.glob("*/sub-*") if path.is_dir()} - {"derivatives"})
    hint = f"; {', '.join(inner[:3])} hold subjects: list each one, the second with --add" if inner else ""
    return f"sub-01/anat/sub-01_{suffix}.nii.gz{hint}"
