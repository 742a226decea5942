"""SOOP as its public archive has it: mosaics with the lesion drawn over the scan, and 3-D lesion masks.

A mosaic is a picture of an axial, a sagittal and a coronal slice and a rendering. Only the axial slice is used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import finish
from pddm_utils.data.sources.soop_table import SIZE, check_flair, rows_below, split_table, write_slices
from pddm_utils.data.volume import read_volume

_SLICE = 68  # of the 3-D masks: the axial slice of every mosaic
_STRONG = 96  # R - G of a pixel of 50 % red is 127 or 128, of one of 25 % it is 64


def soop_archive_rows(folder: str | Path, contrast: str, derived: str | Path) -> list[ManifestRow]:
    """List the slices of the unpacked archive, in the splits and data sets of `soop_rows`.

    Args:
        folder: holds `PNG/rsub-<id>_lesion.nii.png` and `NIfTI/bwsrsub-<id>_lesion.nii.gz`, or a folder that does.
        contrast: `FLAIR`.
        derived: where the slices go as NIfTI files.

    Raises:
        InputError: another contrast, no such layout, a subject of the table is missing, or a mosaic and its mask do not
            agree.
    """
    check_flair(contrast)
    folder = Path(folder).resolve()
    slices = archive_slices(folder, Path(derived))
    return finish(rows_below(slices), folder, "PNG/rsub-1_lesion.nii.png and NIfTI/bwsrsub-1_lesion.nii.gz")


def archive_slices(folder: Path, derived: Path) -> Path:
    """Folder of the archive's slices as NIfTI files, made when it is not there; see `soop_archive_rows`."""
    pictures = [folder / "PNG", *sorted(folder.glob("*/PNG"))]
    root = next((path.parent for path in pictures if path.is_dir()), folder)
    pairs = {
        name: (root / "PNG" / f"r{name}_lesion.nii.png", root / "NIfTI" / f"bwsr{name}_lesion.nii.gz")
        for name in (record["subject"] for record in split_table())
    }
    missing = [path for pair in pairs.values() for path in pair if not path.is_file()]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {2 * len(pairs)} files are missing, such as "
            f"{missing[0].relative_to(root).as_posix()}; unpack the whole archive"
        )
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for pair in pairs.values() for path in pair]
    target = derived.resolve() / f"soop-archive-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"
    write_slices(((name, *read_mosaic(*pair)) for name, pair in pairs.items()), target, len(pairs))
    return target


def read_mosaic(mosaic: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """The axial slice of a mosaic without the red, and its lesion mask.

    Red of opacity a over a grey value g is (255 a + (1 - a) g, (1 - a) g, (1 - a) g), with a = 1/2, and 1/4 at some
    rims. What comes back is even for a = 1/2, so every grey value is made even: a lesion would show by its parity.

    Args:
        mosaic: RGB picture with the axial slice in its first 157 columns.
        mask: the subject's 3-D lesion mask.

    Returns:
        Slice uint8 and mask bool, both `(189, 157)`, rows from anterior to posterior.

    Raises:
        InputError: an unreadable file, another layout, or red where the mask has no lesion or the other way round.
    """
    try:
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(mosaic))).astype(int)
    except RuntimeError:
        raise InputError(f"{mosaic}: no readable PNG picture; unpack the archive again") from None
    if picture.ndim != 3 or picture.shape[0] != SIZE[0] or picture.shape[1] < SIZE[1] or picture.shape[2] < 3:
        raise InputError(f"{mosaic}: a picture of shape {picture.shape}, not the mosaic of the archive")
    red, green, blue = np.moveaxis(picture[:, : SIZE[1], :3], 2, 0)
    lesion = red != green
    if (blue != green).any() or (red < green).any():
        raise InputError(f"{mosaic}: colours other than red over grey; unpack the archive again")
    opacity = np.where(lesion, np.where(red - green >= _STRONG, 0.5, 0.25), 0.0)
    grey = np.minimum(np.rint(green / (1 - opacity)), 255).astype(np.uint8) & 0xFE
    expected = _axial(mask)
    if not np.array_equal(lesion, expected):
        raise InputError(
            f"{mosaic}: {lesion.sum()} red pixels, but the mask {mask.name} has {expected.sum()} in this slice or has "
            "them elsewhere; the two are not of one subject, unpack the archive again"
        )
    return grey, lesion


def _axial(mask: Path) -> np.ndarray:
    """The slice of a 3-D lesion mask that the mosaics show, `(189, 157)`, as they show it."""
    volume = read_volume(mask).data
    if volume.shape[:2] != SIZE[::-1] or volume.shape[2] <= _SLICE:
        raise InputError(f"{mask}: a mask of shape {volume.shape}, not that of the archive; unpack it again")
    return volume[::-1, ::-1, _SLICE].T > 0
