"""Volume viewer: three planes through a scan with its anomaly map over it, in a page or a notebook.

On the book's own component rather than NiiVue: the script of ipyniivue is 5 MB and needs WebGL; a page of this
book has at most 3 MB of its own and is read on phones, on paper and by screen readers too.
"""

from __future__ import annotations

import numpy as np

from pddm_utils.data.scan import INTENSITY_UNIT, Scan
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import script
from pddm_utils.show.widgets.volume_page import volume_frames


class VolumeViewer(InteractiveFigure):
    """Three planes with a crosshair; sliders for the place, the map's opacity and its threshold.

    `frames` hold the volumes cut to the brain's bounding box; places are voxels of that box.
    """

    _esm = script("volume")


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
    return VolumeViewer(frames=volume_frames(scan, anomaly_map, threshold, unit))
