"""AnoDDPM: walk back from x_t to x_0 in several steps instead of one (Wyatt et al. 2022)."""

from __future__ import annotations

import dataclasses

from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.methods.ddpm import DDPM


class AnoDDPM(DDPM):
    """Whole-image DDPM with simplex noise and a partial reverse process (Wyatt et al. 2022).

    The network is that of `ddpm` (laptop 0.65 M parameters, paper 37.5 M) and predicts x_0; the paper's predicts the
    noise and walks back through every index with fresh noise, ours in `ddim_steps` deterministic steps.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0, image_size: int = SLICE_SIZE) -> None:
        super().__init__(name, dataclasses.replace(settings, noise="simplex"), seed, image_size)
        self.steps = settings.ddim_steps
