"""The ideas: which reconstructions each one needs, and how it makes a score of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pddm_utils.benchmark.studies.forms import (
    MIRROR_SIGMA,
    above_other_side,
    brain_quantiles,
    intensity_score,
    match_quantiles,
    one_minus_ssim,
    over_edges,
    rank_sum,
    signed,
)
from pddm_utils.benchmark.studies.rebuild import INTENSITY, Rebuild, Reference
from pddm_utils.data.scan import Scan
from pddm_utils.detection.z_score import lesion_z_score
from pddm_utils.evaluation.postprocess import MEDIAN_SIZE, erode_in_plane, median_filter

BASE_LINE = "base line"
NOISE_LEVELS = (499, 649, 749, 818, 899, 949, 979)
ENSEMBLE = (499, 649, 749, 818)
DRAWS = 4

Score = Callable[[Scan, Sequence[np.ndarray], Reference], np.ndarray]


@dataclass(frozen=True)
class Idea:
    """A way from a scan to a score a voxel.

    Attributes:
        name: as tables show it.
        rebuilds: reconstructions it needs.
        score: from scan, reconstructions and reference to scores `(D, H, W)`, at least 0.
        methods: that it is tried with.
        median: edge of the median filter in voxels; 1 is none.
    """

    name: str
    rebuilds: tuple[Rebuild, ...]
    score: Score
    methods: tuple[str, ...] = ("ddpm", "pddpm")
    median: int = MEDIAN_SIZE


def idea_map(idea: Idea, scan: Scan, volumes: Sequence[np.ndarray], reference: Reference) -> np.ndarray:
    """The anomaly map of an idea: its scores in the eroded brain, median filtered, `(D, H, W)` float32."""
    eroded = erode_in_plane(scan.brain_mask)
    scores = np.where(eroded, idea.score(scan, volumes, reference), 0).astype(np.float32)
    return median_filter(scores, eroded, idea.median)


def _residual(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return np.abs(scan.image - volumes[0])


def _mean_residual(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return np.mean([np.abs(scan.image - volume) for volume in volumes], axis=0)


def _largest_residual(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return np.max([np.abs(scan.image - volume) for volume in volumes], axis=0)


def _of_mean(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return np.abs(scan.image - np.mean(volumes, axis=0))


def _signed(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return signed(scan.image, volumes[0], scan.contrast)


def _z_score(scan: Scan, volumes: Sequence[np.ndarray], reference: Reference) -> np.ndarray:
    return np.abs(reference.places.z_score(scan.image - volumes[0], scan.brain_mask))


def _signed_z_score(scan: Scan, volumes: Sequence[np.ndarray], reference: Reference) -> np.ndarray:
    return lesion_z_score(scan, volumes[0], reference.places)


def _above_healthy(scan: Scan, volumes: Sequence[np.ndarray], reference: Reference) -> np.ndarray:
    return (np.abs(scan.image - volumes[0]) - reference.places.mean_size(scan.brain_mask)).clip(min=0)


def _matched_output(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    quantiles = brain_quantiles(scan.image, scan.brain_mask)
    return np.abs(scan.image - match_quantiles(volumes[0], scan.brain_mask, quantiles))


def _matched_input(scan: Scan, volumes: Sequence[np.ndarray], reference: Reference) -> np.ndarray:
    return np.abs(match_quantiles(scan.image, scan.brain_mask, reference.quantiles) - volumes[0])


def _mirror(sigma: float) -> Score:
    return lambda scan, volumes, _: above_other_side(np.abs(scan.image - volumes[0]), scan.brain_mask, sigma)


def _times_intensity(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return np.abs(scan.image - volumes[0]) * intensity_score(scan)


def _ranks(scan: Scan, volumes: Sequence[np.ndarray], _: Reference) -> np.ndarray:
    return rank_sum(np.abs(scan.image - volumes[0]), intensity_score(scan), erode_in_plane(scan.brain_mask))


_ONE, _FIVE = (Rebuild(),), (Rebuild(steps=5),)
_SEVERAL, _DRAWN = (tuple(Rebuild(level) for level in ENSEMBLE), tuple(Rebuild(draw=draw) for draw in range(DRAWS)))
_NAMED_LEVELS = ", ".join(map(str, ENSEMBLE))

IDEAS = (
    Idea(BASE_LINE, _ONE, _residual),
    *(Idea(f"level {level}", (Rebuild(level),), _residual) for level in NOISE_LEVELS),
    Idea(f"levels {_NAMED_LEVELS}: mean residual", _SEVERAL, _mean_residual),
    Idea(f"levels {_NAMED_LEVELS}: largest residual", _SEVERAL, _largest_residual),
    Idea(f"levels {_NAMED_LEVELS}: mean reconstruction", _SEVERAL, _of_mean),
    Idea("2 steps", (Rebuild(steps=2),), _residual, ("ddpm",)),
    Idea("5 steps", _FIVE, _residual),
    Idea("10 steps", (Rebuild(steps=10),), _residual, ("ddpm",)),
    Idea(f"{DRAWS} draws: mean residual", _DRAWN, _mean_residual, ("ddpm",)),
    Idea(f"{DRAWS} draws: mean reconstruction", _DRAWN, _of_mean, ("ddpm",)),
    Idea("squared", _ONE, lambda scan, volumes, _: (scan.image - volumes[0]) ** 2),
    Idea("signed", _ONE, _signed),
    Idea("1 - SSIM", _ONE, lambda scan, volumes, _: one_minus_ssim(scan.image, volumes[0])),
    Idea("over edges", _ONE, lambda scan, volumes, _: over_edges(np.abs(scan.image - volumes[0]), volumes[0])),
    Idea("z-score by place", _ONE, _z_score),
    Idea("z-score by place, signed", _ONE, _signed_z_score),
    Idea("above the healthy mean by place", _ONE, _above_healthy),
    Idea("histogram: reconstruction to scan", _ONE, _matched_output),
    Idea("histogram: scan to training", (Rebuild(matched=True),), _matched_input),
    Idea("above the other side", _ONE, _mirror(0.0)),
    Idea("above the other side, smoothed", _ONE, _mirror(MIRROR_SIGMA)),
    Idea("times intensity", _ONE, _times_intensity),
    Idea("sum of ranks with intensity", _ONE, _ranks),
    Idea("5 steps, signed", _FIVE, _signed),
    Idea("5 steps, above the other side, smoothed", _FIVE, _mirror(MIRROR_SIGMA)),
    Idea("5 steps, times intensity", _FIVE, _times_intensity),
    Idea("5 steps, sum of ranks with intensity", _FIVE, _ranks),
)

INTENSITY_IDEA = Idea(INTENSITY, _ONE, _residual, (INTENSITY,))  # the threshold without a model, beside the others

# Added after the scores of the others had been seen, to tell why small lesions gain nothing: never chosen.
LATER_IDEAS = (
    Idea("no median filter", _ONE, _residual, median=1),
    Idea("z-score by place, signed, no median filter", _ONE, _signed_z_score, median=1),
)
