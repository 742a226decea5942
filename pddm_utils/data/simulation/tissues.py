"""Tissue probabilities of a scan, their estimate from intensities, and the bias field that goes with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.mixture import GaussianMixture

from pddm_utils.data.scan import CONTRASTS, VOXEL_SIZE_MM

# Tissues from dark to bright, with the quantiles of brain intensities at which the mixture fit starts.
TISSUE_ORDER = {
    "T1": (("csf", "grey", "white"), (0.04, 0.35, 0.8)),
    "T2": (("white", "grey", "csf"), (0.25, 0.6, 0.96)),
    "FLAIR": (("csf", "white", "grey"), (0.04, 0.35, 0.75)),
}
BIAS_SMOOTHING_MM = 20.0


@dataclass(frozen=True)
class Tissues:
    """Tissue probabilities, each `(D, H, W)` float32 in [0, 1]; sum one in the brain, zero outside."""

    csf: np.ndarray
    grey: np.ndarray
    white: np.ndarray


def estimate_tissues(image: np.ndarray, brain_mask: np.ndarray, contrast: str) -> Tissues:
    """Estimate tissue probabilities of a real scan from its intensities; deterministic.

    Intensities are levelled by a smooth white matter field and fitted by a Gaussian mixture of three
    classes; a voxel shares between the two classes whose means enclose it. Good enough to place lesions,
    not a segmentation tool.

    Args:
        image: `(D, H, W)` raw intensities.
        brain_mask: `(D, H, W)` bool.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`; fixes the order of the classes.

    Returns:
        Tissue probabilities; they sum to one in the brain and are zero outside.

    Raises:
        ValueError: for an unknown contrast, an empty brain or one without variation.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    names, quantiles = TISSUE_ORDER[contrast]
    if not brain_mask.any() or np.ptp(image[brain_mask]) == 0:
        raise ValueError("the brain is empty or its intensities do not vary")
    smooth = _local_mean(image, brain_mask, 0.6)
    flat = smooth / _white_matter_field(image, brain_mask, quantiles[names.index("white")])
    shares = _share_classes(flat, _class_means(flat[brain_mask], quantiles))
    return Tissues(**{n: (s * brain_mask).astype(np.float32) for n, s in zip(names, shares, strict=True)})


def _white_matter_field(image: np.ndarray, brain_mask: np.ndarray, quantile: float) -> np.ndarray:
    """Bias field with median 1: the local quantile where white matter lies (boxes of 40 mm), smoothed."""
    reach, step = 10, 5
    sparse = np.zeros(image.shape, dtype=np.float32)
    known = np.zeros(image.shape, dtype=bool)
    for node in np.ndindex(*(-(-n // step) for n in image.shape)):
        centre = tuple(step * i for i in node)
        box = tuple(slice(max(c - reach, 0), c + reach + 1, 2) for c in centre)
        values = image[box][brain_mask[box]]
        if values.size >= 100:
            sparse[centre], known[centre] = np.quantile(values, quantile), True
    weight = ndimage.gaussian_filter(known.astype(np.float32), step)
    field = ndimage.gaussian_filter(sparse, step) / np.maximum(weight, 1e-7)
    typical = np.median(field[brain_mask])
    if not typical > 0:  # too small a brain, or no signal: nothing to level
        return np.ones(image.shape, dtype=np.float32)
    return np.where(brain_mask, np.clip(field / typical, 0.3, 3.0), 1.0)


def _class_means(values: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray:
    """Sorted means of three intensity classes."""
    low, high = np.percentile(values, (2, 95))  # partial volume at the surface would draw a class of its own
    sample = np.clip(values[:: max(1, values.size // 20_000)], low, high)
    start = np.quantile(sample, quantiles)
    if not np.all(np.diff(start) > 0):
        raise ValueError("the intensities inside the brain do not separate into three tissues")
    mixture = GaussianMixture(3, means_init=start[:, None], random_state=0)
    return np.sort(mixture.fit(sample[:, None]).means_.ravel())


def _share_classes(values: np.ndarray, means: np.ndarray) -> list[np.ndarray]:
    """Share of each class: one near its mean, a steep ramp half-way between neighbouring means."""
    ramps = [
        np.clip((values - (a + b) / 2) / (b - a) * 1.6 + 0.5, 0, 1) for a, b in zip(means, means[1:], strict=False)
    ]
    return [1 - ramps[0], ramps[0] - ramps[1], ramps[1]]


def _local_mean(image: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over voxels of the mask only; zero outside it."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(mask, image, 0).astype(np.float32), sigma)
    return np.where(mask, total / np.maximum(weight, 1e-6), 0)


def bias_field(image: np.ndarray, model: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Smooth ratio of the image to its tissue model (`(D, H, W)`, within [0.3, 3], one outside the mask)."""
    sigma = BIAS_SMOOTHING_MM / VOXEL_SIZE_MM
    ratio = _local_mean(image, mask, sigma) / np.maximum(_local_mean(model, mask, sigma), 1e-6)
    return np.where(mask, np.clip(ratio, 0.3, 3.0), 1.0)


def tissue_levels(image: np.ndarray, tissues: Tissues) -> dict[str, float]:
    """Median intensity of each tissue; ValueError when the scan lacks one."""
    levels = {}
    for name in ("csf", "grey", "white"):
        share = getattr(tissues, name)
        pure = share > min(0.9, 0.95 * float(share.max()))
        if not pure.any():
            raise ValueError(f"the scan has no {name} tissue")
        levels[name] = float(np.median(image[pure]))
    return levels
