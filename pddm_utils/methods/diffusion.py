"""Whole-image DDPM and patched pDDPM: one network, one loop, one pipeline; the box size is the only difference."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.diffusion.training import Trainer
from pddm_utils.settings import Settings


class DiffusionReconstruction:
    """`ddpm` or `pddpm` behind the method protocol.

    Args:
        name: `ddpm` (the box is the whole slice) or `pddpm`.
        settings: network, noise and training budget, shared by both.
        seed: of the training run.
    """

    def __init__(self, name: str, settings: Settings, seed: int) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.pipeline: PatchedReconstructionPipeline | None = None

    def fit(self, train: HealthySlices, val: HealthySlices, folder: Path) -> None:
        """Train, or go on training, and load the finished pipeline from `folder`."""
        self.pipeline = load_pipeline(Trainer(self.settings, self.name, self.seed, train, val, folder).run())

    @classmethod
    def from_pretrained(cls, folder: str | Path, name: str, settings: Settings, seed: int = 0):
        """A method whose pipeline lies in `folder`."""
        method = cls(name, settings, seed)
        method.pipeline = load_pipeline(folder)
        return method

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1].

        The noise is seeded by the subject: every subject has its own fields, and its copies with and without a
        lesion share them.

        Args:
            scan: a prepared scan.
            timestep: noise level; the pipeline's own when left out.
        """
        if self.pipeline is None:
            raise RuntimeError("fit the method or load it with from_pretrained first")
        seed = zlib.crc32(scan.subject.encode())
        return self.pipeline.reconstruct_volume(scan.image, scan.brain_mask, timestep, seed)
