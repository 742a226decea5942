"""The prepared scan: the one form in which every method sees a volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CONTRASTS = ("T1", "T2", "FLAIR")
INTENSITY_UNIT = "scaled intensity"  # of images in [0, 1], residuals and thresholds
SLICE_SIZE = 96
VOXEL_SIZE_MM = 2.0
VOXEL_VOLUME_ML = VOXEL_SIZE_MM**3 / 1000.0
PERCENTILES, QUARTILES = "percentiles", "quartiles"
SCALINGS = (PERCENTILES, QUARTILES)
_REACH = 3.0  # interquartile ranges below and above the median that [0, 1] covers


@dataclass(frozen=True)
class Scan:
    """One volume in the prepared frame: 2 mm axial slices of 96x96 voxels, every slice that holds brain.

    A scan of one slice is a volume with D = 1.

    Arrays have shape `(D, H, W)` = (z, y, x): axis 0 runs inferior to superior, axis 1 posterior to anterior,
    axis 2 patient left to right (the transpose of an RAS array).

    Attributes:
        subject: identifier; copies of one scan with and without a lesion share it.
        dataset: name of the data set, such as `simulated-t2-tumour`.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        image: float32 in [0, 1], zero outside the brain.
        brain_mask: bool.
        lesion_mask: bool; all False in a healthy scan.
        affine: `(4, 4)`, from (x, y, z) voxel indices of the frame to RAS millimetres.
    """

    subject: str
    dataset: str
    contrast: str
    image: np.ndarray
    brain_mask: np.ndarray
    lesion_mask: np.ndarray
    affine: np.ndarray

    def with_slices(self, part: slice) -> Scan:
        """The scan with some of its slices; the affine stays that of the whole."""
        image, brain_mask, lesion_mask = (
            np.ascontiguousarray(array[part]) for array in (self.image, self.brain_mask, self.lesion_mask)
        )
        return replace(self, image=image, brain_mask=brain_mask, lesion_mask=lesion_mask)


def scale_to_unit_range(
    image: np.ndarray, brain_mask: np.ndarray, scaling: str = PERCENTILES, like: np.ndarray | None = None
) -> np.ndarray:
    """Map a range of intensities inside the brain to [0, 1], clip, and zero everything outside the brain.

    Args:
        image: `(D, H, W)` raw intensities.
        brain_mask: `(D, H, W)` bool.
        scaling: which range: `percentiles` from the 1st to the 99th; `quartiles` three interquartile ranges to either
            side of the median, so that a large bright lesion moves neither end and healthy tissue lies around 0.5.
        like: `(D, H, W)` image whose range is taken; the image itself when left out.

    Returns:
        float32 array of the same shape in [0, 1].

    Raises:
        ValueError: if the brain is empty or its intensities do not vary.
    """
    inside = (image if like is None else like)[brain_mask]
    if inside.size == 0:
        raise ValueError("the brain mask is empty")
    if scaling == QUARTILES:
        first, median, third = np.percentile(inside, (25, 50, 75))
        low, high = median - _REACH * (third - first), median + _REACH * (third - first)
    else:
        low, high = np.percentile(inside, (1, 99))
    if not high > low:
        raise ValueError("intensities inside the brain do not vary")
    scaled = np.clip((image - low) / (high - low), 0.0, 1.0)
    return np.where(brain_mask, scaled, 0.0).astype(np.float32)
