"""The paper's authors' folder of preprocessed scans, read as it is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import (
    check_contrast,
    finish,
    published_split,
    split_tables,
    subject_of,
)
from pddm_utils.data.sources.derived import lesion_union

_TAIL = re.compile(r"(?:Train|Test)/.+")
_DATASETS = {"IXI": "ixi-{}-healthy", "Brats21": "brats21-{}", "MSLUB": "mslub-{}"}
_LABELS = (1, 2, 4)


def authors_rows(folder: str | Path, contrast: str, derived: str | Path, fold: int = 0) -> list[ManifestRow]:
    """List IXI, BraTS21 and MSLUB from a folder prepared with the authors' scripts.

    Expected are `Train/ixi/{t2,mask}`, `Test/Brats21/{t2,mask,seg}`, `Test/MSLUB/{t2,mask,seg}` and `splits/*.csv`.
    The split files name T1 scans; other contrasts lie in the folder of their name (`t1/x_t1.nii.gz` becomes
    `t2/x_t2.nii.gz`). Scans that the files name and that are not there are left out with a warning, as are subjects
    in several splits (see `published_split`).

    Args:
        folder: the data folder, or the one around its `Data/`.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        derived: where lesion masks go that need their labels made one.
        fold: 0 to 4.

    Raises:
        InputError: no such layout, or not one scan found.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    root = folder / "Data" if (folder / "Data").is_dir() else folder
    rows: list[ManifestRow] = []
    missing = []
    for dataset, name in _DATASETS.items():
        split = published_split(root / "splits", dataset, fold)
        columns = ("img_name", "img_path", "mask_path", *(() if dataset == "IXI" else ("seg_path",)))
        for state, records in split_tables(root / "splits", dataset, fold, columns).items():
            for record in records:
                subject = subject_of(record["img_name"])
                if split[subject] != state:
                    continue
                image = _in_contrast(_below(root, record["img_path"]), contrast)
                if not image.is_file():
                    missing.append(subject)
                    continue
                lesion = ""
                if dataset != "IXI":
                    target = Path(derived).resolve() / f"{subject}_lesion"
                    lesion = lesion_union(_below(root, record["seg_path"]), target, _LABELS)
                rows.append(
                    ManifestRow(
                        subject,
                        str(image),
                        str(_below(root, record["mask_path"])),
                        lesion,
                        state,
                        name.format(contrast.lower()),
                        contrast,
                    )
                )
    if missing:
        warnings.warn(
            f"{root}: {len(missing)} scan(s) of the split files are not there in {contrast}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}",
            stacklevel=2,
        )
    return finish(rows, root, "Train/ixi/t2, Test/Brats21, Test/MSLUB and splits/*.csv")


def _below(root: Path, listed: str) -> Path:
    """A path of the split files, which may carry another machine's folders in front."""
    match = _TAIL.search(listed)
    return root / (match[0] if match else listed.lstrip("/"))


def _in_contrast(path: Path, contrast: str) -> Path:
    stem = path.name.rsplit("_", 1)[0]
    return path.parent.with_name(contrast.lower()) / f"{stem}_{contrast.lower()}.nii.gz"
