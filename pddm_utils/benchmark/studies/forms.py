"""Residual forms: from a scan and its reconstruction to one score a voxel, before erosion and median filter.

Volumes are `(D, H, W)` floats, intensities in [0, 1]; every score is at least 0 and high where something is unusual.
The constants were set before any score was seen.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.places import towards_lesions

QUANTILES = np.linspace(0, 1, 101)  # of the quantiles that describe a scan's intensities
SSIM_SIGMA = 1.5  # pixels, as Wang et al. 2004
SSIM_CONSTANTS = (0.01**2, 0.03**2)
EDGE_SIGMA, EDGE_OFFSET = 1.0, 0.1  # pixels; intensity a pixel
MIRROR_SIGMA = 2.0  # pixels of 2 mm: no brain is symmetric to the voxel


def signed(image: np.ndarray, reconstruction: np.ndarray, contrast: str) -> np.ndarray:
    """Only what is brighter than rebuilt (T2, FLAIR) or darker (T1), as lesions are."""
    return towards_lesions(image - reconstruction, contrast)


def one_minus_ssim(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """(1 - SSIM) / 2 of every voxel, in a Gaussian window of its slice (Wang et al. 2004)."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, (0, SSIM_SIGMA, SSIM_SIGMA), truncate=3.5)

    x, y = image.astype(np.float64), reconstruction.astype(np.float64)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    a, b = SSIM_CONSTANTS
    ssim = (2 * mx * my + a) * (2 * vxy + b) / ((mx * mx + my * my + a) * (vx + vy + b))
    return ((1 - ssim) / 2).clip(0, 1)


def over_edges(residual: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """The residual over the gradient of the reconstruction: edges that moved a little count less.

    The gradient is that of x^, so that a lesion's own border does not lower its score.
    """
    sigma = (0, EDGE_SIGMA, EDGE_SIGMA)
    along = [ndimage.gaussian_filter(reconstruction, sigma, order=order) for order in ((0, 0, 1), (0, 1, 0))]
    return residual / (np.hypot(*along) + EDGE_OFFSET)


def brain_quantiles(image: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """Quantiles `(101,)` of the intensities inside the brain."""
    return np.quantile(image[brain_mask], QUANTILES)


def match_quantiles(image: np.ndarray, brain_mask: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """The volume with the intensities inside the brain mapped monotonely, so that they have these quantiles.

    Args:
        image: `(D, H, W)` in [0, 1].
        brain_mask: `(D, H, W)` bool; outside, the volume stays as it is.
        quantiles: `(101,)`, see `brain_quantiles`.

    Returns:
        `(D, H, W)` float32 in [0, 1].
    """
    matched = image.astype(np.float32, copy=True)
    matched[brain_mask] = np.interp(image[brain_mask], brain_quantiles(image, brain_mask), quantiles).clip(0, 1)
    return matched


def mirrored(values: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """The volume with left and right exchanged about the mean column of the brain; 0 where the mirror has no voxel.

    Example:
        >>> mask = np.array([[[False, True, True, True]]])
        >>> mirrored(np.array([[[9.0, 1.0, 2.0, 3.0]]]), mask).tolist()
        [[[0.0, 3.0, 2.0, 1.0]]]
    """
    width = values.shape[2]
    source = round(2 * float(np.nonzero(brain_mask)[2].mean())) - np.arange(width)
    inside = (source >= 0) & (source < width)
    result = np.zeros_like(values)
    result[:, :, inside] = values[:, :, source[inside]]
    return result


def above_other_side(residual: np.ndarray, brain_mask: np.ndarray, sigma: float = 0.0) -> np.ndarray:
    """What the residual has more than at the same place of the other side, which is smoothed in-plane by `sigma`."""
    other = mirrored(residual, brain_mask)
    if sigma:
        other = ndimage.gaussian_filter(other, (0, sigma, sigma))
    return (residual - other).clip(min=0)


def intensity_score(scan: Scan) -> np.ndarray:
    """Brightness on T2 and FLAIR, darkness inside the brain on T1: the score of the intensity threshold."""
    return scan.brain_mask * (1 - scan.image) if scan.contrast == "T1" else scan.image


def rank_sum(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of the ranks of two scores among the voxels of `mask`, in (0, 1]; 0 outside."""
    result = np.zeros(mask.shape, dtype=np.float32)
    count = max(int(np.count_nonzero(mask)), 1)
    result[mask] = (rankdata(first[mask]) + rankdata(second[mask])) / (2 * count)
    return result
