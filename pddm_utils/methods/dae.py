"""DAE: remove coarse noise that looks more like a lesion than pixel noise does (Kascenas et al. 2022)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from pddm_utils.diffusion.network import make_network
from pddm_utils.methods.network_method import NetworkMethod, SliceBatch

NOISE_STD = 0.4  # 0.2 of the paper, for slices in [-1, 1]
NOISE_CELL = 8  # pixels a coarse noise value: the paper's 16x16 values on slices of 128 pixels
_TIMESTEP = 0  # of a network that asks for one
_BACKGROUND = -1 + 0.02  # 0.01 in [0, 1]: below it there is no brain


def coarse_noise(batch: SliceBatch) -> torch.Tensor:
    """Normal noise on a coarse grid, upsampled bilinearly, shifted cyclically by a random number of pixels.

    Args:
        batch: `B` slices of `(H, W)`.

    Returns:
        `(B, 1, H, W)`; the coarse values have standard deviation `NOISE_STD`, those between them less.
    """
    height, width = batch.clean.shape[-2:]
    coarse = NOISE_STD * batch.normal(1, height // NOISE_CELL, width // NOISE_CELL)
    noise = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    shifts = (batch.uniform(2) * torch.tensor([height, width], device=noise.device)).int().tolist()
    return torch.stack([field.roll(shift, dims=(-2, -1)) for field, shift in zip(noise, shifts, strict=True)])


class DAE(NetworkMethod):
    """DAE: `((f(x + n) - x) * foreground)^2` with coarse noise n in the foreground (Kascenas et al. 2022).

    At test time nothing is added: `x^ = f(x)`. Our network is the U-Net of the diffusion models at timestep 0, so
    that DAE and DDPM differ in the damage; the paper's is a U-Net without timesteps. Parameters: laptop 647,297, paper
    37,513,345.
    """

    def make_network(self) -> nn.Module:
        """The shared U-Net."""
        return make_network(self.settings.network, self.image_size)

    def loss(self, network: nn.Module, batch: SliceBatch, part: str = "") -> torch.Tensor:
        """Squared error in the foreground, averaged over all pixels."""
        foreground = batch.clean > _BACKGROUND
        prediction = self._apply(network, batch.clean + coarse_noise(batch) * foreground)
        return ((prediction.float() - batch.clean) ** 2 * foreground).mean()

    def rebuild(
        self, network: nn.Module, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """The network's output for the slice as it is; the background, which it never learnt, stays black."""
        return torch.where(slices > _BACKGROUND, self._apply(network, slices), slices)

    @staticmethod
    def _apply(network: nn.Module, slices: torch.Tensor) -> torch.Tensor:
        return network(slices, _TIMESTEP).sample
