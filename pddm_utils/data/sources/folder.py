"""A plain folder of NIfTI files with a CSV that says what is what."""

from __future__ import annotations

from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import user_path
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow, contrast_named
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.data.sources.common import check_contrast, finish, nifti_stem, study_name
from pddm_utils.data.text_tables import read_table

TABLE = "scans.csv"


def folder_rows(folder: str | Path, contrast: str) -> list[ManifestRow]:
    """List the scans that `scans.csv` in the folder names.

    Only the column `image` is needed. Further ones are those of a manifest; what is left out is filled in: `subject`
    is the file's name without ending, `split` is `test`, `dataset` is `<study>-<contrast>` (`study_name`) with
    `-healthy` behind it for scans without a lesion, `contrast` is the argument. Rows of other contrasts are left out.

    Args:
        folder: holds `scans.csv`; paths in it are relative to the folder.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Raises:
        InputError: no such table, a contrast that is none, a file that is not there, or a subject in two splits.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    rows = []
    for record in read_table(folder / TABLE, ["image"]):
        named = contrast_named(record.get("contrast") or contrast)
        if named not in CONTRASTS:
            raise InputError(
                f"{folder / TABLE}: {record['image']}: unknown contrast {named!r}; use one of {', '.join(CONTRASTS)}, "
                "or take the row out"
            )
        if named != contrast:
            continue
        lesion = _place(folder, record.get("lesion_mask", ""))
        dataset = f"{study_name(folder)}-{contrast.lower()}" + ("" if lesion else "-healthy")
        rows.append(
            ManifestRow(
                subject=record.get("subject") or nifti_stem(Path(record["image"])),
                image=_place(folder, record["image"]),
                brain_mask=_place(folder, record.get("brain_mask", "")),
                lesion_mask=lesion,
                split=(record.get("split") or "test").lower(),
                dataset=record.get("dataset") or dataset,
                contrast=contrast,
            )
        )
    return finish(rows, folder, f"a row of {TABLE} with the contrast {contrast}")


def _place(folder: Path, value: str) -> str:
    special = not value or value == EXTRACT_BRAIN or value.startswith("insert:")
    return value if special else str(folder / user_path(value))
