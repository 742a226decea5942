"""MSLUB as its laboratory publishes it, and in the two layouts of the `open_ms_data` copy."""

from __future__ import annotations

import re
from pathlib import Path

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import check_contrast, finish

# The published experiment's validation patients; the other 20 are for testing.
VALIDATION = ("01", "03", "05", "15", "17", "18", "20", "22", "28", "29")
_FOLDER = re.compile(r"patient(\d{2})")
_WEIGHTED = {"T1": "T1W", "T2": "T2W", "FLAIR": "FLAIR"}
_MNI = "N4_noneck_reduced_winsor_regtoFLAIR"


def mslub_archive_rows(folder: str | Path, contrast: str) -> list[ManifestRow]:
    """List the patients in the data set `mslub-<contrast>`.

    Layouts, told apart by their files (`NN` is 01 to 30):

    * archive: `patientNN/patientNN_{T1W,T2W,FLAIR,brainmask,consensus_gt}.nii.gz`, registered to the FLAIR; the scans
      in `raw/` lie on other grids than the masks and are not used;
    * `open_ms_data/cross_sectional/coregistered`: the same with or without the prefix `patientNN_`;
    * `open_ms_data/cross_sectional/MNI`: skull-stripped, in MNI space, names ending in `regtoMNI.nii.gz`.

    Args:
        folder: holds the patients' folders.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Raises:
        InputError: no patient found, or one without scan or masks.
    """
    check_contrast(contrast)
    folder = Path(folder).resolve()
    rows = []
    for patient in sorted(path for path in folder.glob("patient*") if path.is_dir()):
        match = _FOLDER.fullmatch(patient.name)
        if match:
            image, brain, lesion = _files(patient, contrast)
            split = "val" if match[1] in VALIDATION else "test"
            rows.append(
                ManifestRow(
                    f"mslub-{match[1]}",
                    str(image),
                    str(brain or ""),
                    str(lesion),
                    split,
                    f"mslub-{contrast.lower()}",
                    contrast,
                )
            )
    return finish(rows, folder, f"patient01/patient01_{_WEIGHTED[contrast]}.nii.gz or the layout of open_ms_data")


def _files(patient: Path, contrast: str) -> tuple[Path, Path | None, Path]:
    """Scan, brain mask (None: skull-stripped) and lesion mask of a patient."""
    lesion = patient / f"GOLD_STANDARD_{_MNI}_regtoMNI.nii.gz"
    if lesion.is_file():
        return patient / f"{contrast}_{_MNI}_brain_N4_regtoMNI.nii.gz", None, lesion
    names = (_WEIGHTED[contrast], "brainmask", "consensus_gt")
    image, brain, lesion = (_with_or_without_prefix(patient, name) for name in names)
    return image, brain, lesion


def _with_or_without_prefix(patient: Path, name: str) -> Path:
    plain = patient / f"{name}.nii.gz"
    return plain if plain.is_file() else patient / f"{patient.name}_{name}.nii.gz"
