"""Domain randomisation: healthy slices with random intensities, made from anatomical label maps alone.

After SynthSeg (Billot et al., Medical Image Analysis 2023): means and spreads of the labels, resolution, bias field,
noise and gamma are drawn anew for every image, so a network trained on them has seen no scanner and no contrast. Unlike
there, labels of one tissue stay close to each other, shapes are not deformed and there is nothing but brain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pddm_utils.data.simulation.anatomy import smooth_field

LABELS = 256  # label maps are uint8; 0 is background

# Labels of NiChart DLMUSE that are neither grey matter nor background.
CSF = (1, 4, 11, 46, 49, 50, 51, 52)  # sulci and cisterns, ventricles
WHITE = (40, 41, 69, *range(81, 96))  # cerebellum, optic chiasm, lobes, fornix, internal capsule, corpus callosum
MIXED = (35, 55, 56, 59, 60, 61, 62)  # brain stem, pallidum, thalamus, ventral diencephalon: between grey and white

# Ranges, fixed before any model was trained on them. The darkest tissue lies at DARKEST, the brightest 1 above it.
DARKEST = (0.1, 0.5)
OFFSET = 0.08  # largest standard deviation of a label's mean around its tissue's
SPREAD = (0.02, 0.1)  # standard deviation within a label
BLUR = (0.2, 1.0)  # Gaussian sigma in pixels, drawn for each axis
BIAS = 0.2  # largest standard deviation of the log bias field
BIAS_SPACING = 32  # pixels between its control points
NOISE = 0.05  # largest standard deviation
GAMMA = 0.4  # largest absolute logarithm of the exponent


class Levels(NamedTuple):
    """Intensities of the labels, each `(256,)`; entry 0 is background and has none.

    Attributes:
        mean: different for every label.
        spread: standard deviation within a label.
    """

    mean: np.ndarray
    spread: np.ndarray


def draw_levels(rng: np.random.Generator) -> Levels:
    """Draw a contrast: one tissue is dark, one bright, the third between them, each order equally likely.

    A label's mean is that of its tissue plus an offset of its own; that of `MIXED` labels is anywhere between grey and
    white matter.

    Args:
        rng: source of all numbers.

    Returns:
        Levels in arbitrary units, always from the same number of draws.
    """
    csf, grey, white = rng.uniform(*DARKEST) + rng.permutation([0.0, rng.uniform(), 1.0])
    share, offset = rng.uniform(size=LABELS), rng.uniform(0, OFFSET) * rng.standard_normal(LABELS)
    mean = np.full(LABELS, grey)
    mean[list(CSF)], mean[list(WHITE)] = csf, white
    mean[list(MIXED)] += share[list(MIXED)] * (white - grey)
    mean, spread = mean + offset, rng.uniform(*SPREAD, LABELS)
    mean[0] = spread[0] = 0
    return Levels(mean.astype(np.float32), spread.astype(np.float32))


def randomise(labels: np.ndarray, rng: np.random.Generator, reference: np.ndarray | None = None) -> np.ndarray:
    """Synthesise an image from a label map; equal labels and generators give equal images.

    In order: the labels' means, blurred within the brain (partial volume); texture as blurred, with the labels' spread;
    a smooth multiplicative bias field; noise; the 1st to 99th percentile mapped to [0, 1] as in the preparation of
    scans; gamma.

    Args:
        labels: `(H, W)` or `(D, H, W)` uint8, numbered as by DLMUSE; 0 is background.
        rng: source of all numbers.
        reference: uint8 labels of brain voxels, any shape; the percentiles are those of such voxels with the same
            levels, bias and noise, without partial volume. With voxels of all the brain a slice is scaled like its
            volume; the voxels of `labels` when left out.

    Returns:
        float32 of the shape of `labels`, in [0, 1], zero in the background.

    Example:
        >>> image = randomise(np.full((96, 96), 81, np.uint8), np.random.default_rng(0))
        >>> image.shape, float(image.min()) >= 0, float(image.max()) <= 1
        ((96, 96), True, True)
    """
    brain = labels > 0
    reference = labels[brain] if reference is None else np.ravel(reference)
    levels, sigma = draw_levels(rng), rng.uniform(*BLUR, labels.ndim)
    bias, noise, gamma = rng.uniform(0, BIAS), rng.uniform(0, NOISE), np.exp(rng.uniform(-GAMMA, GAMMA))
    if not reference.size:
        return np.zeros(labels.shape, np.float32)
    image = _blurred_means(levels.mean[labels], brain, sigma)
    image += levels.spread[labels] * _texture(labels.shape, sigma, rng)
    image = image * np.exp(bias * smooth_field(labels.shape, BIAS_SPACING, rng)) + noise * _normal(labels.shape, rng)
    values = levels.mean[reference] + levels.spread[reference] * _normal(reference.shape, rng)
    values = values * np.exp(bias * _normal(reference.shape, rng)) + noise * _normal(reference.shape, rng)
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1) ** gamma
    return np.where(brain, scaled, 0).astype(np.float32)


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _blurred_means(mean: np.ndarray, brain: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Gaussian mean over voxels of the brain only, so that the background does not bleed in."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, truncate=3)
    return ndimage.gaussian_filter(mean * brain, sigma, truncate=3) / np.maximum(weight, 1e-6)


def _texture(shape: tuple[int, ...], sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers as smooth as the image; blurring takes from their variance, and this gives it back."""
    texture = ndimage.gaussian_filter(_normal(shape, rng), sigma, truncate=3)
    return texture / max(float(texture.std()), 1e-6)
