"""A floor without a network: what a threshold on the intensity itself finds."""

from __future__ import annotations

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.methods.base import UnlearnedMethod


class IntensityThreshold(UnlearnedMethod):
    """Brightness on T2 and FLAIR, darkness on T1, as the anomaly score ("Thresh" in Behrendt et al. 2023).

    Its "reconstruction" is black on T2 and FLAIR and white on T1, so that |x - x^| is the score: the same path from
    residual to numbers serves every method.
    """

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """`(D, H, W)` float32: 0 everywhere, or 1 in the brain on T1."""
        if scan.contrast == "T1":
            return scan.brain_mask.astype(np.float32)
        return np.zeros_like(scan.image)
