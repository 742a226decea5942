"""Can this scan be judged by this model? Its field of view, size, intensities and residual against healthy scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import median_abs_deviation, wasserstein_distance

from pddm_utils.data.scan import VOXEL_SIZE_MM, VOXEL_VOLUME_ML, Scan
from pddm_utils.evaluation.postprocess import erode_in_plane

HISTOGRAM_BINS = 32
# Far beyond what chance gives normal values: the spreads come from no more than a handful of scans.
WARN_DEVIATION = 5.0
_SPREAD_FLOOR = 0.03  # a reference of a few scans may vary by chance less than this share of the median
_CUT_SHARE = 0.2  # of the brain's largest slice: more than this on the file's last slice is a cut brain
QUANTITIES = {
    "brain_ml": "brain volume (ml)",
    "width_mm": "width of the brain (mm)",
    "length_mm": "length of the brain (mm)",
    "height_mm": "height of the brain (mm)",
    "intensity_distance": "distance of the intensity histogram to the healthy one",
    "median_residual": "median residual in the brain",
}


@dataclass(frozen=True)
class Quality:
    """How far a scan lies from the healthy scans that set the threshold.

    Attributes:
        out_of_distribution: the largest deviation, in robust standard deviations of the healthy scans.
        deviations: of each measured quantity, signed.
        values: the quantities themselves.
        warnings: sentences for the reader; empty when nothing is amiss.
        called: what the reference scans are: `healthy`, or `lesion-free` where they are of patients.
    """

    out_of_distribution: float
    deviations: dict[str, float]
    values: dict[str, float]
    warnings: tuple[str, ...]
    called: str = "healthy"


def intensity_histogram(scan: Scan) -> np.ndarray:
    """Shares of the brain's voxels in 32 bins of [0, 1]; `(32,)`, sum 1."""
    counts, _ = np.histogram(scan.image[scan.brain_mask], bins=HISTOGRAM_BINS, range=(0, 1))
    return counts / counts.sum()


def _measure(scan: Scan, reconstruction: np.ndarray, histogram: np.ndarray) -> dict[str, float]:
    depth, length, width = (np.flatnonzero(scan.brain_mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    extents = {
        name: float((at[-1] - at[0] + 1) * VOXEL_SIZE_MM)
        for name, at in (("width_mm", width), ("length_mm", length), ("height_mm", depth))
    }
    residual = np.abs(scan.image - reconstruction)[erode_in_plane(scan.brain_mask)]
    return {
        "brain_ml": float(scan.brain_mask.sum() * VOXEL_VOLUME_ML),
        **extents,
        "intensity_distance": _distance(intensity_histogram(scan), histogram),
        "median_residual": float(np.median(residual)) if residual.size else 0.0,
    }


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two histograms, in scaled intensity."""
    centres = (np.arange(HISTOGRAM_BINS) + 0.5) / HISTOGRAM_BINS
    return float(wasserstein_distance(centres, centres, first, second))


def healthy_reference(scans: Iterable[tuple[Scan, np.ndarray]]) -> dict[str, Any]:
    """What healthy scans look like to a model; JSON-ready, kept beside its weights.

    Args:
        scans: healthy validation scans with their reconstructions, `(D, H, W)` in [0, 1]; at least three.

    Returns:
        `scans` (their number), `histogram` (mean, 32 bins), and for each quantity its `median` and `spread` (a
        robust standard deviation).
    """
    pairs = list(scans)
    histogram = np.mean([intensity_histogram(scan) for scan, _ in pairs], axis=0)
    measured = [_measure(scan, reconstruction, histogram) for scan, reconstruction in pairs]
    quantities = {}
    for name in QUANTITIES:
        values = np.array([one[name] for one in measured])
        median = float(np.median(values))
        spread = float(median_abs_deviation(values, scale="normal"))
        quantities[name] = {"median": round(median, 5), "spread": round(max(spread, _SPREAD_FLOOR * median), 6)}
    return {"scans": len(pairs), "histogram": [round(float(share), 5) for share in histogram], "quantities": quantities}


def assess_quality(
    scan: Scan, reconstruction: np.ndarray, reference: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> Quality:
    """Compare a scan with the healthy reference of a model.

    Args:
        scan: a prepared scan.
        reconstruction: `(D, H, W)` in [0, 1], by the model.
        reference: of `healthy_reference`, of the model in use.
        others: references of models for other contrasts, by contrast; to notice a wrong contrast.

    Returns:
        The deviations, and warnings where they exceed 5 robust standard deviations.
    """
    histogram, called = np.array(reference["histogram"]), reference.get("called", "healthy")
    values = _measure(scan, reconstruction, histogram)
    healthy = {name: reference["quantities"][name] for name in QUANTITIES}
    deviations = {
        name: (values[name] - known["median"]) / max(known["spread"], 1e-9) for name, known in healthy.items()
    }
    warnings = []
    own = intensity_histogram(scan)
    for contrast, other in others.items():
        if _distance(own, np.array(other["histogram"])) < values["intensity_distance"]:
            warnings.append(f"The intensities look more like {contrast} than {scan.contrast}: check the contrast.")
    for name, deviation in deviations.items():
        if abs(deviation) > WARN_DEVIATION:
            median = healthy[name]["median"]
            warnings.append(
                f"The {QUANTITIES[name]} is {values[name]:.3g}; in the {reference['scans']} {called} scans "
                f"behind the threshold the median is {median:.3g}. The threshold may not hold here."
            )
    largest = max(deviations.values(), key=abs)
    return Quality(
        round(abs(largest), 2),
        {k: round(v, 2) for k, v in deviations.items()},
        {k: round(v, 4) for k, v in values.items()},
        tuple(warnings),
        called,
    )


def field_of_view_warnings(brain_mask: np.ndarray) -> list[str]:
    """Say where the file ends inside the brain.

    Args:
        brain_mask: `(X, Y, Z)` bool on the file's own grid.
    """
    warnings = []
    for axis in range(3):
        areas = brain_mask.sum(axis=tuple(other for other in range(3) if other != axis))
        for end in (0, -1):
            if areas[end] > _CUT_SHARE * areas.max():
                side = "first" if end == 0 else "last"
                warnings.append(
                    f"The brain reaches the {side} slice of the file's axis {axis}: a part of it lies "
                    "outside the field of view and is not assessed."
                )
    return warnings
