"""What is scored of a reconstruction: |x - x^|, its signed part towards lesions, or the z-score of that by place.

The floors `atlas` and `blur` know in which direction lesions lie. With `signed` and `place` the networks know it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.core.settings import Settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.detection.z_score import lesion_z_score, residuals_by_place
from pddm_utils.evaluation.places import LARGEST_SCORE, PlaceStatistics, towards_lesions
from pddm_utils.methods.base import Method, UnlearnedMethod
from pddm_utils.methods.registry import FLOORS

REFERENCE_SLICES = 120  # of training scans, rebuilt for the healthy residual by place


class TowardsLesions(UnlearnedMethod):
    """A fitted method, scored by its residual in the direction of lesions.

    Args:
        method: that rebuilds.
        places: healthy residuals of it, for the z-score by place; None for the residual itself.
    """

    def __init__(self, method: Method, places: PlaceStatistics | None = None) -> None:
        super().__init__(method.name)
        self.method, self.places = method, places

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """As the method does."""
        return self.method.reconstruct(scan, timestep)

    def score(self, scan: Scan, reconstruction: np.ndarray) -> np.ndarray:
        """`(D, H, W)` in [0, 1]; the z-score over `LARGEST_SCORE`."""
        if self.places is None:
            return towards_lesions(scan.image - reconstruction, scan.contrast)
        return lesion_z_score(scan, reconstruction, self.places) / LARGEST_SCORE


def reference_rows(rows: Sequence[ManifestRow], cache: ScanCache, slice_step: int) -> list[ManifestRow]:
    """The first healthy training scans, with about `REFERENCE_SLICES` slices that are looked at."""
    taken, slices = [], 0
    for row in rows:
        if row.split == "train" and not row.lesion_mask and slices < REFERENCE_SLICES:
            taken.append(row)
            slices += max(1, cache.slice_count(row) // slice_step)
    return taken


def score_depends_on(
    name: str, settings: Settings, rows: Sequence[ManifestRow], cache: ScanCache
) -> tuple[dict[str, Any], list[ManifestRow]]:
    """Settings and scans that the scores of a method depend on besides those of its own.

    Args:
        name: of the method.
        settings, rows, cache: as `scored` takes them.
    """
    if settings.score == "absolute" or name in FLOORS:
        return {}, []
    if settings.score == "signed":
        return {"score": settings.score}, []
    step = settings.selection_slice_step
    return {"score": settings.score, "selection_slice_step": step}, reference_rows(rows, cache, step)


def scored(
    method: Method, settings: Settings, rows: Sequence[ManifestRow], cache: ScanCache, timestep: int | None
) -> Method:
    """The method with the map that the settings ask for.

    Args:
        method: fitted.
        settings: with `score` and `selection_slice_step`.
        rows: the cohort; its first training scans are rebuilt where the score is by place.
        cache: prepared scans.
        timestep: noise level.
    """
    if settings.score == "absolute" or method.name in FLOORS:
        return method  # floors keep their own
    if settings.score == "signed":
        return TowardsLesions(method)
    step = settings.selection_slice_step
    healthy = (every_nth_slice(load_scan(row, cache), step) for row in reference_rows(rows, cache, step))
    return TowardsLesions(method, residuals_by_place(healthy, lambda scan: method.reconstruct(scan, timestep)))
