"""mDDPM: a whole-image diffusion model that also has to fill in masked patches (Iqbal et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pddm_utils.methods.ddpm import DDPM

PATCH_SIZE = 16  # pixels
MASKED_SHARE = 0.25  # of the patches; a choice of ours
_BLACK = -1.0


def patch_mask(count: int, image_size: Sequence[int], generators: list[torch.Generator]) -> torch.Tensor:
    """Masks of square patches, the same number of them in each sample, drawn without replacement.

    Args:
        count: number of samples B.
        image_size: height and width in pixels.
        generators: one for each sample.

    Returns:
        bool `(B, 1, H, W)`, True where the slice is hidden: on `MASKED_SHARE` of the patches.
    """
    rows, columns = (-(-side // PATCH_SIZE) for side in image_size)  # patches that touch the image
    hidden = torch.zeros(count, rows * columns, dtype=torch.bool)
    for sample, generator in enumerate(generators):
        chosen = torch.randperm(rows * columns, generator=generator)[: round(MASKED_SHARE * rows * columns)]
        hidden[sample, chosen] = True
    pixels = hidden.view(count, 1, rows, columns)
    pixels = pixels.repeat_interleave(PATCH_SIZE, dim=2).repeat_interleave(PATCH_SIZE, dim=3)
    return pixels[..., : image_size[0], : image_size[1]]


class MaskedDDPM(DDPM):
    """mDDPM's masked image modelling (Iqbal et al. 2023, "Unsupervised Anomaly Detection in Medical Images Using Masked
    Diffusion Model", the image-patch masking).

    `x_t = sqrt(abar_t) (1 - m) x_0 + sqrt(1 - abar_t) eps` with black patches `m`; loss `|x_0 - f(x_t, t)|` over the
    whole slice. Nothing is masked at test time. The network is that of `ddpm` (laptop 0.65 M parameters, paper
    37.5 M). The paper's masks in the frequency domain are left out.
    """

    def visible(self, clean: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """The slices `(B, 1, H, W)` with their masked patches black."""
        mask = patch_mask(len(clean), clean.shape[-2:], generators)
        return clean.masked_fill(mask.to(clean.device), _BLACK)
