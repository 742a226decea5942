"""pDDPM: noise and loss inside one cell of a fixed grid (Behrendt et al. 2023, section 3)."""

from __future__ import annotations

from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.methods.pipeline_method import PipelineMethod


class PatchedDDPM(PipelineMethod):
    """The network of `ddpm`, the same slices and steps; only the boxes differ."""

    @property
    def grid(self) -> BoxGrid:
        """Boxes of the settings' size and stride."""
        return BoxGrid(self.image_size, self.settings.box_size, self.settings.stride)
