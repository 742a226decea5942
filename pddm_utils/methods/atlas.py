"""A floor without a network: how unusual an intensity is at its place of the brain, by a table of healthy scans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.evaluation.metrics import healthy_l1
from pddm_utils.evaluation.places import LARGEST_SCORE, HealthyPlaces, PlaceStatistics, towards_lesions
from pddm_utils.methods.base import FittedMethod
from pddm_utils.training.samples import SliceSource


class Atlas(FittedMethod):
    """`x^` is the mean by place of the healthy training scans, the score the z-score by place, towards lesions.

    Mean and standard deviation of the intensity on a grid of 24 x 40 x 32 places of the brain's bounding box (61,440
    numbers), over all slices of all training scans: nothing is drawn, so seed and number of steps do not matter.

    Args:
        name: of the method.
        settings: which scans it learns from.
        seed: has no influence.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0) -> None:
        super().__init__(name, settings, seed)
        self.places: PlaceStatistics | None = None

    def _learn(self, train: SliceSource) -> int:
        counted = HealthyPlaces()
        for scan in self._scans(train):
            counted.add(scan.image, scan.brain_mask)
        self.places = counted.statistics()
        return 0

    def _validation_loss(self, val: SliceSource) -> float:
        errors = [healthy_l1(scan.image, self.reconstruct(scan), scan.brain_mask) for scan in self._scans(val)]
        return float(np.mean(errors)) if errors else float("nan")  # in [0, 1], inside the brain

    def _scans(self, source: SliceSource) -> Iterator[Scan]:
        if not isinstance(source, HealthySlices):
            raise InputError(f"{self.name} learns from whole scans with their brain masks; pass HealthySlices")
        return source.scans()

    def _save(self, path: Path) -> None:
        self._table().save(path)

    def _load(self, path: Path) -> None:
        self.places = PlaceStatistics.load(path)

    def _table(self) -> PlaceStatistics:
        if self.places is None:
            raise RuntimeError("fit the method or open its weights first")
        return self.places

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """The mean by place, `(D, H, W)` float32 in [0, 1]; 0 outside the brain."""
        return np.where(scan.brain_mask, self._table().expected(scan.brain_mask).clip(0, 1), 0).astype(np.float32)

    def score(self, scan: Scan, reconstruction: np.ndarray) -> np.ndarray:
        """The z-score by place towards lesions, over `LARGEST_SCORE`: `(D, H, W)` in [0, 1)."""
        z = self._table().z_score(scan.image, scan.brain_mask)
        return towards_lesions(z, scan.contrast) / LARGEST_SCORE
