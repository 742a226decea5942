"""IXI as its project publishes it: the unpacked `IXI-T1.tar` or `IXI-T2.tar`, all scans in one folder."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.sources.common import check_contrast, find_masks, finish, hashed_split, published_split

_NAME = re.compile(r"(IXI\d{3}-(?:Guys|HH|IOP)-\d{4})-(T1|T2)\.nii(?:\.gz)?")
VAL_SHARE, TEST_SHARE = 0.1, 0.25


def ixi_archive_rows(
    folder: str | Path,
    contrast: str,
    splits: str | Path | None = None,
    fold: int = 0,
    masks: str | Path | None = None,
) -> list[ManifestRow]:
    """List healthy IXI scans, such as `IXI002-Guys-0828-T2.nii.gz`, in the data set `ixi-<contrast>-healthy`.

    The scans are whole heads. Without `masks`, T1 rows ask for the fallback extraction; T2 rows have no brain mask
    and cannot be prepared before they get one.

    Args:
        folder: the unpacked archive; subfolders are searched too.
        contrast: `"T1"` or `"T2"`.
        splits: folder of the authors' split files; subjects that they do not name are left out. Without it the split
            follows from the subject's name (`hashed_split`).
        fold: of the authors' five.
        masks: folder with one brain mask a subject.

    Raises:
        InputError: no scan found, an unknown contrast, a missing mask or split file.
    """
    if check_contrast(contrast) == "FLAIR":
        raise InputError("contrast 'FLAIR'; IXI has T1 and T2")
    folder = Path(folder).resolve()
    named = published_split(splits, "IXI", fold) if splits else None
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("IXI*")):
        match = _NAME.fullmatch(path.name)
        if match and match[2] == contrast:
            found.setdefault(match[1], path)
    splits_of = {
        subject: hashed_split(subject, VAL_SHARE, TEST_SHARE) if named is None else named.get(subject, "")
        for subject in found
    }
    listed = {subject: split for subject, split in splits_of.items() if split}
    mask_of = find_masks(Path(masks), listed) if masks is not None else {}
    rows = []
    for subject, path in found.items():
        if split := listed.get(subject):
            mask = mask_of.get(subject) or (EXTRACT_BRAIN if contrast == "T1" else "")
            rows.append(ManifestRow(subject, str(path), mask, "", split, f"ixi-{contrast.lower()}-healthy", contrast))
    if named is not None and set(named) - set(found):
        warnings.warn(
            f"{folder}: no {contrast} scan of {len(set(named) - set(found))} subject(s) of the split files",
            stacklevel=2,
        )
    if contrast == "T2" and masks is None and rows:
        warnings.warn(f"{folder}: IXI T2 scans are whole heads; they need brain masks to be prepared", stacklevel=2)
    return finish(rows, folder, f"files such as IXI002-Guys-0828-{contrast}.nii.gz")
