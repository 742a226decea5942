"""Slices for the playground: simulated test subjects, and people where a build has their scans.

Those with a simulated lesion come with their healthy twin, and all with what is usual at each place. A stroke patient
of SOOP is one slice with a real lesion, and has no twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pddm_utils.data.examples import example_scan, healthy_twin
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.ixi import FOLDER as IXI_FOLDER
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.soop import ARCHIVE as SOOP_ARCHIVE
from pddm_utils.data.sources.soop import FOLDER as SOOP_FOLDER
from pddm_utils.data.sources.soop import soop_rows
from pddm_utils.data.sources.soop_table import LESION_FREE, LESIONED
from pddm_utils.detection.z_score import z_score_thresholds
from pddm_utils.evaluation.places import SPREAD_OFFSET, PlaceStatistics
from pddm_utils.evaluation.postprocess import MEDIAN_SIZE, erode_in_plane
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import METHODS
from pddm_utils.show.figures import slice_height_mm, telling_slice
from pddm_utils.show.widgets.packing import pack, to_levels

DEPTH = MEDIAN_SIZE  # slices of a slab: the shown one, and the neighbours that its 3-D median looks at
DEVIATION_LIMIT = 0.5  # of the packed standard deviations, scaled intensity
BRAIN, ERODED, LESION = 1, 2, 4  # bits of the packed masks
# Kind, subject of that kind, and how many slices above the telling one.
CHOICE = (("tumour", 0, 0), ("tumour", 1, 0), ("ms", 0, 0), ("healthy", 0, -14), ("healthy", 0, 0), ("healthy", 1, 8))
PEOPLE = 2  # of IXI, each with an inserted tumour and as they are
PATIENTS = {LESIONED: 3, LESION_FREE: 1}  # of SOOP
CREDITS = {
    "ixi": "Slices of people: IXI (brain-development.org, CC BY-SA 3.0), in the copy of the NiChart project, prepared; "
    "tumours in them are inserted and simulated. All other scans are simulated.",
    "soop": "Slices of stroke patients with real lesions: Stroke Outcome Optimization Project (OpenNeuro ds004889, "
    "CC0), prepared; those without a lesion in the slice are of patients too.",
}
_WORDS = {"tumour": "tumour", "ms": "MS lesions", "healthy": "healthy"}


@dataclass(frozen=True)
class Floor:
    """The shipped atlas of a cohort: a map without a network.

    Attributes:
        places: mean and spread of healthy intensities by place.
        threshold: of its map, by the rule of the shipped models, in healthy standard deviations.
    """

    places: PlaceStatistics
    threshold: float

    def facts(self) -> dict[str, Any]:
        """What the page shows of it, JSON-ready."""
        atlas = METHODS["atlas"]
        return {"label": atlas.label, "colour": atlas.colour, "threshold": self.threshold, "offset": SPREAD_OFFSET}


@dataclass(frozen=True)
class Slab:
    """Five neighbouring slices of a test subject, or the one there is; the middle one is shown.

    Attributes:
        title: for the reader.
        scan: cut to the slab, every array `(5, 96, 96)`.
        healthy: its healthy twin, `(5, 96, 96)` in [0, 1]; None where nobody knows it.
        mean, deviation: of the floor at every voxel, `(5, 96, 96)`, scaled intensity; None without one.
    """

    title: str
    scan: Scan
    healthy: np.ndarray | None
    mean: np.ndarray | None
    deviation: np.ndarray | None

    def frames(self) -> dict[str, Any]:
        """Packed for the page, in array orientation; `masks` has a bit each for brain, eroded brain and lesion."""
        scan = self.scan
        masks = BRAIN * scan.brain_mask + ERODED * erode_in_plane(scan.brain_mask) + LESION * scan.lesion_mask
        frames = {
            "title": self.title,
            "image": pack(to_levels(scan.image, 1)),
            "healthy": pack(to_levels(scan.image if self.healthy is None else self.healthy, 1)),
            "twin": self.healthy is not None,
            "masks": pack(masks.astype(np.uint8)),
        }
        if self.mean is not None and self.deviation is not None:
            frames["mean"] = pack(to_levels(self.mean, 1))
            frames["deviation"] = pack(to_levels(self.deviation, DEVIATION_LIMIT))
        return frames


def shipped_floor(cohort: str, contrast: str, runs: Path, weights: Path, subjects: int) -> Floor | None:
    """The floor of a cohort, its threshold set on simulated healthy validation subjects; None where none is shipped.

    That of SOOP is set on lesion-free validation slices of patients, as its models' thresholds are.

    Args:
        cohort, contrast: whose.
        runs: folder whose `cache/` keeps the prepared scans.
        weights: folder of the shipped models.
        subjects: how many validation subjects.
    """
    path = weights / f"{cohort}-{contrast.lower()}-atlas" / "model.safetensors"
    if not path.is_file():
        return None
    places = PlaceStatistics.load(path)
    if cohort == "soop":
        rows = soop_rows(require_data_root(), train=0, val=subjects, val_lesion=0, test=0)
        scans = (load_scan(row, ScanCache(runs / "cache")) for row in rows)
    else:
        scans = (example_scan("healthy", contrast, "val", subject, runs) for subject in range(subjects))
    thresholds = z_score_thresholds(((scan, np.zeros_like(scan.image)) for scan in scans), places)
    return Floor(places, thresholds[DEFAULT_RULE])


def slabs(contrast: str, floor: Floor | None, runs: Path, count: int) -> Iterator[Slab]:
    """The first slabs of `CHOICE` in one contrast.

    Args:
        contrast: of the scans.
        floor: of the same contrast.
        runs: folder whose `cache/` keeps the prepared scans.
        count: how many.
    """
    for kind, subject, above in CHOICE[:count]:
        scan = example_scan(kind, contrast, "test", subject, runs)
        twin = scan if kind == "healthy" else healthy_twin(scan, runs)
        yield _slab(f"{_WORDS[kind]}, simulated subject {subject + 1}", scan, twin, floor, above)


def people_slabs(root: Path | None, floor: Floor | None, runs: Path, people: int = PEOPLE) -> Iterator[Slab]:
    """Slabs of IXI test subjects (T1), whom no model has seen: with an inserted tumour, then as they are.

    Args:
        root: folder of the real scans, see `data_root`; nothing comes of None or of one without IXI.
        floor: of IXI.
        runs: folder whose `cache/` keeps the prepared scans.
        people: how many.
    """
    if root is None or not (root / IXI_FOLDER).is_dir():
        return
    rows = [row for row in ixi_rows(root, 0, 0, people, ("tumour",)) if row.split == "test"]
    cache = ScanCache(runs / "cache")
    healthy = {row.subject: load_scan(row, cache) for row in rows if row.inserted_lesion is None}
    ill = [load_scan(row, cache) for row in rows if row.inserted_lesion is not None]
    for number, scan in enumerate(ill):
        yield _slab(f"person {number + 1}, inserted tumour", scan, healthy[scan.subject], floor)
    for number, scan in enumerate(healthy.values()):
        yield _slab(f"person {number + 1}, healthy", scan, scan, floor)


def patient_slabs(root: Path | None, floor: Floor | None, runs: Path) -> Iterator[Slab]:
    """One-slice slabs of SOOP test patients, the first ones of each data set.

    Args:
        root: folder of the real scans, see `data_root`; nothing comes of None or of one without SOOP.
        floor: of SOOP.
        runs: folder whose `cache/` keeps the prepared scans.
    """
    if root is None or not has_soop(root):
        return
    rows = soop_rows(root, train=0, val=0, val_lesion=0, test=max(PATIENTS.values()))
    cache = ScanCache(runs / "cache")
    for dataset, count in PATIENTS.items():
        for number, row in enumerate([row for row in rows if row.dataset == dataset][:count]):
            words = "no lesion in this slice" if dataset == LESION_FREE else "stroke"
            yield _slab(f"patient {number + 1}, {words}", load_scan(row, cache), None, floor)


def has_soop(root: Path | None) -> bool:
    """Whether a folder of real scans holds slices of SOOP, in either form."""
    return root is not None and any((root / name).is_dir() for name in (SOOP_FOLDER, SOOP_ARCHIVE))


def _slab(title: str, scan: Scan, twin: Scan | None, floor: Floor | None, above: int = 0) -> Slab:
    """The slab around a scan's telling slice, or so many slices above it."""
    reach = DEPTH // 2 if len(scan.image) >= DEPTH else 0
    middle = int(np.clip(telling_slice(scan) + above, reach, len(scan.image) - 1 - reach))
    cut = slice(middle - reach, middle + reach + 1)
    mean = deviation = None
    if floor is not None:
        mean, deviation = (of(scan.brain_mask)[cut] for of in (floor.places.expected, floor.places.spread))
    named = f"{title}, z = {slice_height_mm(scan, middle)} mm"
    return Slab(named, scan.with_slices(cut), None if twin is None else twin.image[cut], mean, deviation)


def slab_file(contrast: str, floor: Floor | None, made: list[Slab], credit: str = "") -> dict[str, Any]:
    """Everything the page needs of the scans of one group, JSON-ready.

    Args:
        contrast: of the scans.
        floor: theirs.
        made: their slabs.
        credit: where scans of people come from, and their terms.
    """
    return {
        "contrast": contrast,
        "credit": credit,
        "depth": len(made[0].scan.image),
        "deviation_limit": DEVIATION_LIMIT,
        "floor": floor.facts() if floor is not None else None,
        "slabs": [slab.frames() for slab in made],
    }
