"""What residuals of healthy scans look like at each place of the brain."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from pddm_utils.evaluation.postprocess import bounding_box

GRID = (24, 40, 32)  # places along z, y, x of the brain's bounding box, about 5 mm each
SMOOTHING = 1.0  # standard deviation of the Gaussian over places
SPREAD_OFFSET = 0.02  # intensity; keeps a place where healthy residuals hardly vary from ruling the map
_LITTLE = 0.5  # brain voxels; places with less take the mean over all


class HealthyPlaces:
    """Mean and spread of healthy residuals by place: position relative to the bounding box of the brain.

    No registration is needed, and no more than the box is aligned. Feed it with scans whose anatomy no scored scan
    shares.

    Example:
        >>> places = HealthyPlaces()
        >>> mask = np.ones((4, 8, 8), dtype=bool)
        >>> places.add(np.full(mask.shape, 0.25, dtype=np.float32), mask)
        >>> places.mean(mask).round(2).max()
        0.25
    """

    def __init__(self) -> None:
        self._weights, self._sums, self._squares, self._sizes = (np.zeros(GRID) for _ in range(4))
        self.subjects = 0

    def add(self, residual: np.ndarray, brain_mask: np.ndarray) -> None:
        """Add one healthy scan.

        Args:
            residual: `(D, H, W)` signed, x - x^.
            brain_mask: `(D, H, W)` bool.
        """
        box = bounding_box(brain_mask)
        inside, values = brain_mask[box].astype(float), np.where(brain_mask, residual, 0)[box]
        self._weights += _resize(inside, GRID)
        self._sums += _resize(values, GRID)
        self._squares += _resize(values**2, GRID)
        self._sizes += _resize(np.abs(values), GRID)
        self.subjects += 1

    def mean(self, brain_mask: np.ndarray) -> np.ndarray:
        """Mean of the signed residual at every voxel of a brain, `(D, H, W)`; 0 outside its bounding box."""
        return _spread(self._by_place(self._sums), brain_mask)

    def mean_size(self, brain_mask: np.ndarray) -> np.ndarray:
        """Mean of |x - x^| at every voxel of a brain, `(D, H, W)`; 0 outside its bounding box."""
        return _spread(self._by_place(self._sizes), brain_mask)

    def deviation(self, brain_mask: np.ndarray) -> np.ndarray:
        """Standard deviation of the signed residual at every voxel of a brain, `(D, H, W)`."""
        variance = self._by_place(self._squares) - self._by_place(self._sums) ** 2
        return _spread(np.sqrt(variance.clip(min=0)), brain_mask)

    def z_score(self, residual: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
        """The signed residual less its healthy mean, in healthy standard deviations (and an offset), signed."""
        return (residual - self.mean(brain_mask)) / (self.deviation(brain_mask) + SPREAD_OFFSET)

    def _by_place(self, sums: np.ndarray) -> np.ndarray:
        weights, smooth = (ndimage.gaussian_filter(values, SMOOTHING) for values in (self._weights, sums))
        overall = sums.sum() / max(self._weights.sum(), 1e-9)
        return np.where(weights > _LITTLE, smooth / weights.clip(min=_LITTLE), overall)


def _resize(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trilinear, corners of the outer voxels on each other."""
    volume = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    return torch.nn.functional.interpolate(volume, size=shape, mode="trilinear", align_corners=False)[0, 0].numpy()


def _spread(by_place: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    box = bounding_box(brain_mask)
    result = np.zeros(brain_mask.shape, dtype=np.float32)
    result[box] = _resize(by_place, result[box].shape)
    return result
