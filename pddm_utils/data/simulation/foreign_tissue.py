"""Anomalies of anatomy alone: a patch of another scan, and tissue that is pushed aside without any lesion.

They work on raw intensities in the prepared frame (2 mm), as `pddm_utils.data.simulation.lesions` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from pddm_utils.data.scan import VOXEL_SIZE_MM
from pddm_utils.data.simulation.anatomy import smooth_field
from pddm_utils.data.simulation.lesions import TumourRanges, place_tumour
from pddm_utils.data.simulation.mass_effect import brain_depth, displace, noise_level, offset_from, outward_shift
from pddm_utils.data.simulation.tissues import Tissues


# --- Every range of these anomalies. Fixed before any model was scored; do not change them afterwards. ---
@dataclass(frozen=True)
class PatchRanges:
    """Uniform ranges of a foreign patch; lengths in mm."""

    radius: tuple[float, float] = (8.0, 18.0)
    elongation: tuple[float, float] = (0.8, 1.25)  # of each axis
    irregularity: float = 0.12  # standard deviation of the outline, relative to the radius


PATCH = PatchRanges()
PUSH = TumourRanges(radius=(12.0, 24.0), shift_fraction=(0.20, 0.35))
PUSHED_SHARE = 0.5  # of the largest displacement: what moved as far belongs to the mask


def insert_foreign_patch(
    image: np.ndarray,
    brain_mask: np.ndarray,
    donor: np.ndarray,
    donor_mask: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Replace part of a brain by a part of another scan, from another place, with Poisson blending.

    Inside the patch the gradients are the donor's, at its border the values are the scan's (Perez et al. 2003).

    Args:
        image: `(D, H, W)` raw intensities on 2 mm voxels.
        brain_mask: `(D, H, W)` bool.
        donor: `(D', H', W')` raw intensities of another scan, of the same contrast, brought to the scan's median.
        donor_mask: its brain.
        rng: source of everything drawn.

    Returns:
        The float32 image with the patch, and the patch as a bool mask.

    Raises:
        ValueError: one of the brains has no room for it.
    """
    radius = rng.uniform(*PATCH.radius) / VOXEL_SIZE_MM
    centres = [_deep_voxel(mask, radius, rng) for mask in (brain_mask, donor_mask)]
    axes = radius * rng.uniform(*PATCH.elongation, 3)
    offset = offset_from(brain_mask.shape, centres[0])
    distance = np.sqrt(((offset / axes[:, None, None, None]) ** 2).sum(axis=0))
    outline = np.exp(PATCH.irregularity * smooth_field(brain_mask.shape, 0.6 * radius, rng))
    inside = ndimage.binary_erosion(brain_mask) & (distance * outline < 1)
    labels, _ = ndimage.label(inside)
    patch = labels == labels[tuple(centres[0].astype(int))]
    gain = np.median(image[brain_mask]) / np.median(donor[donor_mask])
    move = (centres[1] - centres[0]).astype(int)
    source = _moved(np.where(donor_mask, donor, np.median(donor[donor_mask])) * gain, move, image.shape)
    return _blended(image, source, patch), patch


def insert_mass_effect(
    image: np.ndarray, brain_mask: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Push tissue outwards as a tumour would, and paint no lesion.

    Args:
        image: `(D, H, W)` raw intensities on 2 mm voxels.
        brain_mask: `(D, H, W)` bool.
        tissues: tissue probabilities of the scan.
        rng: source of everything drawn.

    Returns:
        The float32 image, and a bool mask of what moved by at least half of the largest displacement, and of what lies
        within.

    Raises:
        ValueError: a brain without room.
    """
    centre, radius = place_tumour(brain_mask, tissues, PUSH, rng)
    shift = outward_shift(brain_mask, centre, radius, PUSH.shift_fraction, rng)
    pushed, _ = displace(image, brain_mask, tissues, shift, noise_level(image, brain_mask, tissues), rng)
    length = np.sqrt((shift**2).sum(axis=0))
    mask = ndimage.binary_fill_holes(length >= PUSHED_SHARE * length[brain_mask].max()) & brain_mask
    return pushed, mask


def _deep_voxel(mask: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A voxel around which a patch of this radius lies mostly in the brain."""
    possible = np.argwhere(brain_depth(mask) > 0.8 * radius)
    if len(possible) == 0:
        raise ValueError(f"the brain has no room for a patch of {radius * VOXEL_SIZE_MM:.0f} mm radius")
    return possible[rng.integers(len(possible))].astype(float)


def _moved(values: np.ndarray, move: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`values[voxel + move]` for every voxel of a frame of that shape; the nearest voxel where there is none."""
    index = [np.clip(np.arange(n) + m, 0, size - 1) for n, m, size in zip(shape, move, values.shape, strict=True)]
    return values[np.ix_(*index)]


def _blended(image: np.ndarray, source: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """The image with the source's gradients inside the patch, which does not touch the frame's border."""
    place = np.full(patch.shape, -1)
    voxels = np.argwhere(patch)
    place[patch] = np.arange(len(voxels))
    rows, columns, right = [], [], np.zeros(len(voxels))
    for step in np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
        neighbour = np.clip(voxels + step, 0, np.array(patch.shape) - 1)
        at = tuple(neighbour.T)
        within = place[at] >= 0
        right += source[patch] - source[at] + np.where(within, 0, image[at])
        rows.append(np.flatnonzero(within))
        columns.append(place[at][within])
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.csc_matrix((-np.ones(len(row)), (row, column)), shape=(len(voxels),) * 2)
    matrix += sparse.identity(len(voxels), format="csc") * 6
    result = image.astype(np.float32).copy()
    result[patch] = np.maximum(spsolve(matrix, right), 0)
    return result
