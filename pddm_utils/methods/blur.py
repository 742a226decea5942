"""A floor without a network: what is brighter, or darker, than its wider surroundings."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pddm_utils.data.scan import VOXEL_SIZE_MM, Scan
from pddm_utils.evaluation.places import towards_lesions
from pddm_utils.methods.base import UnlearnedMethod

BLUR_MM = 16.0  # standard deviation of the Gaussian


class Blur(UnlearnedMethod):
    """`x^` is the brain under a wide Gaussian, the score how much brighter (T1: darker) than it a voxel is.

    The Gaussian sees the brain alone: a normalised convolution (Knutsson and Westin 1993), so that the edge of the
    brain is no edge to it.
    """

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """The blurred brain, `(D, H, W)` float32 in [0, 1]; 0 outside the brain."""
        return blurred_brain(scan.image, scan.brain_mask, BLUR_MM / VOXEL_SIZE_MM)

    def score(self, scan: Scan, reconstruction: np.ndarray) -> np.ndarray:
        """The signed difference towards lesions, `(D, H, W)` in [0, 1]."""
        return towards_lesions(scan.image - reconstruction, scan.contrast)


def blurred_brain(image: np.ndarray, brain_mask: np.ndarray, width: float) -> np.ndarray:
    """Weighted mean of the brain around every voxel of it, 0 elsewhere.

    Args:
        image: `(D, H, W)`.
        brain_mask: `(D, H, W)` bool.
        width: standard deviation of the Gaussian weights in voxels.
    """
    inside = brain_mask.astype(np.float32)
    sums, weights = (ndimage.gaussian_filter(values, width, mode="constant") for values in (image * inside, inside))
    return np.divide(sums, weights, out=np.zeros_like(sums), where=brain_mask)
