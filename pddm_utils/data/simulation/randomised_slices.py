"""Training slices whose intensities are drawn, not measured: the label maps of healthy scans through `randomise`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.prepare import ScanCache
from pddm_utils.data.simulation.randomise import LABELS, randomise
from pddm_utils.data.volume import read_volume

APPEARANCES = 1_000_000  # of each slice: with so many, a training run does not see one twice
_STREAM = 152_003  # key of the generators, apart from those of the simulated anatomies
_REFERENCE = 2_000  # brain voxels of a scan that stand for all of them


class RandomisedSlices:
    """All slices of healthy scans in manifest order, over and over, each time with other intensities.

    A slice is a function of its index alone, so what a training run draws is a function of its seed and its step, as
    with `pddm_utils.data.slices.HealthySlices`. Of the scans themselves only the place of the frame is used. The labels
    are kept in memory, about 0.6 MB a scan.

    Args:
        rows: manifest rows without a lesion, whose brain mask is a DLMUSE label map.
        cache: where the prepared scans lie; missing ones are prepared first.

    Raises:
        ValueError: a row has a lesion (training sees healthy brains only).
        InputError: see `framed_labels`.

    Example:
        >>> slices = RandomisedSlices(rows, ScanCache("runs/cache"))  # doctest: +SKIP
        >>> slices[0].shape, np.array_equal(slices[0], slices[len(slices) // 2])  # doctest: +SKIP
        ((96, 96), False)
    """

    def __init__(self, rows: Sequence[ManifestRow], cache: ScanCache) -> None:
        lesioned = [row.scan_id for row in rows if row.lesion_mask]
        if lesioned:
            raise ValueError(f"{lesioned[0]} has a lesion; train on healthy scans only")
        self.rows = list(rows)
        self.labels = [framed_labels(row, cache) for row in self.rows]
        self.references = [_reference(labels) for labels in self.labels]
        self.ends = np.cumsum([len(labels) for labels in self.labels], dtype=np.int64)

    def __len__(self) -> int:
        return APPEARANCES * int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> np.ndarray:
        """Slice number `index`, `(H, W)` float32 in [0, 1]."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = index % int(self.ends[-1])
        scan = int(np.searchsorted(self.ends, place, side="right"))
        labels = self.labels[scan][place - int(self.ends[scan])]  # from the scan's end: negative
        return randomise(labels, np.random.default_rng([_STREAM, index]), self.references[scan])


def framed_labels(row: ManifestRow, cache: ScanCache) -> np.ndarray:
    """The label map of a scan on its prepared frame, by nearest neighbour.

    Args:
        row: its brain mask is a label map.
        cache: where the prepared scan lies; prepared first when missing.

    Returns:
        `(D, 96, 96)` uint8; the same slices as the prepared scan.

    Raises:
        InputError: there is no such file, or it cannot be read; its values are no labels from 0 to 255, or it has less
            than three of them.
    """
    path = row.brain_mask
    if path in ("", EXTRACT_BRAIN):
        raise InputError(f"{row.scan_id}: no label map; give one as brain_mask (such as DLMUSE)")
    volume, scan = read_volume(path), cache.load(row)
    values = np.unique(volume.data)
    if not np.isin(values, np.arange(LABELS)).all():
        raise InputError(f"{path}: values that are no whole numbers from 0 to {LABELS - 1}; give a DLMUSE label map")
    if values.size < 3:
        raise InputError(f"{path}: a mask of one label; give a label map (such as DLMUSE)")
    framed = ndimage.affine_transform(
        volume.data.astype(np.uint8),
        np.linalg.inv(volume.affine) @ scan.affine,
        output_shape=scan.image.shape[::-1],
        order=0,
        mode="grid-constant",
    )
    return np.ascontiguousarray(framed.T)


def _reference(labels: np.ndarray) -> np.ndarray:
    """Labels of brain voxels from all over the scan, evenly spaced."""
    inside = labels[labels > 0]
    return inside[:: max(1, inside.size // _REFERENCE)]
