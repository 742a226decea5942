"""What a diffusion model learns from healthy slices: the draws and the loss of whole-image and patched diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pddm_utils.core.settings import Settings
from pddm_utils.diffusion.boxes import BoxGrid, Generators, box_mask, noise_boxes, random_grid_boxes
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.training.loop import Objective, SliceSource, check_source, draw_slices, torch_generators


@dataclass(frozen=True)
class Batch:
    """Inputs of one step: `clean`, `noisy` and `mask` `(B, 1, H, W)`, `timesteps` `(B,)`."""

    clean: torch.Tensor
    noisy: torch.Tensor
    mask: torch.Tensor
    timesteps: torch.Tensor


class SampleDrawer:
    """Draws the training samples of one model: slice, noise level, noise field and box.

    Args:
        source: healthy slices.
        settings: noise type, schedule, and how often each noise level is drawn.
        grid: one cell is drawn per sample; a grid of one box is whole-image diffusion.
        seed: of all draws.
    """

    def __init__(self, source: SliceSource, settings: Settings, grid: BoxGrid, seed: int) -> None:
        check_source(source)
        self.source, self.grid, self.seed = source, grid, seed
        self.noise, self.timestep_power = NOISES[settings.noise], settings.timestep_power
        self.scheduler = make_scheduler(settings.schedule)
        self.levels = self.scheduler.config.num_train_timesteps

    def draw(self, samples: range, device: torch.device | str = "cpu") -> Batch:
        """The samples with these global numbers, whatever batch or process they fall in."""
        clean, rngs = draw_slices(self.source, self.seed, samples)
        timesteps = [self._timestep(int(rng.integers(self.levels))) for rng in rngs]
        generators, clean = torch_generators(rngs), clean.to(device)
        steps = torch.tensor(timesteps, device=device)
        noise = self.noise(tuple(clean.shape), generator=generators, device=clean.device, dtype=clean.dtype)
        boxes = self.boxes(len(clean), generators).to(device)
        noisy = noise_boxes(clean, self.scheduler.add_noise(self.visible(clean, generators), noise, steps), boxes)
        return Batch(clean, noisy, box_mask(boxes, tuple(clean.shape[-2:])), steps)

    def _timestep(self, uniform: int) -> int:
        """A uniform index as it is for power 1; larger powers move it towards the high noise levels."""
        return int(self.levels * ((uniform + 0.5) / self.levels) ** (1 / self.timestep_power))

    def boxes(self, count: int, generators: Generators) -> torch.Tensor:
        """One box per sample, integer `(B, 4)` rows: a random cell of the grid."""
        return random_grid_boxes(count, self.grid, generators)

    def visible(self, clean: torch.Tensor, generators: Generators) -> torch.Tensor:
        """What of the slices `(B, 1, H, W)` is noised: all of it."""
        return clean


def box_loss(prediction: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 between x_0 and its prediction, averaged inside the box, then over the batch (paper, section 3).

    Args:
        prediction, clean: `(B, 1, H, W)`.
        mask: `(B, 1, H, W)` bool, True inside the box.
    """
    inside = (prediction - clean).abs() * mask
    return (inside.flatten(1).sum(1) / mask.flatten(1).sum(1)).mean()


class DiffusionObjective(Objective):
    """Whole-image DDPM: predict x_0 from x_t (Ho et al. 2020; equations eq-forward and eq-loss-ddpm of the book).

    Its settings are `network`, `noise` and `schedule`; `pddm_utils.diffusion.network` names the sizes.
    """

    drawer_class: type[SampleDrawer] = SampleDrawer

    @property
    def grid(self) -> BoxGrid:
        """One box of the slice's size."""
        return BoxGrid(self.image_size, self.image_size)

    def make_network(self) -> nn.Module:
        """The U-Net that predicts x_0."""
        return make_network(self.settings.network, self.image_size)

    def drawer(self, source: SliceSource, seed: int) -> SampleDrawer:
        """Draws slices, noise levels, noise fields and boxes."""
        return self.drawer_class(source, self.settings, self.grid, seed)

    def loss(self, network: nn.Module, batch: Batch, part: str = "") -> torch.Tensor:
        """`box_loss` of the network's prediction."""
        prediction = network(batch.noisy, batch.timesteps).sample
        return box_loss(prediction.float(), batch.clean, batch.mask)

    def save(self, network: nn.Module, folder: Path) -> None:
        """A pipeline of fp16 weights."""
        PatchedReconstructionPipeline(
            network.half(),
            make_scheduler(self.settings.schedule),
            self.grid.box_size[0],
            self.grid.stride[0],
            self.settings.noise,
            self.settings.authors_timestep,
        ).save_pretrained(folder)


class PatchedObjective(DiffusionObjective):
    """pDDPM: noise and loss inside one cell of a fixed grid (Behrendt et al. 2023, section 3)."""

    @property
    def grid(self) -> BoxGrid:
        """Boxes of the settings' size and stride."""
        return BoxGrid(self.image_size, self.settings.box_size, self.settings.stride)
