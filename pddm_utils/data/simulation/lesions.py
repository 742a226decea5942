"""Lesion models with exact masks: a tumour with oedema and mass effect, and multiple sclerosis lesions.

They work on raw intensities in the prepared frame (2 mm), on simulated and on real healthy scans alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pddm_utils.data.scan import CONTRASTS, VOXEL_SIZE_MM
from pddm_utils.data.simulation.anatomy import smooth_field
from pddm_utils.data.simulation.mass_effect import brain_depth, displace, noise_level, offset_from, outward_shift
from pddm_utils.data.simulation.tissues import Tissues, bias_field, estimate_tissues, tissue_levels

__all__ = ["ContrastLevels", "TumourRanges", "estimate_tissues", "insert_lesion"]


# --- Every range of the lesion models. Fixed before any model was scored; do not change them afterwards. ---
@dataclass(frozen=True)
class TumourRanges:
    """Uniform ranges of one tumour; lengths in mm."""

    radius: tuple[float, float] = (10.0, 24.0)  # of the whole lesion, oedema included
    core_fraction: tuple[float, float] = (0.40, 0.62)  # core radius / radius
    necrosis_share: float = 0.6  # of the tumours have a necrosis
    necrosis_fraction: tuple[float, float] = (0.3, 0.65)  # necrosis radius / core radius
    elongation: tuple[float, float] = (0.8, 1.25)  # of each axis before they are scaled to unit volume
    irregularity: float = 0.16  # standard deviation of the outline, relative to the radius
    shift_fraction: tuple[float, float] = (0.10, 0.28)  # largest displacement / radius
    edge: float = 2.5  # width of the feathered edge


@dataclass(frozen=True)
class MsRanges:
    """Uniform ranges of the multiple sclerosis lesions of one subject; lengths in mm."""

    count: tuple[int, int] = (6, 24)
    radius: tuple[float, float] = (2.0, 6.0)
    elongation: tuple[float, float] = (1.0, 1.8)  # long axis / short axes
    periventricular_share: float = 0.7
    periventricular_reach: float = 3.0  # mm at which the density of those beside the ventricles falls to 1/e
    edge: float = 1.5


@dataclass(frozen=True)
class ContrastLevels:
    """Uniform ranges of level, where lesion intensity = base tissue + level * (CSF - base tissue)."""

    base: str
    oedema: tuple[float, float]
    core: tuple[float, float]
    necrosis: tuple[float, float]
    ms: tuple[float, float]


TUMOUR = TumourRanges()
MS = MsRanges()
# A negative level moves away from the CSF: on FLAIR, CSF is dark and lesions are bright.
LESION_LEVELS = {
    "T2": ContrastLevels("white", oedema=(0.30, 0.50), core=(0.35, 0.60), necrosis=(0.6, 0.85), ms=(0.30, 0.60)),
    "T1": ContrastLevels("white", oedema=(0.45, 0.65), core=(0.50, 0.75), necrosis=(0.75, 0.95), ms=(0.30, 0.60)),
    "FLAIR": ContrastLevels("grey", oedema=(-0.08, 0.10), core=(-0.05, 0.12), necrosis=(0.2, 0.5), ms=(-0.4, -0.1)),
}
LESION_TEXTURE = 0.06  # standard deviation of each of two textures, as a share of the contrast unit
KINDS = ("tumour", "ms")
_TRIES = 400


@dataclass(frozen=True)
class _Layer:
    """Part of a lesion: opacity in [0, 1] and its level on the scale of `ContrastLevels`."""

    alpha: np.ndarray
    level: np.ndarray | float


def insert_lesion(
    image: np.ndarray,
    brain_mask: np.ndarray,
    tissues: Tissues,
    contrast: str,
    kind: str,
    rng: np.random.Generator,
    tumour: TumourRanges = TUMOUR,
    levels: ContrastLevels | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Insert a tumour or multiple sclerosis lesions into a healthy scan, before percentile scaling.

    Tumour: one, radius 10-24 mm, with a textured core, oedema that follows white matter, and a mass effect
    that moves the anatomy around it as well. Multiple sclerosis: 6-24 ellipsoids of 2-6 mm in white matter,
    most of them beside the ventricles. Lesions are bright on T2 and FLAIR and dark on T1; edges are
    feathered, and the scan's own noise and bias field continue inside.

    Args:
        image: `(D, H, W)` raw intensities on 2 mm voxels.
        brain_mask: `(D, H, W)` bool.
        tissues: tissue probabilities of the scan, simulated or from `estimate_tissues`.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        kind: `"tumour"` or `"ms"`.
        rng: source of everything drawn; the same state gives the same lesion.
        tumour: ranges of a tumour; with `radius=(15, 15)` it has 15 mm.
        levels: ranges of a lesion's intensity; those of the contrast when left out.

    Returns:
        The float32 image with the lesion, and its bool mask (never empty, inside the brain).

    Raises:
        ValueError: for an unknown contrast or kind, arrays of different shapes, or a brain without room.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    if kind not in KINDS:
        raise ValueError(f"unknown lesion kind {kind!r}; use one of {', '.join(KINDS)}")
    shapes = {a.shape for a in (image, brain_mask, tissues.csf, tissues.grey, tissues.white)}
    if len(shapes) > 1:
        raise ValueError(f"image, brain mask and tissues differ in shape: {sorted(shapes)}")
    means, levels = tissue_levels(image, tissues), levels or LESION_LEVELS[contrast]
    if kind == "tumour":
        centre, radius = place_tumour(brain_mask, tissues, tumour, rng)
        shift = outward_shift(brain_mask, centre, radius, tumour.shift_fraction, rng)
        noise = noise_level(image, brain_mask, tissues)
        image, tissues = displace(image, brain_mask, tissues, shift, noise, rng)
        layers, mask = _tumour_layers(brain_mask, tissues, levels, centre, radius, tumour, rng)
    else:
        layers, mask = _ms_layers(brain_mask, tissues, levels, rng)
    return _paint(image, brain_mask, tissues, means, layers, levels.base, rng), mask


# --- Intensities ---
def _paint(
    image: np.ndarray,
    brain_mask: np.ndarray,
    tissues: Tissues,
    means: dict[str, float],
    layers: list[_Layer],
    base_tissue: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Replace the tissue's expected intensity by the lesion's; noise and bias field of the scan stay."""
    expected = sum(means[name] * getattr(tissues, name) for name in ("csf", "grey", "white"))
    bias = bias_field(image, expected, brain_mask)
    base = means[base_tissue]
    unit = means["csf"] - base
    texture = LESION_TEXTURE * (smooth_field(image.shape, 2, rng) + smooth_field(image.shape, 5, rng))
    signal = expected
    for layer in layers:
        signal = signal + layer.alpha * (base + unit * (layer.level + texture) - signal)
    painted = np.maximum(image + bias * (signal - expected), 0)
    touched = sum(layer.alpha for layer in layers) > 0
    return np.where(touched & brain_mask, painted, image).astype(np.float32)


# --- Tumour ---
def place_tumour(
    brain_mask: np.ndarray, tissues: Tissues, tumour: TumourRanges, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Draw a radius (voxels) and a centre in or near white matter, deep enough to lie mostly in the brain."""
    radius = rng.uniform(*tumour.radius) / VOXEL_SIZE_MM
    depth = brain_depth(brain_mask)
    white = ndimage.gaussian_filter(tissues.white, 1.5)
    possible = np.argwhere((depth > 0.65 * radius) & (white > 0.45))
    if len(possible) == 0:
        raise ValueError(f"the brain has no room for a tumour of {radius * VOXEL_SIZE_MM:.0f} mm radius")
    return possible[rng.integers(len(possible))].astype(float), radius


def _relative_distance(shape: tuple[int, ...], centre: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Length of `matrix @ (voxel - centre)`."""
    return np.sqrt((np.tensordot(matrix, offset_from(shape, centre), axes=1) ** 2).sum(axis=0))


def _tumour_layers(
    brain_mask: np.ndarray,
    tissues: Tissues,
    levels: ContrastLevels,
    centre: np.ndarray,
    radius: float,
    tumour: TumourRanges,
    rng: np.random.Generator,
) -> tuple[list[_Layer], np.ndarray]:
    shape, edge = brain_mask.shape, tumour.edge / VOXEL_SIZE_MM
    axes = rng.uniform(*tumour.elongation, 3)
    axes = axes / np.cbrt(axes.prod())
    rotation = Rotation.from_rotvec(rng.uniform(-1, 1, 3) * np.pi).as_matrix()
    outline = tumour.irregularity * (smooth_field(shape, 0.6 * radius, rng) + 0.5 * smooth_field(shape, 3, rng))
    distance = _relative_distance(shape, centre, rotation / (radius * axes[:, None])) * np.exp(outline)

    def inside(relative: np.ndarray, limit: float) -> np.ndarray:
        return np.clip((limit - relative) * radius / edge + 0.5, 0, 1)

    core_limit = rng.uniform(*tumour.core_fraction)
    core = inside(distance, core_limit)
    necrosis = inside(distance, core_limit * rng.uniform(*tumour.necrosis_fraction))
    necrosis *= rng.random() < tumour.necrosis_share
    # Oedema spreads along white matter, reaches less far into grey matter, and stays out of the CSF.
    white, csf = (ndimage.gaussian_filter(p, 0.7) for p in (tissues.white, tissues.csf))
    spread = distance * (1.5 - 0.5 * white)
    # The outline is put where the lesion has the volume of a sphere of the drawn radius.
    voxels = int(4 / 3 * np.pi * radius**3)
    reachable = np.sort(spread[brain_mask & (csf < 0.5)])
    oedema = inside(spread, min(reachable[min(voxels, reachable.size - 1)], 1.6)) * np.clip(1.5 - 2 * csf, 0, 1)
    whole = np.maximum(core, oedema)
    labels, _ = ndimage.label((whole > 0.5) & brain_mask)
    mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1  # never empty: the core
    near = ndimage.binary_dilation(mask, iterations=2) & brain_mask
    parts = ((oedema, levels.oedema), (core, levels.core), (necrosis, levels.necrosis))
    return [_Layer(alpha * near, rng.uniform(*limits)) for alpha, limits in parts], mask


# --- Multiple sclerosis ---
def _ventricle_distance(brain_mask: np.ndarray, tissues: Tissues) -> np.ndarray:
    """Distance in voxels to the largest CSF space deep inside the brain."""
    depth = brain_depth(brain_mask)
    deep = (tissues.csf > 0.5) & (depth * VOXEL_SIZE_MM > 20)
    labels, _ = ndimage.label(deep)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():  # no ventricles in view: the deepest point stands in
        ventricles = depth == depth.max()
    else:
        ventricles = sizes[labels] > 0.2 * sizes.max()
    return ndimage.distance_transform_edt(~ventricles)


def _ms_layers(
    brain_mask: np.ndarray, tissues: Tissues, levels: ContrastLevels, rng: np.random.Generator
) -> tuple[list[_Layer], np.ndarray]:
    inner = ndimage.binary_erosion(brain_mask, iterations=2)
    candidates = np.argwhere((tissues.white > 0.7) & inner)
    count = int(rng.integers(MS.count[0], MS.count[1] + 1))
    if len(candidates) == 0:
        raise ValueError("the brain has no white matter to hold lesions")
    distance = _ventricle_distance(brain_mask, tissues)
    at = distance[tuple(candidates.T)] * VOXEL_SIZE_MM
    beside = np.exp(-at / MS.periventricular_reach) + 1e-6
    outward = np.stack(np.gradient(ndimage.gaussian_filter(distance, 2)))
    white = ndimage.gaussian_filter(tissues.white, 0.5)
    alpha = np.zeros(brain_mask.shape, dtype=np.float32)
    level = np.zeros(brain_mask.shape, dtype=np.float32)
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(_TRIES):
        weights = beside / beside.sum() if rng.random() < MS.periventricular_share else None
        centre = candidates[rng.choice(len(candidates), p=weights)]
        # Small lesions are the common ones.
        radius = (MS.radius[0] + (MS.radius[1] - MS.radius[0]) * rng.beta(1.5, 2.5)) / VOXEL_SIZE_MM
        lesion = _ellipsoid(brain_mask.shape, centre, radius, outward[(slice(None), *centre)], rng)
        lesion *= np.clip(2 * white - 0.5, 0, 1) * brain_mask
        lesion_level = rng.uniform(*levels.ms)
        apart = all(np.linalg.norm(centre - c) > 1.4 * (radius + r) + 1 for c, r in placed)
        if not apart or lesion[tuple(centre)] <= 0.5:
            continue
        level = np.where(lesion > alpha, lesion_level, level)
        alpha = np.maximum(alpha, lesion)
        placed.append((centre, radius))
        if len(placed) == count:
            break
    if len(placed) < count:
        raise ValueError(f"the brain has no room for {count} separate lesions in white matter")
    return [_Layer(alpha, level)], alpha > 0.5


def _ellipsoid(
    shape: tuple[int, ...], centre: np.ndarray, radius: float, axis: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Feathered ellipsoid of that equivalent radius, its long axis roughly along `axis`."""
    long = axis / max(np.linalg.norm(axis), 1e-6) + 0.3 * rng.standard_normal(3)
    long = long / np.linalg.norm(long)
    ratio = rng.uniform(*MS.elongation)
    short = radius / np.cbrt(ratio)
    along = np.outer(long, long)
    matrix = (np.eye(3) - along) / short + along / (ratio * short)
    reach = int(np.ceil(ratio * short + MS.edge)) + 1
    box = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
    sizes = [len(range(*s.indices(n))) for s, n in zip(box, shape, strict=True)]
    distance = _relative_distance(tuple(sizes), centre - [s.start for s in box], matrix)
    lesion = np.zeros(shape, dtype=np.float32)
    lesion[box] = np.clip((1 - distance) * radius / (MS.edge / VOXEL_SIZE_MM) + 0.5, 0, 1)
    return lesion
