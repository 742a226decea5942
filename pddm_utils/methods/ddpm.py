"""DDPM on whole slices: the baseline that patching is compared with (Ho et al. 2020; Behrendt et al. 2023)."""

from __future__ import annotations

from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.methods.pipeline_method import PipelineMethod


class DDPM(PipelineMethod):
    """Noise on the whole slice, loss over the whole slice (laptop 0.65 M parameters, paper 37.5 M)."""

    @property
    def grid(self) -> BoxGrid:
        """One box of the slice's size."""
        return BoxGrid(self.image_size, self.image_size)
