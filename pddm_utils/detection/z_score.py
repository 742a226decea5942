"""The z-score map: how unusual a residual is at its place of the brain, in healthy standard deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.places import LARGEST_SCORE, HealthyPlaces, PlaceStatistics, towards_lesions
from pddm_utils.evaluation.postprocess import erode_in_plane, score_map
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES, HealthyQuantile

REFERENCE_SUBJECTS = 20  # healthy training subjects: validation subjects may share their anatomy with lesioned ones
REFERENCE_SLICE_STEP = 3  # every third slice of them, as in the validation search


def residuals_by_place(scans: Iterable[Scan], rebuild: Callable[[Scan], np.ndarray]) -> PlaceStatistics:
    """Mean and spread by place of x - x^ over healthy scans.

    Args:
        scans: prepared, whose anatomy no scored scan shares.
        rebuild: x^ of a scan, `(D, H, W)` in [0, 1].
    """
    seen = HealthyPlaces()
    for scan in scans:
        seen.add(scan.image - rebuild(scan), scan.brain_mask)
    return seen.statistics()


def lesion_z_score(scan: Scan, reconstruction: np.ndarray, places: PlaceStatistics | HealthyPlaces) -> np.ndarray:
    """Unusual in the direction of lesions, brighter than rebuilt (T2, FLAIR) or darker (T1); `(D, H, W)`, at least 0.

    Args:
        scan: a prepared scan.
        reconstruction: `(D, H, W)` in [0, 1].
        places: healthy residuals of the same model.
    """
    return towards_lesions(places.z_score(scan.image - reconstruction, scan.brain_mask), scan.contrast)


def z_score_map(scan: Scan, reconstruction: np.ndarray, places: PlaceStatistics) -> np.ndarray:
    """The anomaly map in healthy standard deviations: `lesion_z_score`, eroded and median filtered as the residual.

    Chosen on validation scans with inserted (simulated) lesions: it finds more of tumours, and less of lesions
    that are smaller than the median filter.

    Args:
        scan: a prepared scan.
        reconstruction: `(D, H, W)` in [0, 1].
        places: healthy residuals of the same model.

    Returns:
        `(D, H, W)` float32, at least 0, exactly 0 outside the eroded mask.
    """
    return score_map(lesion_z_score(scan, reconstruction, places), scan.brain_mask)


def z_score_thresholds(pairs: Iterable[tuple[Scan, np.ndarray]], places: PlaceStatistics) -> dict[str, float]:
    """Healthy quantiles of the z-score map by rule name.

    Args:
        pairs: healthy validation scans with their reconstructions.
        places: healthy residuals of the same model.

    Raises:
        InputError: there is no scan.
    """
    quantile = HealthyQuantile()
    for scan, reconstruction in pairs:
        values = z_score_map(scan, reconstruction, places)
        quantile.add(values[erode_in_plane(scan.brain_mask)] / LARGEST_SCORE)
    return {rule: quantile.threshold(share) * LARGEST_SCORE for rule, share in HEALTHY_QUANTILES.items()}
