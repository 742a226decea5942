"""Interactive threshold: what a threshold on an anomaly map finds, misses and takes for a lesion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.show.figures import FOUND_COLOUR, slice_height_mm
from pddm_utils.show.style import LESION_COLOUR, radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import (
    TOP_LEVEL,
    check_slices,
    common_limit,
    pack,
    pack_image,
    script,
    slices_to_show,
    to_levels,
)

HIT_COLOUR, HEALTHY_COLOUR = "#009E73", "#7F7F7F"


class ThresholdExplorer(InteractiveFigure):
    """A threshold slider over histogram, precision-recall curve and mask; the rule is `map > threshold`."""

    _esm = script("thresholds")


def explore_thresholds(
    scan: Scan,
    anomaly_map: np.ndarray,
    threshold: float | None = None,
    slice_indices: Sequence[int] | None = None,
) -> ThresholdExplorer:
    """Move a threshold over the anomaly map of a scan with a lesion.

    Precision, recall and Dice are those of the whole scan, without the filter of small components, on the map in
    256 levels; the AUPRC is that of the map itself. Voxels outside the brain are never found, so only those of
    brain and lesion are counted in the histogram.

    Args:
        scan: a prepared scan with a lesion.
        anomaly_map: `(D, H, W)`, at least 0, zero outside the brain.
        threshold: where the slider starts, in scaled intensity; mid-scale when left out.
        slice_indices: which slices to show; `slices_to_show(scan)` when left out.

    Raises:
        InputError: a map of another shape or with values outside the brain, no lesion, or no such slice.

    Example:
        >>> found = detect("patient_T2.nii.gz")  # doctest: +SKIP
        >>> explore_thresholds(found.scan, found.prepared_map, found.threshold)  # doctest: +SKIP
    """
    if anomaly_map.shape != scan.image.shape:
        raise InputError(f"anomaly_map: shape {anomaly_map.shape}; the scan {scan.subject} has {scan.image.shape}")
    if not scan.lesion_mask.any():
        raise InputError(f"the scan {scan.subject} has no lesion; pass one with a lesion mask")
    counted = scan.brain_mask | scan.lesion_mask
    if not np.isfinite(anomaly_map).all() or anomaly_map.min() < 0 or anomaly_map[~counted].any():
        raise InputError("anomaly_map: negative, not finite, or not 0 outside the brain; pass what `anomaly_map` gives")
    shown = sorted({int(k) for k in (slices_to_show(scan) if slice_indices is None else slice_indices)})
    check_slices(scan, shown)
    limit = common_limit(float(anomaly_map.max()))
    levels = to_levels(anomaly_map, limit)
    start = limit / 2 if threshold is None else threshold

    def counts(mask: np.ndarray) -> list[int]:
        return np.bincount(levels[mask], minlength=TOP_LEVEL + 1).tolist()

    return ThresholdExplorer(
        frames={
            "title": f"Thresholds: {scan.dataset}, {scan.subject}",
            "size": list(scan.image.shape[1:]),
            "slices": shown,
            "heights_mm": [slice_height_mm(scan, index) for index in shown],
            "start": [int(scan.lesion_mask[shown].sum(axis=(1, 2)).argmax()), int(to_levels(np.float64(start), limit))],
            "limit": limit,
            "auprc": average_precision(anomaly_map, scan.lesion_mask),
            "voxel_ml": VOXEL_VOLUME_ML,
            "healthy": counts(counted & ~scan.lesion_mask),
            "lesion_counts": counts(scan.lesion_mask),
            "colours": {
                "hit": HIT_COLOUR,
                "false_alarm": FOUND_COLOUR,
                "miss": LESION_COLOUR,
                "healthy": HEALTHY_COLOUR,
            },
            "image": pack_image(scan.image[shown]),
            "lesion": pack(radiological(scan.lesion_mask[shown])),
            "map": pack_image(anomaly_map[shown], limit),
        }
    )
