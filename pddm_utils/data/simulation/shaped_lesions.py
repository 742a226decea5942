"""Lesions with the shape and place of a real lesion mask, in the tissue and texture of the scan they go into.

They work on raw intensities in the prepared frame (2 mm), as `pddm_utils.data.simulation.lesions` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from pddm_utils.data.scan import CONTRASTS, VOXEL_SIZE_MM
from pddm_utils.data.simulation.anatomy import smooth_field
from pddm_utils.data.simulation.mass_effect import displace, noise_level, outward_shift
from pddm_utils.data.simulation.tissues import Tissues, bias_field, tissue_levels

# Bounds of the brain in MNI space, from inside to outside of its first and last millimetre voxel: low, high (RAS mm).
_MNI_LOW, _MNI_HIGH = np.array([-72.5, -107.5, -72.5]), np.array([72.5, 73.5, 82.5])
_TRIES = 12  # places that are looked at, the lesion's own first
_LARGEST_MOVE = 4.0  # voxels along each axis, of the others
_ENOUGH_TISSUE = 0.85  # share of the shape that is brain and not fluid: no other place is looked at
_FINE_MM = 6.0  # texture is what a Gaussian of this width takes away


# --- Every range of these lesions. Fixed before any model was scored; do not change them afterwards. ---
@dataclass(frozen=True)
class ShapeRanges:
    """Uniform ranges of one shaped lesion.

    Attributes:
        contrast: share of the way from the tissue to the lesion's own intensity; near 0 it is iso-intense.
        each: whether every component of the mask has a contrast and an intensity of its own.
        edge: width of the feathered edge, mm.
        core_share: share of the lesions with a core of another intensity.
        core_size: share of the lesion that its core takes.
        texture: of the scan's own fine texture that is laid over the lesion, as a multiple.
        shift_share: share of the lesions of at least `shift_radius` that push the tissue around them.
        shift_radius: mm, of the sphere of the same volume.
        shift_fraction: largest displacement / that radius.
    """

    contrast: tuple[float, float]
    each: bool
    edge: tuple[float, float]
    core_share: float
    core_size: tuple[float, float]
    texture: tuple[float, float]
    shift_share: float
    shift_radius: float = 8.0
    shift_fraction: tuple[float, float] = (0.05, 0.20)


@dataclass(frozen=True)
class ShapeLevels:
    """Uniform ranges of level, where intensity = base tissue + level * (CSF - base tissue)."""

    base: str
    rim: tuple[float, float]
    core: tuple[float, float]
    ms: tuple[float, float]


STROKE = ShapeRanges(
    contrast=(0.05, 1.0),
    each=False,
    edge=(1.0, 5.0),
    core_share=0.6,
    core_size=(0.2, 0.6),
    texture=(0.8, 1.8),
    shift_share=0.4,
)
MS_PLAQUES = ShapeRanges(
    contrast=(0.3, 1.0),
    each=True,
    edge=(1.0, 3.0),
    core_share=0.0,
    core_size=(0.0, 0.0),
    texture=(0.6, 1.4),
    shift_share=0.0,
)
SHAPE_LEVELS = {
    "T1": ShapeLevels("white", rim=(0.35, 0.80), core=(0.40, 1.00), ms=(0.30, 0.60)),
    "T2": ShapeLevels("white", rim=(0.30, 0.65), core=(0.35, 0.90), ms=(0.30, 0.60)),
    "FLAIR": ShapeLevels("grey", rim=(-0.35, 0.05), core=(-0.40, 0.40), ms=(-0.40, -0.10)),
}
SHAPED = {"real-shape": STROKE, "real-ms": MS_PLAQUES}


def insert_shaped_lesion(
    image: np.ndarray,
    brain_mask: np.ndarray,
    tissues: Tissues,
    contrast: str,
    kind: str,
    donor: nib.Nifti1Image,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Insert a lesion with the shape and place of a mask in MNI space into a healthy scan, before percentile scaling.

    The mask is brought over by the bounds of the two brains, its labels by nearest neighbour, and moved by up to 8 mm
    where it would lie in fluid. Inside it the scan's own noise, bias field and a share of its anatomy go on; fine
    texture from elsewhere in the same scan lies over it.

    Args:
        image: `(D, H, W)` raw intensities on 2 mm voxels.
        brain_mask: `(D, H, W)` bool.
        tissues: tissue probabilities of the scan.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        kind: `"real-shape"` or `"real-ms"`.
        donor: the lesion mask.
        rng: source of everything drawn; the same state gives the same lesion.

    Returns:
        The float32 image with the lesion, and its bool mask (never empty, inside the brain).

    Raises:
        ValueError: unknown contrast or kind, or nothing of the mask lies in tissue.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    if kind not in SHAPED:
        raise ValueError(f"unknown lesion kind {kind!r}; use one of {', '.join(SHAPED)}")
    ranges, levels = SHAPED[kind], SHAPE_LEVELS[contrast]
    means = tissue_levels(image, tissues)
    shape = _in_tissue(donor, brain_mask, tissues, rng)
    radius = float(np.cbrt(3 * shape.sum() / (4 * np.pi)))
    pushes = rng.random() < ranges.shift_share and radius * VOXEL_SIZE_MM >= ranges.shift_radius
    if pushes:
        shift = outward_shift(brain_mask, _centre(shape), radius, ranges.shift_fraction, rng)
        noise = noise_level(image, brain_mask, tissues)
        image, tissues = displace(image, brain_mask, tissues, shift, noise, rng)
    expected = sum(means[name] * getattr(tissues, name) for name in ("csf", "grey", "white"))
    bias = bias_field(image, expected, brain_mask)
    unit = means["csf"] - means[levels.base]
    level, opacity = _levels(shape, ranges, levels, rng)
    feather = _feathered(shape, rng.uniform(*ranges.edge) / VOXEL_SIZE_MM) * brain_mask
    texture = rng.uniform(*ranges.texture) * _texture_from_elsewhere(image / bias, brain_mask, shape, rng)
    change = feather * (opacity * (means[levels.base] + unit * level - expected) + texture)
    painted = np.maximum(image + bias * change, 0)
    return np.where(feather > 0, painted, image).astype(np.float32), shape


# --- Shape and place ---
def mask_in_brain(donor: nib.Nifti1Image, brain_mask: np.ndarray, move: np.ndarray | None = None) -> np.ndarray:
    """A mask of MNI space where it lies in another brain, by the bounds of the two.

    The brain's width, length and top are those of the mask; its height goes with width and length, as scans end at
    different heights of the brain stem.

    Args:
        donor: mask in MNI space.
        brain_mask: `(D, H, W)` bool, axes (z, y, x) as of a prepared scan.
        move: `(3,)` voxels (z, y, x) by which the result is moved.

    Returns:
        `(D, H, W)` bool, nearest neighbour; not cut to the brain.
    """
    bounds = [np.flatnonzero(brain_mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    low, high = (np.array([bound[end] for bound in bounds[::-1]], dtype=float) for end in (0, -1))
    scale = (_MNI_HIGH - _MNI_LOW) / (high - low + 1)  # mm of MNI space a voxel, (x, y, z)
    scale[2] = scale[:2].mean()
    origin = np.array([_MNI_LOW[0], _MNI_LOW[1], _MNI_HIGH[2] - scale[2] * (high[2] + 1)])
    start = np.array([low[0], low[1], 0.0])
    to_mni = np.eye(4)
    to_mni[:3, :3], to_mni[:3, 3] = np.diag(scale), origin + scale * (0.5 - start)
    if move is not None:
        to_mni[:3, 3] -= scale * np.asarray(move, dtype=float)[::-1]
    to_donor = np.linalg.inv(donor.affine) @ to_mni
    swap = np.eye(4)[[2, 1, 0, 3]]  # from (z, y, x) to (x, y, z)
    matrix = to_donor @ swap
    values = np.asarray(donor.dataobj) > 0
    placed = ndimage.affine_transform(
        values.astype(np.uint8), matrix[:3, :3], matrix[:3, 3], output_shape=brain_mask.shape, order=0
    )
    return placed > 0


def _in_tissue(
    donor: nib.Nifti1Image, brain_mask: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> np.ndarray:
    """The mask where it, or one moved a little, has most tissue under it; cut to the tissue."""
    tissue = ndimage.binary_erosion(brain_mask) & (tissues.csf < 0.5)
    moves = rng.uniform(-_LARGEST_MOVE, _LARGEST_MOVE, (_TRIES, 3))
    moves[0] = 0
    best, most = np.zeros_like(brain_mask), 0.0
    for move in moves:
        whole = mask_in_brain(donor, brain_mask, move)
        share = float((whole & tissue).sum() / max(whole.sum(), 1))
        if share > most:
            best, most = whole & tissue, share
        if most >= _ENOUGH_TISSUE:
            break
    if not best.any():
        raise ValueError("nothing of the lesion mask lies in the tissue of this brain")
    return best


def _centre(shape: np.ndarray) -> np.ndarray:
    """The deepest voxel of the shape."""
    depth = ndimage.distance_transform_edt(shape)
    return np.array(np.unravel_index(depth.argmax(), shape.shape), dtype=float)


# --- Intensities ---
def _feathered(shape: np.ndarray, edge: float) -> np.ndarray:
    """Opacity in [0, 1] that crosses one half at the outline, over `edge` voxels."""
    inside, outside = ndimage.distance_transform_edt(shape), ndimage.distance_transform_edt(~shape)
    signed = np.where(shape, inside - 0.5, 0.5 - outside)
    return np.clip(signed / edge + 0.5, 0, 1)


def _levels(
    shape: np.ndarray, ranges: ShapeRanges, levels: ShapeLevels, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Level on the scale of `ShapeLevels` and share of the way to it, both `(D, H, W)`; of the nearest component."""
    if ranges.each:
        labels, count = ndimage.label(shape, np.ones((3, 3, 3)))
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
        level = np.append(0.0, rng.uniform(*levels.ms, count))[labels]
        return level, np.append(0.0, rng.uniform(*ranges.contrast, count))[labels]
    level = np.full(shape.shape, rng.uniform(*levels.rim))
    contrast = rng.uniform(*ranges.contrast)
    if rng.random() < ranges.core_share:
        depth = ndimage.distance_transform_edt(shape) + smooth_field(shape.shape, 3, rng)
        limit = np.quantile(depth[shape], 1 - rng.uniform(*ranges.core_size))
        core = ndimage.gaussian_filter(((depth > limit) & shape).astype(float), 0.7)
        level = level + core * (rng.uniform(*levels.core) - level)
    return level, np.full(shape.shape, contrast)


def _texture_from_elsewhere(
    flat: np.ndarray, brain_mask: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fine texture of the scan, taken from where most of the moved shape lies in the brain."""
    sigma = _FINE_MM / 2.355 / VOXEL_SIZE_MM
    weight = ndimage.gaussian_filter(brain_mask.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(brain_mask, flat, 0), sigma) / np.maximum(weight, 1e-6)
    inner = ndimage.binary_erosion(brain_mask, iterations=3)
    fine = np.where(inner, flat - smooth, 0)
    reach = np.array(shape.shape) // 3
    best, most = np.zeros(3, dtype=int), -1
    voxels = np.argwhere(shape)
    for shift in rng.integers(-reach, reach + 1, (_TRIES, 3)):
        found = inner[tuple(((voxels + shift) % shape.shape).T)].sum()
        if found > most and np.abs(shift).max() > 5:
            best, most = shift, found
    return np.roll(fine, tuple(-best), axis=(0, 1, 2))
