"""A plain folder of NIfTI files with a CSV that says what is what."""

from __future__ import annotations

from pathlib import Path

from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.sources.common import check_contrast, finish, nifti_stem, read_table

TABLE = "scans.csv"


def folder_rows(folder: str | Path, contrast: str) -> list[ManifestRow]:
    """List the scans that `scans.csv` in the folder names.

    Only the column `image` is needed. Further ones are those of a manifest; what is left out is filled in: `subject`
    is the file's name without ending, `split` is `test`, `dataset` is `<folder>-<contrast>` with `-healthy` behind it
    for scans without a lesion, `contrast` is the argument. Rows of other contrasts are left out.

    Args:
        folder: holds `scans.csv`; paths in it are relative to the folder.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Raises:
        InputError: no such table, a file that is not there, or a subject in two splits.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    rows = []
    for record in read_table(folder / TABLE, ["image"]):
        if record.get("contrast", contrast) not in ("", contrast):
            continue
        lesion = _place(folder, record.get("lesion_mask", ""))
        dataset = f"{folder.name}-{contrast.lower()}" + ("" if lesion else "-healthy")
        rows.append(
            ManifestRow(
                subject=record.get("subject") or nifti_stem(Path(record["image"])),
                image=_place(folder, record["image"]),
                brain_mask=_place(folder, record.get("brain_mask", "")),
                lesion_mask=lesion,
                split=record.get("split") or "test",
                dataset=record.get("dataset") or dataset,
                contrast=contrast,
            )
        )
    return finish(rows, folder, f"a row of {TABLE} with the contrast {contrast}")


def _place(folder: Path, value: str) -> str:
    special = not value or value == EXTRACT_BRAIN or value.startswith("insert:")
    return value if special else str(folder / Path(value).expanduser())
