"""What the volume viewer draws, and the viewer as self-contained HTML: no widget library is needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import INTENSITY_UNIT, Scan
from pddm_utils.evaluation.postprocess import bounding_box
from pddm_utils.show.figures import FOUND_COLOUR
from pddm_utils.show.style import LESION_COLOUR
from pddm_utils.show.widgets.packing import common_limit, figure_html, pack, pack_palette, script, to_levels


def volume_frames(
    scan: Scan, anomaly_map: np.ndarray, threshold: float | None = None, unit: str = INTENSITY_UNIT
) -> dict[str, Any]:
    """Scan, anomaly map and lesion mask, cut to the brain's bounding box and packed.

    Args and errors are those of `view_volume`.
    """
    if anomaly_map.shape != scan.image.shape:
        raise InputError(f"anomaly_map: shape {anomaly_map.shape}; the scan {scan.subject} has {scan.image.shape}")
    if not np.isfinite(anomaly_map).all() or anomaly_map.min() < 0:
        raise InputError("anomaly_map: negative or not finite; pass what `anomaly_map` gives")
    if not scan.brain_mask.any():
        raise InputError(f"the scan {scan.subject} has no brain voxel; check its brain mask")
    box = bounding_box(scan.brain_mask)
    first = np.array([part.start for part in box])
    shift = np.eye(4)
    shift[:3, 3] = first[::-1]
    peak = float(anomaly_map.max())
    limit = common_limit(peak) if peak <= 1 else math.ceil(peak)
    brightest = np.unravel_index(anomaly_map[box].argmax(), anomaly_map[box].shape)
    start = limit / 4 if threshold is None else threshold
    return {
        "title": f"Anomaly map over the scan: {scan.dataset}, {scan.subject}",
        "size": list(anomaly_map[box].shape),
        "start": [int(value) for value in brightest],
        "affine": (scan.affine @ shift)[:3].tolist(),
        "limit": limit,
        "unit": unit,
        "threshold": int(to_levels(np.float64(start), limit)),
        "lesion_colour": LESION_COLOUR,
        "cross_colour": FOUND_COLOUR,
        "palette": pack_palette(),
        "image": pack(to_levels(scan.image[box], 1.0)),
        "map": pack(to_levels(anomaly_map[box], limit)),
        "lesion": pack(scan.lesion_mask[box]),
    }


def volume_html(scan: Scan, anomaly_map: np.ndarray, threshold: float, unit: str, name: str) -> str:
    """The volume viewer as an HTML fragment.

    Args:
        scan, anomaly_map, threshold, unit: as of `view_volume`.
        name: `id` of its element, unique in the page.
    """
    return figure_html(volume_frames(scan, anomaly_map, threshold, unit), script("volume"), name)
