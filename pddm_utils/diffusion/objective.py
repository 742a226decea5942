"""What a diffusion model learns from healthy slices, from the slice to the loss: whole-image and patched alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel

from pddm_utils.diffusion.boxes import BoxGrid, box_mask, noise_boxes, random_grid_boxes
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.training.device import DeviceSlices
from pddm_utils.training.loop import Objective
from pddm_utils.training.samples import SliceSource, torch_generators


@dataclass(frozen=True)
class Batch:
    """Inputs of one step: `clean`, `noisy` and `mask` `(B, 1, H, W)`, `timesteps` `(B,)`."""

    clean: torch.Tensor
    noisy: torch.Tensor
    mask: torch.Tensor
    timesteps: torch.Tensor


class DiffusionObjective(Objective):
    """Noise one box of a slice, keep the rest as clean context, predict x_0, loss inside the box.

    Which boxes is up to `grid`: the cells of a grid make pDDPM (Behrendt et al. 2023, section 3), one box of the
    slice's size makes the whole-image DDPM (Ho et al. 2020; equations eq-forward and eq-loss-ddpm of the book). Its
    settings are `network`, `noise`, `schedule` and `timestep_power`.
    """

    @property
    def grid(self) -> BoxGrid:
        """The boxes; one is drawn for each sample."""
        raise NotImplementedError

    def make_network(self) -> UNet2DModel:
        """The U-Net that predicts x_0."""
        return make_network(self.settings.network, self.image_size)

    @cached_property
    def scheduler(self) -> DDPMScheduler:
        """The forward process; kept, because its table then stays on the device."""
        return make_scheduler(self.settings.schedule)

    def draw(self, source: SliceSource, seed: int, samples: range, device: torch.device | str = "cpu") -> Batch:
        """A batch of the samples with these global numbers, drawn where the slices lie."""
        if isinstance(source, DeviceSlices):
            return self.batch_from(*source.draw(seed, samples))
        return super().draw(source, seed, samples, device)

    def batch_from(self, clean: torch.Tensor, generator: torch.Generator) -> Batch:
        """What `batch` draws, from one generator for all samples, on its device and without waiting for it.

        Args:
            clean: `(B, 1, H, W)` in [-1, 1].
            generator: on the same device.
        """
        if type(self).boxes is not DiffusionObjective.boxes or type(self).visible is not DiffusionObjective.visible:
            raise NotImplementedError(f"{self.name} draws from one generator for each sample only")
        count, levels = len(clean), self.scheduler.config.num_train_timesteps
        drawn = torch.randint(levels, (count,), generator=generator, device=clean.device)
        timesteps = (levels * ((drawn + 0.5) / levels) ** (1 / self.settings.timestep_power)).long()
        noise = NOISES[self.settings.noise](tuple(clean.shape), generator, clean.device, clean.dtype)
        cell = torch.randint(len(self.grid), (count,), generator=generator, device=clean.device)
        mask = _grid_masks(self.grid, clean.device)[cell]
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        return Batch(clean, torch.where(mask, noisy, clean), mask, timesteps)

    def batch(self, clean: torch.Tensor, rngs: Sequence[np.random.Generator]) -> Batch:
        """Draw a noise level, a noise field and a box for each slice, and noise the box.

        Args:
            clean: `(B, 1, H, W)` in [-1, 1].
            rngs: a generator for each sample.
        """
        scheduler = self.scheduler
        timesteps = torch.tensor(self.timesteps(rngs, scheduler.config.num_train_timesteps), device=clean.device)
        generators = torch_generators(rngs)
        noise = NOISES[self.settings.noise](tuple(clean.shape), generators, clean.device, clean.dtype)
        boxes = self.boxes(len(clean), generators).to(clean.device)
        visible = self.visible(clean, generators)
        noisy = scheduler.add_noise(visible, noise, timesteps)
        return Batch(clean, noise_boxes(visible, noisy, boxes), box_mask(boxes, clean.shape[-2:]), timesteps)

    def timesteps(self, rngs: Sequence[np.random.Generator], levels: int) -> list[int]:
        """Uniform indices for power 1; a larger `timestep_power` moves them towards the high noise levels."""
        power = self.settings.timestep_power
        return [int(levels * ((int(rng.integers(levels)) + 0.5) / levels) ** (1 / power)) for rng in rngs]

    def boxes(self, count: int, generators: list[torch.Generator]) -> torch.Tensor:
        """One box per sample, integer `(B, 4)` rows: a random cell of the grid."""
        return random_grid_boxes(count, self.grid, generators)

    def visible(self, clean: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """What the network sees of the slices `(B, 1, H, W)`, outside the box and under the noise: all of them."""
        return clean

    def predict(self, network: Any, batch: Batch) -> torch.Tensor:
        """The network's x_0 of a batch, `(B, 1, H, W)`."""
        return network(batch.noisy, batch.timesteps).sample

    def loss(self, network: Any, batch: Batch, part: str = "") -> torch.Tensor:
        """`box_loss` of the network's prediction."""
        return box_loss(self.predict(network, batch).float(), batch.clean, batch.mask)


@lru_cache(maxsize=8)
def _grid_masks(grid: BoxGrid, device: torch.device) -> torch.Tensor:
    """Masks of a grid's boxes, `(N, 1, H, W)` bool: made and checked once, then only looked up."""
    return box_mask(grid.boxes, grid.image_size).to(device)


def box_loss(prediction: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 between x_0 and its prediction, averaged inside the box, then over the batch (paper, section 3).

    Args:
        prediction, clean: `(B, 1, H, W)`.
        mask: `(B, 1, H, W)` bool, True inside the box.
    """
    inside = (prediction - clean).abs() * mask
    return (inside.flatten(1).sum(1) / mask.flatten(1).sum(1)).mean()
