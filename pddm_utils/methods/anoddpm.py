"""AnoDDPM: walk back from x_t to x_0 in several steps instead of one (Wyatt et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.fast_cpu import inference_network
from pddm_utils.diffusion.noise import simplex_noise
from pddm_utils.methods.pipelines import DiffusionReconstruction, subject_seed

_SLICES_AT_ONCE = 32  # bounds the memory of a network call


def trailing_timesteps(timestep: int, steps: int) -> list[int]:
    """Indices of a reverse process that starts exactly at `timestep`, evenly spaced, the largest first.

    Raises:
        InputError: more steps than there are noise levels.

    Example:
        >>> trailing_timesteps(499, 5)
        [499, 399, 299, 199, 99]
    """
    if not 1 <= steps <= timestep + 1:
        raise InputError(f"setting ddim_steps={steps}; from timestep {timestep} there are 1 to {timestep + 1} steps")
    return [round((timestep + 1) * (steps - done) / steps) - 1 for done in range(steps)]


def ddim_reverse(
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    noisy: torch.Tensor,
    timesteps: list[int],
    alphas_cumprod: torch.Tensor,
) -> torch.Tensor:
    """The deterministic reverse process (Song et al. 2021, eq. 12 with sigma 0) down to the clean slice.

    diffusers' `DDIMScheduler` steps by a whole number of indices, so from most noise levels it would miss the end;
    where that number is whole, this gives what it gives.

    Args:
        predict: x_0 from `(x_t, t)`.
        noisy: x_t at the first timestep, `(B, 1, H, W)`.
        timesteps: indices, decreasing.
        alphas_cumprod: abar of every index, `(T,)`.

    Returns:
        `(B, 1, H, W)`; with one timestep, the one-step prediction of x_0.
    """
    kept = [float(alphas_cumprod[index]) for index in timesteps] + [1.0]  # abar; nothing is noise at the end
    for index, now, after in zip(timesteps, kept, kept[1:], strict=False):
        clean = predict(noisy, index).clamp(-1, 1)
        noise = (noisy - now**0.5 * clean) / (1 - now) ** 0.5
        noisy = after**0.5 * clean + (1 - after) ** 0.5 * noise
    return noisy


class AnoDDPMReconstruction(DiffusionReconstruction):
    """Whole-image DDPM with simplex noise and a partial reverse process (Wyatt et al. 2022).

    The network is that of `ddpm` (laptop 0.65 M parameters, paper 37.5 M) and predicts x_0; the paper's predicts the
    noise and walks back through every index with fresh noise, ours in `ddim_steps` deterministic steps.
    """

    def __init__(self, name: str, settings: Settings, seed: int) -> None:
        super().__init__(name, dataclasses.replace(settings, noise="simplex"), seed)

    @torch.inference_mode()
    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1], from the noise level `timestep` in several steps."""
        if self.pipeline is None:
            raise RuntimeError("fit the method or load it with from_pretrained first")
        scheduler = self.pipeline.scheduler
        level = self.pipeline.config.timestep if timestep is None else timestep
        indices = trailing_timesteps(level, self.settings.ddim_steps)
        slices = (torch.from_numpy(scan.image)[:, None] * 2 - 1).to(self.pipeline.device)
        generator = torch.Generator().manual_seed(subject_seed(scan))
        noise = simplex_noise(tuple(slices.shape), generator, slices.device)
        noisy = scheduler.add_noise(slices, noise, torch.full((len(slices),), level, device=slices.device))

        networks = {index: inference_network(self.pipeline.unet, index) for index in indices}

        def predict(noisy: torch.Tensor, index: int) -> torch.Tensor:
            return networks[index](noisy, index).sample

        parts = [
            ddim_reverse(predict, part, indices, scheduler.alphas_cumprod) for part in noisy.split(_SLICES_AT_ONCE)
        ]
        return ((torch.cat(parts).clamp(-1, 1) + 1) / 2)[:, 0].cpu().numpy()
