"""What goes into the quality-control page: numbers and small pictures of each scan, and who is an outlier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk
from scipy import stats

from pddm_utils.data.preprocess.images import array_of, empty_grid, resampled
from pddm_utils.data.preprocess.plan import Plan
from pddm_utils.data.preprocess.registration import load_template
from pddm_utils.data.preprocess.subject import Subject, brain_ml
from pddm_utils.evaluation.metrics import dice

LEAST_DICE = 0.90  # of the brain mask with the template's: a call to look; two IXI and two MSLUB scans had 0.96-0.97
LARGEST_Z = 3.5
COMPARED = ("brain_ml", "mean", "std", "skewness")  # by robust z
_PICTURE_VOXELS, _PICTURE_MM = 128, 2.0


def measure(subject: Subject, plan: Plan) -> dict[str, float | None]:
    """Numbers of one finished scan.

    Returns:
        `dice` of brain and template mask on the part of the template that the grid covers (None when the scan was
        not registered), `brain_ml`, and `mean`, `std`, `skewness` of the intensities inside the brain.
    """
    inside = array_of(subject.brain) > 0
    values = array_of(subject.image)[inside].astype(float)
    spread = values.std()
    skewness = float(stats.skew(values)) if spread > 0 else 0.0
    overlap = None
    if "register" in plan.steps:
        overlap = round(dice(inside, _template_mask(subject.brain, plan)), 4)
    return {
        "dice": overlap,
        "brain_ml": round(brain_ml(subject.brain), 1),
        "mean": round(float(values.mean()), 4),
        "std": round(float(spread), 4),
        "skewness": round(skewness, 4),
    }


def outliers(numbers: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[str]]:
    """Why a scan should be looked at, by scan; empty lists for the others.

    Statistics are compared by `robust_z` where there are at least five scans.

    Args:
        numbers: of `measure`, by scan, all of one contrast and data set.
    """
    reasons: dict[str, list[str]] = {name: [] for name in numbers}
    for name, values in numbers.items():
        if values["dice"] is not None and values["dice"] < LEAST_DICE:
            reasons[name].append(f"overlap with the template {values['dice']:.2f}, below {LEAST_DICE:.2f}")
    for statistic in COMPARED if len(numbers) >= 5 else ():
        measured = [one[statistic] for one in numbers.values()]
        for name, z in zip(numbers, robust_z(measured), strict=True):
            if abs(z) > LARGEST_Z:
                reasons[name].append(f"{statistic} {numbers[name][statistic]:g}, robust z {z:+.1f}")
    return reasons


def robust_z(values: Sequence[float | None]) -> np.ndarray:
    """Distance from the median in units of 1.4826 median absolute deviations; 0 for all where most values are equal."""
    distance = np.asarray(values, float) - np.median(np.asarray(values, float))
    deviation = stats.median_abs_deviation(distance, scale="normal")
    return distance / deviation if deviation > 0 else np.zeros_like(distance)


def pictures(raw: Subject, done: Subject, plan: Plan) -> np.ndarray:
    """Three planes of the scan before and after, with its brain mask and the template's.

    Returns:
        `(2, 3, 3, 128, 128)` uint8: before and after; image (0-255), brain mask, template mask (0 or 1); axial,
        coronal and sagittal plane through the middle of the brain, 2 mm, rows from low to high.
    """
    template = None
    if "register" in plan.steps:
        template = load_template(plan.template, plan.spacing_mm)[1]
    return np.stack([_planes(raw, None), _planes(done, template)])


def _template_mask(like: sitk.Image, plan: Plan) -> np.ndarray:
    return array_of(resampled(load_template(plan.template, plan.spacing_mm)[1], like)) > 0


def _planes(subject: Subject, template: sitk.Image | None) -> np.ndarray:
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(subject.brain)
    half = (_PICTURE_VOXELS - 1) / 2 * _PICTURE_MM
    x, y, z = shape.GetCentroid(1)
    # Columns from patient left to right, rows from back to front: a grid along the body's axes, as radiologists cut.
    grid = empty_grid(
        [_PICTURE_VOXELS] * 3, [_PICTURE_MM] * 3, (x + half, y + half, z - half), (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    )
    image = array_of(resampled(subject.image, grid))
    low, high = np.percentile(array_of(subject.image)[array_of(subject.brain) > 0], (1, 99))
    grey = 255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    grey[image == 0] = 0
    outline = array_of(resampled(template, grid)) if template is not None else np.zeros_like(grey)
    middle = _PICTURE_VOXELS // 2
    layers = [
        np.stack([a[middle], a[:, middle], a[:, :, middle]])
        for a in (grey, array_of(resampled(subject.brain, grid)), outline)
    ]
    return np.stack(layers).astype(np.uint8)
