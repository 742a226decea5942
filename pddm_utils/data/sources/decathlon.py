"""Medical Segmentation Decathlon, Task01_BrainTumour: four contrasts in one 4-D file, needs no registration."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import nibabel as nib
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import check_contrast, finish, hashed_split, nifti_stem
from pddm_utils.data.sources.derived import derived_file, lesion_union
from pddm_utils.data.volume import read_volume

LABELS = (1, 2, 3)  # oedema, non-enhancing and enhancing tumour
VAL_SHARE = 0.2
_MODALITY = {"T1": "t1w", "T2": "t2w", "FLAIR": "flair"}


def decathlon_rows(folder: str | Path, contrast: str, derived: str | Path) -> list[ManifestRow]:
    """List the labelled patients for validation and test in the data set `decathlon-<contrast>`.

    The wanted contrast is taken out of each 4-D file, and labels 1 to 3 are made one lesion mask; both are written to
    `derived`, once for each content of the files. The order of the contrasts is read from `dataset.json` (published:
    FLAIR, T1w, t1gd, T2w).

    Args:
        folder: `Task01_BrainTumour`, with `dataset.json`, `imagesTr/` and `labelsTr/`, or the folder around it.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        derived: folder for the 3-D files.

    Raises:
        InputError: no such layout, a damaged file, or other labels.
    """
    check_contrast(contrast)
    folder, derived = Path(folder).resolve(), Path(derived).resolve()
    folder = folder / "Task01_BrainTumour" if (folder / "Task01_BrainTumour").is_dir() else folder
    channel, cases = _read_description(folder / "dataset.json", contrast)
    rows = []
    for case in tqdm(cases, desc=f"{contrast} volumes"):
        source, labels = folder / case["image"], folder / case["label"]
        subject = nifti_stem(source)
        volume = partial(_channel, source, channel)
        image = derived_file(source, derived / f"{subject}_{contrast}", f"channel {channel}", volume)
        lesion = lesion_union(labels, derived / f"{subject}_lesion", LABELS)
        split = hashed_split(subject, VAL_SHARE, 1 - VAL_SHARE)
        rows.append(ManifestRow(subject, image, "", lesion, split, f"decathlon-{contrast.lower()}", contrast))
    return finish(rows, folder, "imagesTr/BRATS_001.nii.gz and labelsTr/BRATS_001.nii.gz")


def _channel(path: Path, channel: int) -> nib.Nifti1Image:
    volume = read_volume(path, channel)
    return nib.Nifti1Image(volume.data, volume.affine)


def _read_description(path: Path, contrast: str) -> tuple[int, list[dict[str, str]]]:
    """Channel of the contrast, and the labelled cases, each with one path as `image` and one as `label`."""
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
        modalities = {name.lower(): int(number) for number, name in description["modality"].items()}
        channel, cases = modalities[_MODALITY[contrast]], list(description["training"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: no description of Task01_BrainTumour with {contrast} ({error!r:.200}); pass the unpacked "
            "archive's folder"
        ) from None
    return channel, [_case(path, entry) for entry in cases]


def _case(path: Path, entry: object) -> dict[str, str]:
    """One entry of `training`; lists of one path, as other tools write them, are that path."""
    case = {}
    for name in ("image", "label"):
        value = entry.get(name) if isinstance(entry, dict) else None
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, str) or "\0" in value or not value.strip():
            raise InputError(
                f"{path}: the entry {str(entry):.120} of training has no {name} that is one path; write "
                '{"image": "./imagesTr/NAME.nii.gz", "label": "./labelsTr/NAME.nii.gz"}'
            )
        if Path(value).is_absolute() and not Path(value).exists():
            raise InputError(f"{path}: an entry names {value}, which is not there; write paths below the JSON's folder")
        case[name] = value
    return case
