"""Samplers: from noised slices back to clean ones, as free functions of a network's prediction and a schedule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import noise_boxes

Predict = Callable[[torch.Tensor, int], torch.Tensor]  # x_0 from (x_t, t)


def trailing_timesteps(timestep: int, steps: int) -> list[int]:
    """Indices of a reverse process that starts exactly at `timestep`, evenly spaced, the largest first.

    Raises:
        InputError: more steps than there are noise levels.

    Example:
        >>> trailing_timesteps(499, 5)
        [499, 399, 299, 199, 99]
    """
    if not 1 <= steps <= timestep + 1:
        raise InputError(f"{steps} steps back from timestep {timestep}; there are 1 to {timestep + 1}")
    return [round((timestep + 1) * (steps - done) / steps) - 1 for done in range(steps)]


def ddim_reverse(
    predict: Predict, noisy: torch.Tensor, timesteps: list[int], alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """The deterministic reverse process (Song et al. 2021, eq. 12 with sigma 0) down to the clean slice.

    diffusers' `DDIMScheduler` steps by a whole number of indices, so from most noise levels it would miss the end;
    where that number is whole, this gives what it gives. With one timestep it is the one-step prediction of x_0 of the
    paper (Behrendt et al. 2023, section 3).

    Args:
        predict: x_0 from `(x_t, t)`.
        noisy: x_t at the first timestep, `(B, 1, H, W)`.
        timesteps: indices, decreasing.
        alphas_cumprod: abar of every index, `(T,)`.

    Returns:
        `(B, 1, H, W)`, the last prediction as the network gave it.
    """
    for index, after in zip(timesteps, timesteps[1:], strict=False):
        now, then = float(alphas_cumprod[index]), float(alphas_cumprod[after])
        clean = predict(noisy, index).clamp(-1, 1)
        noise = (noisy - now**0.5 * clean) / (1 - now) ** 0.5
        noisy = then**0.5 * clean + (1 - then) ** 0.5 * noise
    return predict(noisy, timesteps[-1])


def noise_and_walk_back(
    predict: Predict,
    scheduler: DDPMScheduler,
    clean: torch.Tensor,
    noise: torch.Tensor,
    boxes: torch.Tensor,
    timesteps: list[int],
) -> torch.Tensor:
    """x_0 of boxed slices: noise inside the box, the clean context around it at every step.

    Args:
        predict: x_0 from `(x_t, t)`.
        scheduler: the forward process.
        clean: slices, `(P, 1, H, W)` in [-1, 1].
        noise: of unit variance, same shape.
        boxes: integer `(P, 4)` rows; a box of the slice's size is whole-image diffusion.
        timesteps: of `trailing_timesteps`.

    Returns:
        `(P, 1, H, W)`; only what lies inside the boxes counts.
    """
    first = torch.full((len(clean),), timesteps[0], dtype=torch.long, device=clean.device)
    noisy = scheduler.add_noise(clean, noise, first)
    return ddim_reverse(
        lambda noisy, index: predict(noise_boxes(clean, noisy, boxes), index),
        noisy,
        timesteps,
        scheduler.alphas_cumprod,
    )
