"""A floor without a network: how unusual an intensity is at its place of the brain, by a table of healthy scans."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.evaluation.metrics import healthy_l1
from pddm_utils.evaluation.places import LARGEST_SCORE, HealthyPlaces, PlaceStatistics, towards_lesions
from pddm_utils.methods.base import Method
from pddm_utils.methods.registry import training_key
from pddm_utils.training.loop import finished_key, write_model
from pddm_utils.training.samples import SliceSource, check_source

WEIGHTS = "model.safetensors"


class Atlas(Method):
    """`x^` is the mean by place of the healthy training scans, the score the z-score by place, towards lesions.

    Mean and standard deviation of the intensity on a grid of 24 x 40 x 32 places of the brain's bounding box (61,440
    numbers), over all slices of all training scans: nothing is drawn, so seed and number of steps do not matter.

    Args:
        name: of the method.
        settings: which scans it learns from.
        seed: has no influence.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.places: PlaceStatistics | None = None

    def key(self, seed: int) -> str:
        """The settings that the table depends on, see `training_key`."""
        return training_key(self.settings, self.name, seed)

    def fit(self, train: SliceSource, val: SliceSource, folder: Path) -> None:
        """Count unless `folder` holds this very table; it takes seconds, so an interrupted count starts again.

        Raises:
            InputError: there are no slices, or slices without their scans.
        """
        if finished_key(folder) != self.key(self.seed):
            check_source(train)
            if not (isinstance(train, HealthySlices) and isinstance(val, HealthySlices)):
                raise InputError(f"{self.name} learns from whole scans with their brain masks; pass HealthySlices")
            self._fit(train, val, folder)
        self.open(folder)

    def _fit(self, train: HealthySlices, val: HealthySlices, folder: Path) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        counted = HealthyPlaces()
        for scan in train.scans():
            counted.add(scan.image, scan.brain_mask)
        self.places = counted.statistics()
        times = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        errors = [healthy_l1(scan.image, self.reconstruct(scan), scan.brain_mask) for scan in val.scans()]
        loss = round(float(np.mean(errors)), 6) if errors else float("nan")  # in [0, 1], inside the brain
        record = {"step": 0, **times, "history": [{"step": 0, "validation_loss": loss}]}
        write_model(folder, self, self.seed, record, lambda part: counted.statistics().save(part / WEIGHTS))

    def open(self, folder: str | Path) -> None:
        """Take the table that lies in `folder` (`InputError` when there is none, or it is damaged)."""
        path = Path(folder) / WEIGHTS
        if not path.is_file():
            raise InputError(f"{path}: no such file; train {self.name} first")
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
