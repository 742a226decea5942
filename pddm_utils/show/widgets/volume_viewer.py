"""Volume viewer: three planes through a scan with its anomaly map over it, in a page or a notebook.

On the book's own component rather than NiiVue: the script of ipyniivue is 5 MB and needs WebGL; a page of this
book has at most 3 MB of its own and is read on phones, on paper and by screen readers too.
"""

from __future__ import annotations

import math

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import INTENSITY_UNIT, Scan
from pddm_utils.evaluation.postprocess import bounding_box
from pddm_utils.show.figures import FOUND_COLOUR
from pddm_utils.show.style import LESION_COLOUR
from pddm_utils.show.widgets.base import (
    LEVELS,
    InteractiveFigure,
    common_limit,
    pack,
    pack_palette,
    script,
    to_levels,
    unpack,
)

_AXIS = {"axial": 0, "coronal": 1, "sagittal": 2}


class VolumeViewer(InteractiveFigure):
    """Three planes with a crosshair; sliders for the place, the map's opacity and its threshold.

    `frames` hold the volumes cut to the brain's bounding box; places are voxels of that box.
    """

    _esm = script("volume")

    def plane(self, view: str, place: int, level: int, opacity: float) -> np.ndarray:
        """Colours of a plane, uint8 `(rows, columns, 3)` as displayed.

        Args:
            view: `axial`, `coronal` or `sagittal`.
            place: voxel along z, y or x.
            level: map levels above it are shown.
            opacity: share of the map's colour there, in [0, 1].
        """
        size = self.frames["size"]
        image, levels = (
            unpack(self.frames[name], size).take(place, axis=_AXIS[view])[::-1, ::-1] for name in ("image", "map")
        )
        grey = image[..., None].astype(float)
        colours = unpack(self.frames["palette"], (LEVELS + 1, 3))[levels]
        mixed = np.floor((1 - opacity) * grey + opacity * colours + 0.5)
        return np.where(levels[..., None] > level, mixed, grey).astype(np.uint8)


def view_volume(
    scan: Scan, anomaly_map: np.ndarray, threshold: float | None = None, unit: str = INTENSITY_UNIT
) -> VolumeViewer:
    """Look at an anomaly map over its scan in three planes, with a crosshair.

    Args:
        scan: a prepared scan; its lesion mask, if any, is outlined.
        anomaly_map: `(D, H, W)`, at least 0.
        threshold: the map is shown above it; a quarter of the scale when left out.
        unit: of map and threshold.

    Raises:
        InputError: a map of another shape, or values that are negative or not finite.

    Example:
        >>> found = detect("patient_T2.nii.gz")  # doctest: +SKIP
        >>> view_volume(found.scan, found.prepared_map, found.threshold)  # doctest: +SKIP
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
    return VolumeViewer(
        frames={
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
    )
