"""Methods stored as one diffusion pipeline: a noise level, one step a box; they differ in what they learn from."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.diffusion.objective import DiffusionObjective, PatchedObjective
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.methods.mddpm import MaskedObjective
from pddm_utils.methods.random_boxes import RandomBoxObjective
from pddm_utils.training.loop import SliceSource, Trainer, check_source

OBJECTIVES: dict[str, type[DiffusionObjective]] = {
    "ddpm": DiffusionObjective,
    "pddpm": PatchedObjective,
    "pddpm-random": RandomBoxObjective,
    "mddpm": MaskedObjective,
    "anoddpm": DiffusionObjective,  # it differs in how it walks back
}


def diffusion_trainer(
    settings: Settings, method: str, seed: int, train: SliceSource, val: SliceSource, folder: Path
) -> Trainer:
    """The training run of one of `OBJECTIVES`.

    Args:
        settings: the run's settings.
        method: its name, such as `ddpm` (one box of the slice's size) or `pddpm`.
        seed: of the network's first weights and of every draw.
        train, val: healthy slices.
        folder: the finished pipeline.
    """
    check_source(train)
    return Trainer(OBJECTIVES[method](method, settings, train[0].shape[-1]), seed, train, val, folder)


def subject_seed(scan: Scan) -> int:
    """Seed of a scan's noise: every subject has its own, and its copies with and without a lesion share it."""
    return zlib.crc32(scan.subject.encode())


class DiffusionReconstruction:
    """One of `OBJECTIVES` behind the method protocol.

    Args:
        name: such as `ddpm` (the box is the whole slice) or `pddpm`.
        settings: network, noise and training budget.
        seed: of the training run.
    """

    def __init__(self, name: str, settings: Settings, seed: int) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.pipeline: PatchedReconstructionPipeline | None = None

    def fit(self, train: HealthySlices, val: HealthySlices, folder: Path) -> None:
        """Train, or go on training, and load the finished pipeline from `folder`."""
        self.pipeline = load_pipeline(diffusion_trainer(self.settings, self.name, self.seed, train, val, folder).run())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, name: str, settings: Settings, seed: int = 0
    ) -> DiffusionReconstruction:
        """A method whose pipeline lies in `folder`."""
        method = cls(name, settings, seed)
        method.pipeline = load_pipeline(folder)
        return method

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1], with the noise of `subject_seed`.

        Args:
            scan: a prepared scan.
            timestep: noise level; the pipeline's own when left out.
        """
        if self.pipeline is None:
            raise RuntimeError("fit the method or load it with from_pretrained first")
        return self.pipeline.reconstruct_volume(scan.image, scan.brain_mask, timestep, subject_seed(scan))
