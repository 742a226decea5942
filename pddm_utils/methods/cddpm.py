"""cDDPM: a whole-image diffusion model that an encoder tells about the slice (Behrendt et al., arXiv 2312.04215)."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.fast_cpu import inference_network
from pddm_utils.diffusion.network import NETWORKS, make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, SampleDrawer, box_loss
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.methods.convolutional import dense_latent, make_encoder
from pddm_utils.methods.learned import NetworkObjective, NetworkReconstruction
from pddm_utils.training.loop import SliceSource


class ConditionedUNet(nn.Module):
    """A U-Net whose time embedding is shifted by a code of the clean slice.

    Args:
        size: `smoke`, `laptop` or `paper`.
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


class ConditionedObjective(NetworkObjective):
    """cDDPM: loss `|x_0 - f(x_t, t, E(x_0))|` (Behrendt et al. 2023, arXiv 2312.04215, the conditioned denoising).

    The code E(x_0) is one vector for the whole slice: too small to carry a lesion, enough for its intensities. The
    published encoder is a ResNet-18 pre-trained with masked slices; ours is that of the autoencoders, trained along
    with the U-Net. Parameters at 96x96: laptop 852,593, paper 38,478,289.
    """

    def make_network(self) -> ConditionedUNet:
        """U-Net and encoder, untrained."""
        return ConditionedUNet(self.settings.network, self.image_size)

    def drawer(self, source: SliceSource, seed: int) -> SampleDrawer:
        """The draws of whole-image diffusion."""
        return SampleDrawer(source, self.settings, BoxGrid(self.image_size, self.image_size), seed)

    def loss(self, network: ConditionedUNet, batch: Batch, part: str = "") -> torch.Tensor:
        """L1 over the slice."""
        prediction = network(batch.noisy, batch.timesteps, batch.clean)
        return box_loss(prediction.float(), batch.clean, batch.mask)

    def for_inference(self, network: ConditionedUNet) -> ConditionedUNet:
        """The same with a faster U-Net, which keeps its time embedding, since the code of the slice is added to it."""
        network = copy.deepcopy(network)
        network.unet = inference_network(network.unet)
        return network

    def rebuild(
        self, network: ConditionedUNet, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """One step from x_t, conditioned on the slice."""
        level = self.settings.authors_timestep if timestep is None else timestep
        noise = NOISES[self.settings.noise](tuple(slices.shape), generator=generator, device=slices.device)
        steps = torch.full((len(slices),), level, dtype=torch.long, device=slices.device)
        noisy = make_scheduler(self.settings.schedule).add_noise(slices, noise, steps)
        return network(noisy, steps, slices)


class ConditionedReconstruction(NetworkReconstruction):
    """The `cddpm` of the benchmark."""

    objective = ConditionedObjective
