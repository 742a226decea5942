"""mDDPM: pDDPM that also has to mend rectangles of low or high frequencies (Iqbal et al. 2023)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.methods.pddpm import PatchedDDPM

PUBLISHED: dict[str, Any] = {"noise": "simplex", "schedule": "squaredcos_cap_v2", "timestep_power": 1.0}
MOST_RECTANGLES = 5
LARGEST_SIDE = 0.18  # of the brain's height; the smallest is half of it
FREQUENCIES = (2, 10)  # half the width of the central square of the spectrum, smallest and largest
_MARGIN = 5  # pixels between a rectangle and the brain's bounding box
_BLACK = -1.0


def with_rectangles(slices: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """Slices with 0 to 5 rectangles that show their low or their high frequencies only.

    Args:
        slices: `(B, 1, H, W)` in [-1, 1], background -1.
        generators: one for each sample, on the CPU.

    Returns:
        `(B, 1, H, W)`; a slice whose brain has no room for a rectangle is left as it is.
    """
    return torch.stack([_damaged(one[0], g)[None] for one, g in zip(slices, generators, strict=True)])


def _damaged(plane: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    shown = frequencies((plane + 1) / 2, whole(*FREQUENCIES), low=whole(0, 1) == 0) * 2 - 1
    brain, count = plane > _BLACK, whole(0, MOST_RECTANGLES)
    rows, columns = (torch.nonzero(brain.any(dim=axis)).flatten().tolist() for axis in (1, 0))
    largest = int(LARGEST_SIDE * len(rows))
    if largest < 2 or min(rows[-1] - rows[0], columns[-1] - columns[0]) < largest + 2 * _MARGIN:
        return plane
    result = plane.clone()
    for _ in range(count):
        height, width = (whole(largest // 2, largest) for _ in range(2))
        top, left = (whole(span[0] + _MARGIN, span[-1] - _MARGIN - largest) for span in (rows, columns))
        part = (slice(top, top + height), slice(left, left + width))
        result[part] = torch.where(brain[part], shown[part], _BLACK)
    return result


def frequencies(plane: torch.Tensor, half: int, low: bool) -> torch.Tensor:
    """A plane `(H, W)` with the central square of its spectrum, 2 `half` wide, alone or without it."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(plane))
    centre = torch.zeros_like(spectrum, dtype=torch.bool)
    row, column = (side // 2 for side in plane.shape)
    centre[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = True
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * (centre if low else ~centre))).real


class MaskedDDPM(PatchedDDPM):
    """mDDPM (Iqbal et al. 2023, "Unsupervised Anomaly Detection in Medical Images Using Masked Diffusion Model").

    As its public code has it: the slice is damaged by `with_rectangles`, the box of pDDPM's grid is noised on it, and
    the loss compares with the undamaged slice inside the box. Simplex noise, timesteps drawn evenly. Nothing is damaged
    at test time. The network is that of `ddpm` (laptop 0.65 M parameters, paper 37.5 M).
    """

    def __init__(self, name: str, settings: Settings, seed: int = 0, image_size: int = SLICE_SIZE) -> None:
        super().__init__(name, dataclasses.replace(settings, **PUBLISHED), seed, image_size)

    def visible(self, clean: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """The slices `(B, 1, H, W)` with their rectangles, inside and outside the box."""
        return with_rectangles(clean, generators)
