"""pDDPM trained with boxes at random places instead of the cells of a grid (Behrendt et al. 2023, section 3)."""

from __future__ import annotations

import torch
from torch import nn

from pddm_utils.diffusion.boxes import coverage_probability, random_boxes
from pddm_utils.diffusion.objective import Batch
from pddm_utils.methods.pddpm import PatchedDDPM


class RandomBoxDDPM(PatchedDDPM):
    """pDDPM with random boxes in training; at test time the fixed grid, as for `pddpm`.

    The L1 inside the box is divided by the mean area of a box instead of its own: a box that is cut at the border would
    otherwise count its few pixels more, and so every pixel of the slice has the same weight. The network is that of
    `pddpm` (laptop 0.65 M parameters, paper 37.5 M).
    """

    def boxes(self, count: int, generators: list[torch.Generator]) -> torch.Tensor:
        """One box per sample at any place, integer `(B, 4)` rows; cut at the border, for equal coverage."""
        return random_boxes(count, self.grid.image_size, self.grid.box_size, generators, cut=True)

    def loss(self, network: nn.Module, batch: Batch, part: str = "") -> torch.Tensor:
        """L1 inside the box over the mean area of a box, averaged over the batch."""
        inside = (self.predict(network, batch).float() - batch.clean).abs() * batch.mask
        area = coverage_probability(self.grid.image_size, self.grid.box_size, cut=True).sum().item()
        return inside.flatten(1).sum(1).mean() / area
