"""Threshold rules. The prediction rule is the same everywhere: a voxel is anomalous when `map > threshold`.

* `healthy-quantile-*` (default 0.99): a quantile of the maps of healthy validation scans; no lesion needed.
* `lesion-val`: best pooled Dice on the lesion validation set of the same data set (the paper's rule).
* `oracle`: best pooled Dice on the test data set itself; an upper bound, never the headline.

All are exact on a fixed grid of thresholds in [0, 1] and stream over scans: memory does not grow with their
number.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pddm_utils.core.errors import InputError

HEALTHY_QUANTILES = {
    "healthy-quantile-0.95": 0.95,
    "healthy-quantile-0.99": 0.99,
    "healthy-quantile-0.995": 0.995,
}
DEFAULT_RULE = "healthy-quantile-0.99"
LESION_VAL = "lesion-val"
ORACLE = "oracle"
RULES = (*HEALTHY_QUANTILES, LESION_VAL, ORACLE)

# A power of two: `value * GRID_STEPS` is exact, so no value lands in a wrong bin, and every threshold is
# exact in float32, so that `map > threshold` on a float32 map agrees with the bins.
GRID_STEPS = 2**16
GRID = np.arange(GRID_STEPS + 1) / GRID_STEPS


def _levels_below(values: np.ndarray) -> np.ndarray:
    """For each value, the number of grid thresholds it exceeds (0 .. GRID_STEPS + 1)."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("anomaly maps must be finite")
    return np.clip(np.ceil(values * GRID_STEPS), 0, GRID_STEPS + 1).astype(np.int64)


class HealthyQuantile:
    """Streaming quantile of anomaly maps of healthy scans, every subject weighted equally.

    Example:
        >>> quantile = HealthyQuantile()
        >>> quantile.add(np.array([0.0, 0.25, 0.5, 0.75]))
        >>> quantile.threshold(0.5)
        0.25
    """

    def __init__(self) -> None:
        self._weights = np.zeros(GRID_STEPS + 2)
        self.subjects = 0

    def add(self, values: np.ndarray) -> None:
        """Add one subject.

        Args:
            values: anomaly map at the eroded-brain voxels of the subject, any shape, in [0, 1]; values
                above 1 exceed every threshold, and a quantile that falls on them is capped at 1.

        Raises:
            ValueError: if `values` is empty or not finite.
        """
        values = np.asarray(values).ravel()
        if values.size == 0:
            raise ValueError("a subject without eroded-brain voxels has no quantile")
        self._weights += np.bincount(_levels_below(values), minlength=GRID_STEPS + 2) / values.size
        self.subjects += 1

    def threshold(self, quantile: float) -> float:
        """Smallest grid threshold that at most `1 - quantile` of the voxels exceed, averaged over subjects.

        Args:
            quantile: between 0 and 1, exclusive.

        Returns:
            A threshold in [0, 1].

        Raises:
            ValueError: if `quantile` is outside (0, 1).
            InputError: if no subject was added.
        """
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, got {quantile}")
        if self.subjects == 0:
            raise InputError("healthy-quantile threshold: no healthy validation scan; add healthy rows with split val")
        at_most = np.cumsum(self._weights) / self.subjects  # share of voxels not above GRID[k]
        level = int(np.searchsorted(at_most, quantile - 1e-9))  # 1e-9: rounding of the running sum
        return float(GRID[min(level, GRID_STEPS)])


def healthy_quantile(maps: Iterable[np.ndarray], quantile: float) -> float:
    """Quantile of anomaly maps over healthy subjects, each weighted equally (1 / n_voxels a voxel).

    Args:
        maps: for each subject, the anomaly map at its eroded-brain voxels, in [0, 1].
        quantile: between 0 and 1, exclusive; the default rule uses 0.99.

    Returns:
        The threshold, on a grid of 1 / 65,536.

    Raises:
        ValueError: if a subject is empty or not finite, or `quantile` is outside (0, 1).
        InputError: if there is no subject.

    Example:
        >>> healthy_quantile([np.array([0.0, 0.25, 0.5, 0.75])], 0.75)
        0.5
    """
    accumulator = HealthyQuantile()
    for values in maps:
        accumulator.add(values)
    return accumulator.threshold(quantile)


class PooledDiceCurve:
    """Pooled Dice of a set of scans at every grid threshold, in constant memory.

    Voxels of all scans are pooled before Dice is computed, and the component filter is not applied. Fill it
    with the lesion validation set for `lesion-val`, with a test data set for `oracle`.

    Example:
        >>> curve = PooledDiceCurve()
        >>> curve.add(np.array([[[0.0, 0.25, 0.75]]]), np.array([[[False, False, True]]]))
        >>> curve.best_threshold()[1]
        1.0
    """

    def __init__(self) -> None:
        self._all = np.zeros(GRID_STEPS + 2, dtype=np.int64)
        self._lesion = np.zeros(GRID_STEPS + 2, dtype=np.int64)
        self._lesion_voxels = 0

    def add(self, anomaly_map: np.ndarray, lesion_mask: np.ndarray) -> None:
        """Add one scan.

        Args:
            anomaly_map: `(D, H, W)` floats, at least 0.
            lesion_mask: `(D, H, W)` bool; lesion voxels where the map is zero count as misses.

        Raises:
            ValueError: if the shapes differ or the map is not finite.
        """
        if anomaly_map.shape != lesion_mask.shape:
            raise ValueError(f"map of shape {anomaly_map.shape}, lesion mask of shape {lesion_mask.shape}")
        lesion_mask = np.asarray(lesion_mask, dtype=bool)
        positive = anomaly_map != 0  # zeros exceed no threshold; leaving them out saves most of the frame
        levels = _levels_below(anomaly_map[positive])
        self._all += np.bincount(levels, minlength=GRID_STEPS + 2)
        self._lesion += np.bincount(levels[lesion_mask[positive]], minlength=GRID_STEPS + 2)
        self._lesion_voxels += int(lesion_mask.sum())

    def dice(self) -> np.ndarray:
        """Pooled Dice at every threshold of `GRID`.

        Returns:
            `(GRID_STEPS + 1,)` values in [0, 1].

        Raises:
            InputError: if no lesion voxel was added.
        """
        if self._lesion_voxels == 0:
            raise InputError("pooled Dice threshold: no lesion voxel in the set; add scans with a lesion mask")
        predicted = self._all[::-1].cumsum()[::-1][1:]  # voxels with map > GRID[k]
        hits = self._lesion[::-1].cumsum()[::-1][1:]
        return 2.0 * hits / (predicted + self._lesion_voxels)

    def best_threshold(self) -> tuple[float, float]:
        """Threshold with the best pooled Dice; of equal ones the highest.

        Returns:
            `(threshold, pooled Dice)`.

        Raises:
            InputError: if no lesion voxel was added.
        """
        dice = self.dice()
        level = GRID_STEPS - int(np.argmax(dice[::-1]))
        return float(GRID[level]), float(dice[level])
