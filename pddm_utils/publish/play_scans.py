"""Slices for the playground: simulated test subjects with their healthy twins, and what is usual at each place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pddm_utils.data.examples import example_scan, healthy_twin
from pddm_utils.data.scan import Scan
from pddm_utils.detection.z_score import z_score_thresholds
from pddm_utils.evaluation.places import SPREAD_OFFSET, HealthyPlaces
from pddm_utils.evaluation.postprocess import MEDIAN_SIZE, erode_in_plane
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.show.figures import slice_height_mm, telling_slice
from pddm_utils.show.widgets.packing import pack, to_levels

DEPTH = MEDIAN_SIZE  # slices of a slab: the shown one, and the neighbours that its 3-D median looks at
DEVIATION_LIMIT = 0.5  # of the packed standard deviations, scaled intensity
BRAIN, ERODED, LESION = 1, 2, 4  # bits of the packed masks
# Kind, subject of that kind, and how many slices above the telling one.
CHOICE = (("tumour", 0, 0), ("tumour", 1, 0), ("ms", 0, 0), ("healthy", 0, -14), ("healthy", 0, 0), ("healthy", 1, 8))
_WORDS = {"tumour": "tumour", "ms": "MS lesions", "healthy": "healthy"}


@dataclass(frozen=True)
class Floor:
    """Mean and spread of healthy intensities by place: what a map without a network is made of.

    Attributes:
        places: of healthy training subjects.
        threshold: of the z-score map, by the rule of the shipped models, in healthy standard deviations.
    """

    places: HealthyPlaces
    threshold: float


@dataclass(frozen=True)
class Slab:
    """Five neighbouring slices of a simulated test subject; the middle one is shown.

    Attributes:
        title: for the reader.
        scan: cut to the slab, every array `(5, 96, 96)`.
        healthy: its healthy twin, `(5, 96, 96)` in [0, 1].
        mean, deviation: healthy intensities by place, `(5, 96, 96)`, scaled intensity.
    """

    title: str
    scan: Scan
    healthy: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def frames(self) -> dict[str, Any]:
        """Packed for the page, in array orientation; `masks` has a bit each for brain, eroded brain and lesion."""
        scan = self.scan
        masks = BRAIN * scan.brain_mask + ERODED * erode_in_plane(scan.brain_mask) + LESION * scan.lesion_mask
        return {
            "title": self.title,
            "image": pack(to_levels(scan.image, 1)),
            "healthy": pack(to_levels(self.healthy, 1)),
            "masks": pack(masks.astype(np.uint8)),
            "mean": pack(to_levels(self.mean, 1)),
            "deviation": pack(to_levels(self.deviation, DEVIATION_LIMIT)),
        }


def healthy_floor(contrast: str, runs: Path, subjects: int) -> Floor:
    """What is usual at each place, by simulated healthy subjects; its threshold by validation subjects, half as many.

    Args:
        contrast: `T1`, `T2` or `FLAIR`.
        runs: folder whose `cache/` keeps the prepared scans.
        subjects: how many training subjects, at least two.
    """
    places = HealthyPlaces()
    for subject in range(subjects):
        scan = example_scan("healthy", contrast, "train", subject, runs)
        places.add(scan.image, scan.brain_mask)
    validation = (example_scan("healthy", contrast, "val", subject, runs) for subject in range(subjects // 2))
    pairs = ((scan, np.zeros_like(scan.image)) for scan in validation)
    return Floor(places, z_score_thresholds(pairs, places.statistics())[DEFAULT_RULE])


def slabs(contrast: str, floor: Floor, runs: Path, count: int) -> Iterator[Slab]:
    """The first slabs of `CHOICE` in one contrast.

    Args:
        contrast: of the scans.
        floor: of `healthy_floor`, the same contrast.
        runs: as there.
        count: how many.
    """
    for kind, subject, above in CHOICE[:count]:
        scan = example_scan(kind, contrast, "test", subject, runs)
        twin = scan if kind == "healthy" else healthy_twin(scan, runs)
        middle = int(np.clip(telling_slice(scan) + above, DEPTH // 2, len(scan.image) - 1 - DEPTH // 2))
        cut = slice(middle - DEPTH // 2, middle + DEPTH // 2 + 1)
        part = Scan(
            scan.subject,
            scan.dataset,
            contrast,
            scan.image[cut],
            scan.brain_mask[cut],
            scan.lesion_mask[cut],
            scan.affine,
        )
        mean, deviation = (of(scan.brain_mask)[cut] for of in (floor.places.mean, floor.places.deviation))
        title = f"{_WORDS[kind]}, subject {subject + 1}, z = {slice_height_mm(scan, middle)} mm"
        yield Slab(title, part, twin.image[cut], mean, deviation)


def slab_file(contrast: str, runs: Path, subjects: int, count: int) -> tuple[dict[str, Any], list[Slab]]:
    """Everything the page needs of one contrast, JSON-ready, and the slabs it was made of.

    Args:
        contrast, runs, subjects: of `healthy_floor`.
        count: of `slabs`.
    """
    floor = healthy_floor(contrast, runs, subjects)
    made = list(slabs(contrast, floor, runs, count))
    frames = {
        "contrast": contrast,
        "depth": DEPTH,
        "deviation_limit": DEVIATION_LIMIT,
        "spread_offset": SPREAD_OFFSET,
        "floor_threshold": floor.threshold,
        "slabs": [slab.frames() for slab in made],
    }
    return frames, made
