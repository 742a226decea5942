"""Mass effect: tissue that a growing lesion pushes outwards, on raw intensities in the prepared frame (2 mm)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pddm_utils.data.scan import VOXEL_SIZE_MM
from pddm_utils.data.simulation.anatomy import smooth_field
from pddm_utils.data.simulation.tissues import Tissues


def brain_depth(mask: np.ndarray) -> np.ndarray:
    """Distance to the nearest voxel outside the mask or the frame, in voxels."""
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]


def offset_from(shape: tuple[int, ...], centre: np.ndarray) -> np.ndarray:
    """Vectors `(3, D, H, W)` from the centre to every voxel."""
    return np.stack(np.meshgrid(*(np.arange(n) - c for n, c in zip(shape, centre, strict=True)), indexing="ij"))


def outward_shift(
    brain_mask: np.ndarray,
    centre: np.ndarray,
    radius: float,
    shift_fraction: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Outward displacement `(3, D, H, W)` in voxels; fades with distance and towards the brain's surface."""
    largest = rng.uniform(*shift_fraction) * radius
    offset = offset_from(brain_mask.shape, centre)
    distance = np.sqrt((offset**2).sum(axis=0))
    peak = 0.6 * radius
    profile = np.where(distance < peak, distance / peak, np.exp(-(np.maximum(distance - peak, 0) / (0.9 * radius))))
    wobble = np.clip(1 + 0.3 * smooth_field(brain_mask.shape, radius, rng), 0.2, 1.6)
    depth = brain_depth(brain_mask)
    size = largest * profile * wobble * np.clip(depth * VOXEL_SIZE_MM / 14, 0, 1)
    return offset / np.maximum(distance, 1e-6) * np.where(size > 0.05, size, 0)


def displace(
    image: np.ndarray,
    brain_mask: np.ndarray,
    tissues: Tissues,
    shift: np.ndarray,
    noise: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Tissues]:
    """Move image and tissues by `shift`; noise that interpolation averaged away is put back."""
    moved = shift.any(axis=0) & brain_mask
    points = np.argwhere(moved).T - shift[:, moved]
    fraction = points - np.floor(points)
    kept_variance = np.prod((1 - fraction) ** 2 + fraction**2, axis=0)

    def pull(values: np.ndarray) -> np.ndarray:
        result = np.array(values, dtype=np.float32)
        result[moved] = ndimage.map_coordinates(result, points, order=1, mode="nearest", prefilter=False)
        return result

    displaced = pull(image)
    displaced[moved] += noise * np.sqrt(1 - kept_variance) * rng.standard_normal(kept_variance.size)
    displaced = np.where(moved, np.maximum(displaced, 0), image).astype(np.float32)
    return displaced, Tissues(csf=pull(tissues.csf), grey=pull(tissues.grey), white=pull(tissues.white))


def noise_level(image: np.ndarray, brain_mask: np.ndarray, tissues: Tissues) -> float:
    """Standard deviation of voxelwise noise, from second differences along x in white matter."""
    inner = (tissues.white > 0.9) & brain_mask
    inner = inner[..., :-2] & inner[..., 1:-1] & inner[..., 2:]
    second = image[..., :-2] - 2 * image[..., 1:-1] + image[..., 2:]
    return float(1.4826 * np.median(np.abs(second[inner])) / np.sqrt(6)) if inner.any() else 0.0
