"""cDDPM: a whole-image diffusion model that an encoder tells about the slice (Behrendt et al., arXiv 2312.04215)."""

from __future__ import annotations

import torch
from torch import nn

from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.network import NETWORKS, make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, DiffusionObjective
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.diffusion.sampling import noise_and_walk_back
from pddm_utils.methods.convolutional import dense_latent, make_encoder
from pddm_utils.methods.network_method import NetworkMethod


class ConditionedUNet(nn.Module):
    """A U-Net whose time embedding is shifted by a code of the clean slice.

    Args:
        size: `smoke`, `laptop`, `wide` or `paper`.
        image_size: height and width of a slice in pixels.
    """

    def __init__(self, size: str, image_size: int) -> None:
        super().__init__()
        code = 4 * NETWORKS[size]["block_out_channels"][0]  # width of UNet2DModel's time embedding
        self.encoder = nn.Sequential(make_encoder(size), dense_latent(size, image_size, code))
        self.unet = make_network(size, image_size, class_embed_type="identity")

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """x_0 predicted from x_t and the code of the slice, `(B, 1, H, W)`.

        Args:
            noisy: x_t, `(B, 1, H, W)`.
            timesteps: `(B,)`.
            clean: the slice, `(B, 1, H, W)`, which only the encoder sees.
        """
        return self.unet(noisy, timesteps, class_labels=self.encoder(clean)).sample


class ConditionedDDPM(DiffusionObjective, NetworkMethod):
    """cDDPM: loss `|x_0 - f(x_t, t, E(x_0))|` (Behrendt et al. 2023, arXiv 2312.04215, the conditioned denoising).

    The code E(x_0) is one vector for the whole slice: too small to carry a lesion, enough for its intensities. The
    published encoder is a ResNet-18 pre-trained with masked slices; ours is that of the autoencoders, trained along
    with the U-Net. Parameters at 96x96: laptop 852,593, paper 38,478,289.
    """

    @property
    def grid(self) -> BoxGrid:
        """One box of the slice's size."""
        return BoxGrid(self.image_size, self.image_size)

    def make_network(self) -> ConditionedUNet:
        """U-Net and encoder, untrained."""
        return ConditionedUNet(self.settings.network, self.image_size)

    def predict(self, network: ConditionedUNet, batch: Batch) -> torch.Tensor:
        """x_0 from x_t and the code of the slice."""
        return network(batch.noisy, batch.timesteps, batch.clean)

    def rebuild(
        self, network: ConditionedUNet, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """One step from x_t, conditioned on the slice."""
        level = self.settings.authors_timestep if timestep is None else timestep
        noise = NOISES[self.settings.noise](tuple(slices.shape), generator=generator, device=slices.device)
        return noise_and_walk_back(
            lambda noisy, index: network(noisy, index, slices),
            make_scheduler(self.settings.schedule),
            slices,
            noise,
            self.grid.boxes.to(slices.device).expand(len(slices), 4),
            [level],
        )
