"""The prepared frame: axial slices of 96x96 voxels of 2 mm, centred on the brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import SLICE_SIZE, VOXEL_SIZE_MM
from pddm_utils.data.volume import LoadedVolume
from pddm_utils.evaluation.postprocess import bounding_box

_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_SAME_GRID = 1e-4  # relative difference of voxel sizes that counts as none


@dataclass(frozen=True)
class Frame:
    """A scan on the prepared frame, before intensities are scaled.

    Attributes:
        image: `(D, 96, 96)` float32 raw intensities; zero outside the brain.
        brain_mask: `(D, 96, 96)` bool; every slice holds brain.
        lesion_mask: `(D, 96, 96)` bool.
        affine: `(4, 4)`, from (x, y, z) voxel indices of the frame to RAS mm.
    """

    image: np.ndarray
    brain_mask: np.ndarray
    lesion_mask: np.ndarray
    affine: np.ndarray


def to_frame(scan_volume: LoadedVolume, brain_mask: np.ndarray, lesion_mask: np.ndarray | None = None) -> Frame:
    """Reorient to RAS, resample to 2 mm, centre the brain in 96x96 and keep every slice that holds brain.

    A scan of one axial slice stays one slice: it is resampled in-plane and keeps its thickness.

    The frame's axes are the scan's own, reordered and flipped to the nearest RAS orientation: an oblique scan
    stays oblique and its affine says so. Voxels finer than 2 mm are smoothed first (Gaussian that widens
    their profile to 2 mm); image and brain mask are interpolated linearly, the image with the brain mask as
    weight so that background or scalp does not bleed in; lesions by nearest neighbour. A 2 mm scan is copied
    without interpolation.

    Args:
        scan_volume: the scan.
        brain_mask: `(X, Y, Z)` bool on the scan's grid.
        lesion_mask: the same for lesions, or None.

    Returns:
        The frame.

    Raises:
        InputError: one slice that is not axial; the brain does not fit 192 mm in-plane; most of the lesion lies
            outside the brain, or no lesion voxel is left at 2 mm.
    """
    turn = nib.orientations.io_orientation(scan_volume.affine)
    affine = scan_volume.affine @ nib.orientations.inv_ornt_aff(turn, scan_volume.data.shape)
    image, inside = (nib.orientations.apply_orientation(array, turn) for array in (scan_volume.data, brain_mask))
    if 1 in image.shape[:2]:
        raise InputError(f"{scan_volume.path}: one slice that is not axial; methods look at axial slices, give one")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    step = VOXEL_SIZE_MM / spacing  # source voxels per frame voxel
    step[np.abs(step - 1) < _SAME_GRID] = 1  # rounding in a header must not move or blur a voxel
    step[np.array(image.shape) == 1] = 1
    first, last = np.array([(side.start, side.stop - 1) for side in bounding_box(inside)]).T
    _check_fits(scan_volume.path, inside, first, last, step)
    origin, shape = _place_frame(first, last, step)

    # Only the brain and the reach of the smoothing around it matter.
    margin = np.ceil(4 * step).astype(int) + 1
    start = np.maximum(first - margin, 0)
    box = tuple(slice(low, high + 1 + more) for low, high, more in zip(start, last, margin, strict=True))
    local = origin - start
    weighted, weight = _cut(image[box] * inside[box], inside[box].astype(np.float32), local, shape, step)
    framed_brain = weight >= 0.5
    framed_image = np.divide(weighted, weight, out=np.zeros_like(weighted), where=framed_brain)
    slices = np.flatnonzero(framed_brain.any(axis=(0, 1)))
    if slices.size == 0:
        raise InputError(
            f"{scan_volume.path}: its brain mask has no voxel left at {VOXEL_SIZE_MM:g} mm; check the mask "
            "and the voxel size in the header"
        )
    keep = slice(slices[0], slices[-1] + 1)
    framed_lesion = np.zeros_like(framed_brain)
    if lesion_mask is not None:
        lesion = nib.orientations.apply_orientation(lesion_mask, turn)
        framed_lesion = _frame_lesion(scan_volume.path, lesion, inside, origin, shape, step)
        if not framed_lesion[..., keep].any():
            raise InputError(
                f"{scan_volume.path}: its lesion mask has no voxel left at {VOXEL_SIZE_MM:g} mm; leave "
                "lesion_mask empty if the lesion is too small to be scored"
            )
    place = np.eye(4)
    place[:3, :3] = np.diag(step)
    place[:3, 3] = origin + step * (0, 0, keep.start)
    # Transposed from (x, y, z) to (D, H, W).
    image, brain, lesion = (
        np.ascontiguousarray(array[..., keep].T) for array in (framed_image, framed_brain, framed_lesion)
    )
    return Frame(image, brain, lesion, affine @ place)


def _place_frame(first: np.ndarray, last: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Source index of the frame's first voxel, and the frame's shape (x, y, z)."""
    count = int(np.ceil((last[2] - first[2]) / step[2] - 1e-6)) + 1
    origin = (first + last) / 2 - step * (SLICE_SIZE - 1) / 2
    origin[2] = first[2]
    # On a grid of the frame's own spacing the frame takes the grid's voxels: nothing is interpolated.
    same = step == 1
    origin[same] = np.floor(origin[same])
    return origin, (SLICE_SIZE, SLICE_SIZE, count)


def _check_fits(path: Path, inside: np.ndarray, first: np.ndarray, last: np.ndarray, step: np.ndarray) -> None:
    """Refuse a brain that is larger in-plane than the frame."""
    reach = (last - first + 1)[:2] / step[:2]
    if (reach <= SLICE_SIZE + 1e-3).all():
        return
    centre, half = (first + last)[:2] / 2, (step[:2] * SLICE_SIZE - 1) / 2  # of voxels that lie inside as a whole
    kept = np.logical_and.outer(
        *(
            np.abs(np.arange(size) - middle) <= width
            for size, middle, width in zip(inside.shape[:2], centre, half, strict=True)
        )
    )
    lost = 100 * inside[~kept].sum() / inside.sum()
    size = " x ".join(f"{VOXEL_SIZE_MM * extent:.0f}" for extent in reach)
    raise InputError(
        f"{path}: the brain spans {size} mm in-plane and the frame {VOXEL_SIZE_MM * SLICE_SIZE:.0f} mm, so "
        f"{lost:.2g} % of it would be lost; check the brain mask and the voxel size in the header"
    )


def _frame_lesion(
    path: Path,
    lesion: np.ndarray,
    inside: np.ndarray,
    origin: np.ndarray,
    shape: tuple[int, ...],
    step: np.ndarray,
) -> np.ndarray:
    """Lesion mask on the frame, nearest neighbour."""
    share = np.count_nonzero(lesion & inside) / np.count_nonzero(lesion)
    if share < 0.5:
        raise InputError(
            f"{path}: only {100 * share:.0f} % of its lesion mask lies in the brain; check that the masks "
            "belong to this scan"
        )
    return ndimage.affine_transform(
        lesion.astype(np.uint8), step, origin, output_shape=shape, order=0, mode="grid-constant"
    ).astype(bool)


def _cut(
    image: np.ndarray,
    weight: np.ndarray,
    origin: np.ndarray,
    shape: tuple[int, ...],
    step: np.ndarray,
) -> list[np.ndarray]:
    """Smooth against aliasing and sample both arrays on the frame."""
    # A source voxel of width s is widened to the frame's width: variances of Gaussian profiles subtract.
    sigma = np.sqrt(np.clip(step**2 - 1, 0, None)) / _FWHM_PER_SIGMA
    return [
        ndimage.affine_transform(
            ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="constant") if sigma.any() else array,
            step,
            origin,
            output_shape=shape,
            order=1,
            mode="grid-constant",
            output=np.float32,
        )
        for array in (image, weight)
    ]
