"""What healthy brains, or their residuals, look like at each place of the brain: mean and spread by place.

A place is a position relative to the bounding box of the brain: no registration is needed, and no more than the box is
aligned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.evaluation.postprocess import bounding_box

GRID = (24, 40, 32)  # places along z, y, x of the brain's bounding box, about 5 mm each
SMOOTHING = 1.0  # standard deviation of the Gaussian over places
SPREAD_OFFSET = 0.02  # intensity; keeps a place where healthy values hardly vary from ruling the map
LARGEST_SCORE = 64.0  # healthy standard deviations: a z-score over it is in [0, 1], as thresholds are
_LITTLE = 0.5  # brain voxels; places with less take the mean over all


@dataclass(frozen=True)
class PlaceStatistics:
    """Healthy residuals, or intensities, by place, finished.

    Attributes:
        mean: of the signed residual x - x^, or of x, by place, `GRID`, scaled intensity.
        deviation: its standard deviation by place, `GRID`.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def z_score(self, values: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
        """The values less their healthy mean, in healthy standard deviations (and an offset), signed.

        Args:
            values: `(D, H, W)`, x - x^ or x as they were counted.
            brain_mask: `(D, H, W)` bool.
        """
        mean, deviation = (_spread(by_place, brain_mask) for by_place in (self.mean, self.deviation))
        return (values - mean) / (deviation + SPREAD_OFFSET)

    def expected(self, brain_mask: np.ndarray) -> np.ndarray:
        """The mean at every voxel of a brain, `(D, H, W)`; 0 outside its bounding box."""
        return _spread(self.mean, brain_mask)

    def spread(self, brain_mask: np.ndarray) -> np.ndarray:
        """The standard deviation at every voxel of a brain, `(D, H, W)`; 0 outside its bounding box."""
        return _spread(self.deviation, brain_mask)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, half precision, in one step (`InputError` as `whole_file`)."""
        with whole_file(path) as partial:
            save_file({"mean": self.mean.astype(np.float16), "deviation": self.deviation.astype(np.float16)}, partial)

    @classmethod
    def load(cls, path: str | Path) -> PlaceStatistics:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or holds something else.
        """
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: not readable ({error}); copy it again or make it with: python -m pddm_utils.publish models"
            ) from None
        if {name: values.shape for name, values in stored.items()} != {"mean": GRID, "deviation": GRID}:
            raise InputError(
                f"{path}: does not hold a mean and a deviation on a grid of {GRID}; make it with: "
                "python -m pddm_utils.publish models"
            )
        return cls(stored["mean"].astype(float), stored["deviation"].astype(float))


class HealthyPlaces:
    """Mean and spread of healthy residuals by place: position relative to the bounding box of the brain.

    No registration is needed, and no more than the box is aligned. Feed it with scans whose anatomy no scored scan
    shares.

    Example:
        >>> places = HealthyPlaces()
        >>> mask = np.ones((4, 8, 8), dtype=bool)
        >>> places.add(np.full(mask.shape, 0.25, dtype=np.float32), mask)
        >>> places.statistics().expected(mask).round(2).max()
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

    def mean_size(self, brain_mask: np.ndarray) -> np.ndarray:
        """Mean of |x - x^| at every voxel of a brain, `(D, H, W)`; 0 outside its bounding box."""
        return _spread(self._by_place(self._sizes), brain_mask)

    def z_score(self, residual: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
        """As `PlaceStatistics.z_score`."""
        return self.statistics().z_score(residual, brain_mask)

    def statistics(self) -> PlaceStatistics:
        """Mean and standard deviation by place, of the scans so far."""
        mean = self._by_place(self._sums)
        variance = self._by_place(self._squares) - mean**2
        return PlaceStatistics(mean, np.sqrt(variance.clip(min=0)))

    def _by_place(self, sums: np.ndarray) -> np.ndarray:
        weights, smooth = (ndimage.gaussian_filter(values, SMOOTHING) for values in (self._weights, sums))
        overall = sums.sum() / max(self._weights.sum(), 1e-9)
        return np.where(weights > _LITTLE, smooth / weights.clip(min=_LITTLE), overall)


def towards_lesions(difference: np.ndarray, contrast: str) -> np.ndarray:
    """The part of a signed difference that speaks of lesions: brighter on T2 and FLAIR, darker on T1; at least 0.

    Args:
        difference: of any shape, x less what is expected.
        contrast: `T1`, `T2` or `FLAIR`.
    """
    return (-difference if contrast == "T1" else difference).clip(min=0)


def _resize(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trilinear, corners of the outer voxels on each other."""
    volume = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    return torch.nn.functional.interpolate(volume, size=shape, mode="trilinear", align_corners=False)[0, 0].numpy()


def _spread(by_place: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    box = bounding_box(brain_mask)
    result = np.zeros(brain_mask.shape, dtype=np.float32)
    result[box] = _resize(by_place, result[box].shape)
    return result
