"""Methods that are a diffusion pipeline: a noise level, boxes, and one step back to the clean slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.objective import DiffusionObjective
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline, make_scheduler
from pddm_utils.methods.base import LearnedMethod, subject_seed


class PipelineMethod(DiffusionObjective, LearnedMethod):
    """Stored as a folder of a diffusers pipeline; subclasses say which boxes are noised."""

    pipeline: PatchedReconstructionPipeline | None = None

    def save(self, network: Any, folder: Path) -> None:
        """A pipeline of fp16 weights."""
        settings, box, stride = self.settings, self.grid.box_size[0], self.grid.stride[0]
        PatchedReconstructionPipeline(
            network.half(), make_scheduler(settings.schedule), box, stride, settings.noise, settings.authors_timestep
        ).save_pretrained(folder)

    def open(self, folder: str | Path) -> None:
        """Load the pipeline in `folder` (`InputError` when there is none that fits)."""
        self.pipeline = load_pipeline(folder, self.image_size)

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1], with the noise of `subject_seed`.

        Args:
            scan: a prepared scan.
            timestep: noise level; the pipeline's own when left out.
        """
        if self.pipeline is None:
            raise RuntimeError("fit the method or open its weights first")
        return self.pipeline.reconstruct_volume(scan.image, scan.brain_mask, timestep, subject_seed(scan))
