"""The published way from a prepared volume to its scores, written plainly: what `make bench` compares with.

Whole frames in single precision; one box of one slice after another, empty ones too, each with a simplex field of its
own made on the CPU by a compiled generator; scipy's median over the whole volume; scikit-learn's average precision over
all its voxels. Only the network's weights and the definitions of the scores are shared with the package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import opensimplex
import torch
from diffusers import DDPMScheduler, UNet2DModel
from scipy import ndimage
from sklearn.metrics import average_precision_score

from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan
from pddm_utils.evaluation.metrics import healthy_l1, scan_score, score_scan

THRESHOLDS = (0.05, 0.1, 0.2)
_CROSS = ndimage.generate_binary_structure(2, 1)[None]  # one slice thick: erosion within the slice


def simplex_field(number: int) -> torch.Tensor:
    """One field `(96, 96)` of six octaves, by its number."""
    axis = np.arange(96.0)
    opensimplex.seed(number)
    octaves = [0.8**k * opensimplex.noise2array(axis / (64 / 2**k), axis / (64 / 2**k)) for k in range(6)]
    return torch.from_numpy(sum(octaves)).float()


@torch.inference_mode()
def reconstruct(
    unet: UNet2DModel, scheduler: DDPMScheduler, image: np.ndarray, timestep: int, field: Callable[[int], torch.Tensor]
) -> np.ndarray:
    """Pseudo-healthy volume from the 2 x 2 grid of 48 px boxes.

    Args:
        unet, scheduler: of a pDDPM.
        image: `(D, 96, 96)` float32 in [0, 1].
        timestep: noise level.
        field: noise `(96, 96)` of box `4 * slice + box`.
    """
    signal, noise = scheduler.alphas_cumprod[timestep].sqrt(), (1 - scheduler.alphas_cumprod[timestep]).sqrt()
    step, result = torch.tensor([timestep]), np.empty_like(image)
    for number, plane in enumerate(torch.from_numpy(image) * 2 - 1):
        for box, (top, left) in enumerate([(0, 0), (0, 48), (48, 0), (48, 48)]):
            inside = (slice(top, top + 48), slice(left, left + 48))
            seen = plane.clone()
            seen[inside] = (signal * plane + noise * field(4 * number + box))[inside]
            prediction = unet(seen[None, None], step).sample[0, 0]
            result[number][inside] = ((prediction[inside].clamp(-1, 1) + 1) / 2).numpy()
    return result


def median(residual: np.ndarray) -> np.ndarray:
    """Median over 5 x 5 x 5 voxels, everywhere."""
    return ndimage.median_filter(residual, 5)


def scores(scan: Scan, reconstruction: np.ndarray, residual: np.ndarray) -> float:
    """All scores of a scan at three thresholds.

    Returns:
        The AUPRC.
    """
    healthy_l1(scan.image, reconstruction, scan.brain_mask)
    scan_score(residual, scan.brain_mask)
    for threshold in THRESHOLDS:
        score_scan(residual, scan.lesion_mask, scan.brain_mask, threshold, voxel_volume_ml=VOXEL_VOLUME_ML)
    return float(average_precision_score(scan.lesion_mask.ravel(), residual.ravel()))


def score_volume(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    scan: Scan,
    timestep: int,
    field: Callable[[int], torch.Tensor] | None = None,
) -> float:
    """AUPRC of a prepared scan, the whole way.

    Args:
        unet, scheduler: of a pDDPM.
        scan: slices of 96 x 96 pixels.
        timestep: noise level.
        field: see `reconstruct`; simplex noise when left out.
    """
    reconstruction = reconstruct(unet, scheduler, scan.image, timestep, field or simplex_field)
    eroded = ndimage.binary_erosion(scan.brain_mask, _CROSS, 3)
    residual = median(np.abs(scan.image - reconstruction) * eroded) * eroded
    return scores(scan, reconstruction, residual)
