"""cDDPM: a whole-image diffusion model that an encoder tells about the slice (Behrendt et al., arXiv 2312.04215)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.network import NETWORKS, make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, DiffusionObjective
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.methods.convolutional import dense_latent, make_encoder
from pddm_utils.methods.network_method import NetworkMethod

PUBLISHED: dict[str, Any] = {"noise": "simplex", "schedule": "squaredcos_cap_v2", "timestep_power": 1.0}
# The authors' 250, 500 and 750 of 1000, at the same ratio of noise to signal: their simplex noise has a standard
# deviation of 0.58, ours of 1.
LEVELS = (146, 333, 604)
_GAMMA, _BIAS, _BLUR = 0.5, 0.25, 0.25  # probabilities of the augmentations
_LOG_GAMMA = 0.3
_BIAS_ORDER, _BIAS_SIZE = 3, 0.5
_BLUR_PIXELS = 2.0


def augment_intensity(slices: torch.Tensor, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """Another contrast of the same anatomy: gamma, bias field and blur, each with its own probability.

    Args:
        slices: `(B, 1, H, W)` in [-1, 1], background -1.
        rngs: a generator for each sample.

    Returns:
        `(B, 1, H, W)` in [-1, 1]; the background stays.
    """
    planes = [_augmented(plane, rng) for plane, rng in zip((slices[:, 0].cpu().numpy() + 1) / 2, rngs, strict=True)]
    return (torch.from_numpy(np.stack(planes))[:, None] * 2 - 1).to(slices.device, slices.dtype)


def _augmented(plane: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = plane
    if rng.random() < _GAMMA:
        result = result ** np.exp(rng.uniform(-_LOG_GAMMA, _LOG_GAMMA))
    if rng.random() < _BIAS:
        y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in plane.shape), indexing="ij")
        powers = [(i, j) for i in range(_BIAS_ORDER + 1) for j in range(_BIAS_ORDER + 1 - i)]
        field = sum(rng.uniform(-_BIAS_SIZE, _BIAS_SIZE) * y**i * x**j for i, j in powers)
        result = result * np.exp(field)
    if rng.random() < _BLUR:
        result = ndimage.gaussian_filter(result, rng.uniform(0, _BLUR_PIXELS))
    return np.where(plane > 0, np.clip(result, 0, 1), 0).astype(np.float32)


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

    The code E(x_0) is one vector for the whole slice: too small to carry a lesion, enough for its intensities. As in
    the public configuration: simplex noise, timesteps drawn evenly, intensities augmented, and at test time the mean of
    three one-step reconstructions at fixed noise levels, each with noise of its own. Their encoder is a ResNet-50
    pre-trained with masked slices; ours is that of the autoencoders, trained from scratch along with the U-Net.
    Parameters at 96x96: laptop 852,593, paper 38,478,289.
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0, image_size: int = SLICE_SIZE) -> None:
        super().__init__(name, dataclasses.replace(settings, **PUBLISHED), seed, image_size)

    def batch(self, clean: torch.Tensor, rngs: Sequence[np.random.Generator]) -> Batch:
        """A batch of slices whose intensities are augmented: what is encoded, noised and to be predicted."""
        return super().batch(augment_intensity(clean, rngs), rngs)

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
        """Mean over `LEVELS` of one step from x_t, conditioned on the slice; the timestep is not looked at."""
        code = network.encoder(slices)
        scheduler, total = make_scheduler(self.settings.schedule), torch.zeros_like(slices)
        for level in LEVELS:
            noise = NOISES[self.settings.noise](tuple(slices.shape), generator=generator, device=slices.device)
            noisy = scheduler.add_noise(slices, noise, torch.full((len(slices),), level, device=slices.device))
            total += network.unet(noisy, level, class_labels=code).sample
        return total / len(LEVELS)
