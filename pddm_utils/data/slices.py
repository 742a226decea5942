"""Slices of many scans as one sequence, read from the cache one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan


class HealthySlices:
    """All slices of healthy scans in manifest order; memory does not grow with their number.

    Args:
        rows: manifest rows without a lesion.
        cache: where the prepared scans lie; missing ones are prepared first.

    Raises:
        ValueError: a row has a lesion (training sees healthy brains only).

    Example:
        >>> slices = HealthySlices(rows, ScanCache("runs/cache"))  # doctest: +SKIP
        >>> slices[0].shape  # doctest: +SKIP
        (96, 96)
    """

    def __init__(self, rows: Sequence[ManifestRow], cache: ScanCache) -> None:
        lesioned = [row.scan_id for row in rows if row.lesion_mask]
        if lesioned:
            raise ValueError(f"{lesioned[0]} has a lesion; train on healthy scans only")
        self.rows, self.cache = list(rows), cache
        counts = [cache.slice_count(row) for row in self.rows]
        self.ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> np.ndarray:
        """Slice number `index`, `(H, W)` float32 in [0, 1]."""
        scan = int(np.searchsorted(self.ends, index, side="right"))
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = int(self.ends[scan - 1]) if scan else 0
        return self.cache.cached_slice(self.rows[scan], index - first)[0]

    def scans(self) -> Iterator[Scan]:
        """The scans whole, with their brain masks, one at a time."""
        return (load_scan(row, self.cache) for row in self.rows)
