"""The protocol every method follows, and the way from a scan to its anomaly map."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.data.slices import HealthySlices


class Method(Protocol):
    """Learns what healthy looks like, then rebuilds a scan as if it were healthy.

    Attributes:
        name: row in the benchmark, such as `pddpm`.
    """

    name: str

    def fit(self, train: HealthySlices, val: HealthySlices, folder: Path) -> None:
        """Learn from healthy slices; keeps its state in `folder`, and goes on from there when interrupted."""

    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume x^, `(D, H, W)` float32 in [0, 1]; methods without noise ignore the timestep."""
