"""AnoDDPM: simplex noise, and a partial reverse process from x_t to x_0 step by step (Wyatt et al. 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from diffusers import UNet2DModel

from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.objective import Batch, DiffusionObjective
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.diffusion.sampling import trailing_timesteps
from pddm_utils.methods.network_method import NetworkMethod

# The published training, whatever the profile says; its EMA is 0.9999 once it has warmed up.
PUBLISHED: dict[str, Any] = {
    "noise": "simplex",
    "schedule": "linear",
    "timestep_power": 1.0,
    "learning_rate": 1e-4,
    "learning_rate_decay": "none",
    "warmup_steps": 0,
    "ema_decay": 0.9999,
}


class AnoDDPM(DiffusionObjective, NetworkMethod):
    """AnoDDPM: loss `(eps - f(x_t, t))^2` with simplex noise and the linear schedule (Wyatt et al. 2022).

    At test time x_t is drawn once and walked back to the clean slice with fresh simplex noise at every step. The
    setting `ddim_steps` says in how many: as many as the noise level has indices, or more, is every index, as
    published; a volume is affordable in few. The network is that of `ddpm` (laptop 0.65 M parameters, paper 37.5 M).
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0, image_size: int = SLICE_SIZE) -> None:
        super().__init__(name, dataclasses.replace(settings, **PUBLISHED), seed, image_size)

    @property
    def grid(self) -> BoxGrid:
        """One box of the slice's size."""
        return BoxGrid(self.image_size, self.image_size)

    def loss(self, network: Any, batch: Batch, part: str = "") -> torch.Tensor:
        """Squared error of the predicted noise."""
        level = make_scheduler(self.settings.schedule).alphas_cumprod.to(batch.clean.device)[batch.timesteps]
        level = level.view(-1, 1, 1, 1)
        noise = (batch.noisy - level.sqrt() * batch.clean) / (1 - level).sqrt()
        return (self.predict(network, batch).float() - noise).square().mean()

    def rebuild(
        self, network: UNet2DModel, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """The partial reverse process from x_t."""
        level = self.settings.authors_timestep if timestep is None else timestep
        alphas = make_scheduler(self.settings.schedule).alphas_cumprod.tolist()

        def noise() -> torch.Tensor:
            return NOISES["simplex"](tuple(slices.shape), generator=generator, device=slices.device)

        noisy = alphas[level] ** 0.5 * slices + (1 - alphas[level]) ** 0.5 * noise()
        steps = trailing_timesteps(level, min(self.settings.ddim_steps, level + 1))
        for index, after in zip(steps, [*steps[1:], None], strict=True):
            estimate = network(noisy, index).sample
            clean = ((noisy - (1 - alphas[index]) ** 0.5 * estimate) / alphas[index] ** 0.5).clamp(-1, 1)
            if after is None:
                return clean
            noisy = posterior_mean(clean, noisy, alphas[index], alphas[after])
            noisy = noisy + (1 - alphas[index] / alphas[after]) ** 0.5 * noise()
        raise AssertionError("a reverse process has at least one step")


def posterior_mean(clean: torch.Tensor, noisy: torch.Tensor, now: float, then: float) -> torch.Tensor:
    """Mean of x at the smaller noise level, given x_0 and x at the larger (Ho et al. 2020, eq. 7, over many indices).

    Args:
        clean, noisy: x_0 and x_t, of one shape.
        now, then: abar of x_t and of the level that is asked for, `now < then`.
    """
    kept = now / then
    return (then**0.5 * (1 - kept) * clean + kept**0.5 * (1 - then) * noisy) / (1 - now)
