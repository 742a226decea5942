"""Brain and lesion masks from files, on the grid of their scan."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.brain import face_share, main_components
from pddm_utils.data.header import grid_distance
from pddm_utils.data.volume import LoadedVolume, read_volume

_GRID_TOLERANCE_MM = 0.1  # largest distance between two grids that count as the same one
_INVERTED = 0.9  # a mask on more than this share of the volume's six faces marks the background
_FEW_LABELS = 8  # so few whole numbers are labels, such as tissues
# Of probabilities in units of their range: shares of the upper half that lie above 0.9, and of all above 0.01 that lie
# in the upper half; and the largest mean at the rim of all above 0.01.
_PLATEAU, _UPPER, _RIM = 0.6, 0.25, 0.25


def load_brain_mask(path: str | Path, scan: LoadedVolume) -> np.ndarray:
    """Read a brain mask, anatomical label map or probability map on the scan's grid.

    In a label map such as DLMUSE or aseg every voxel above 0 is brain; probabilities are cut at half their range.
    Specks apart from the brain are dropped. Both are said. Another voxel order than the scan's is brought into line.

    Args:
        path: NIfTI file.
        scan: the scan that it belongs to.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: unreadable (see `load_volume`), on another grid than the scan, empty, the whole image, inverted, or
            neither mask nor labels nor probabilities.
    """
    values = _on_grid_of(Path(path), scan)
    low, high = float(values.min()), float(values.max())
    if high <= 0:
        raise InputError(f"{path}: empty brain mask (no voxel above 0); give the mask of {scan.path}")
    mask = values > _cut(path, values, low, high)
    if mask.all():
        raise InputError(f"{path}: every voxel is above 0, so this is no brain mask; mark the background with 0")
    if face_share(mask) > _INVERTED:
        raise InputError(f"{path}: marks the background, not the brain; swap 0 and 1")
    brain = main_components(mask, corners=True)
    dropped = int(np.count_nonzero(mask)) - int(np.count_nonzero(brain))
    if dropped:
        warnings.warn(f"{path}: {dropped} voxel(s) in specks apart from the brain dropped", ScanWarning, stacklevel=2)
    return brain


def load_lesion_mask(path: str | Path, scan: LoadedVolume) -> np.ndarray:
    """Read a binary lesion mask on the scan's grid; another voxel order than the scan's is brought into line.

    Args:
        path: NIfTI file with 0 (healthy) and one other whole number (lesion), such as 1 or 255.
        scan: the scan that it belongs to.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: unreadable (see `load_volume`), on another grid than the scan, empty, or with values other
            than 0 and one lesion label (probabilities, several labels, negative labels).
    """
    labels = _on_grid_of(Path(path), scan)
    values = np.unique(labels)
    if values.size == 1 and values[0] == 0:
        raise InputError(f"{path}: empty lesion mask; leave lesion_mask empty in the manifest for a healthy scan")
    wrong = values.size != 2 or values[0] != 0 or values[1] != np.round(values[1])
    if wrong:
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if values.size > 5 else "")
        raise InputError(
            f"{path}: lesion labels {shown} are not binary; write 1 in lesions and 0 elsewhere "
            "(threshold probabilities, merge labels)"
        )
    return labels > 0


def _cut(path: str | Path, values: np.ndarray, low: float, high: float) -> float:
    """The value above which a voxel is brain."""
    if np.count_nonzero(values == low) + np.count_nonzero(values == high) == values.size:
        return 0.0 if low >= 0 else (low + high) / 2
    is_whole = low >= 0 and np.array_equal(values, np.rint(values))
    if is_whole and np.unique(values).size <= _FEW_LABELS:
        return 0.0
    if low > -0.5 * high and _are_probabilities(values, max(low, 0), high, is_whole):
        middle = (low + high) / 2
        warnings.warn(f"{path}: probabilities up to {high:g}, cut at {middle:g}", ScanWarning, stacklevel=2)
        return middle
    if is_whole:
        return 0.0
    raise InputError(
        f"{path}: values between {low:g} and {high:g} that are neither a mask nor labels nor probabilities; write 1 in "
        "the brain and 0 elsewhere"
    )


def _are_probabilities(values: np.ndarray, low: float, high: float, is_whole: bool) -> bool:
    """Whether values have a plateau in the brain, and (whole numbers) fall off around it; labels do not."""
    share = (values - low) / (high - low)
    some, upper = share > 0.01, np.count_nonzero(share > 0.5)
    if np.count_nonzero(share > 0.9) <= _PLATEAU * upper or upper <= _UPPER * np.count_nonzero(some):
        return False
    return not is_whole or share[some & ~ndimage.binary_erosion(some)].mean() < _RIM


def _on_grid_of(path: Path, scan: LoadedVolume) -> np.ndarray:
    """The values of a mask file, in the scan's voxel order, once it is sure that they lie on its grid."""
    mask = read_volume(path)
    if not np.isfinite(mask.data).all():
        raise InputError(f"{path}: NaN or infinite value(s) in a mask; write 0 for background")
    # Flips and swaps of axes move no voxel in space.
    order = nib.orientations.io_orientation(np.linalg.inv(scan.affine) @ mask.affine)
    values = nib.orientations.apply_orientation(mask.data, order)
    affine = mask.affine @ nib.orientations.inv_ornt_aff(order, mask.data.shape)
    if values.shape != scan.data.shape:
        raise InputError(
            f"{path}: mask of shape {mask.data.shape} for the scan {scan.path} of shape "
            f"{scan.data.shape}; resample the mask to the scan's grid (nearest neighbour)"
        )
    distance = grid_distance(affine, scan.affine, scan.data.shape)
    if distance > _GRID_TOLERANCE_MM:
        raise InputError(
            f"{path}: its affine puts the mask up to {distance:.1f} mm away from the scan {scan.path}; "
            "resample the mask to the scan's grid (nearest neighbour)"
        )
    return values
