"""Simulated test subjects whose tumour has a size and a contrast that are set, not drawn."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan, scale_to_unit_range
from pddm_utils.data.simulation.anatomy import Anatomy, simulate_anatomy
from pddm_utils.data.simulation.lesions import LESION_LEVELS, TUMOUR, insert_lesion

RADII = (6.0, 9.0, 12.0, 16.0, 20.0)  # mm, at the contrast of SIZE_CONTRAST
SIZE_CONTRAST = 0.45
CONTRASTS = (0.15, 0.3, 0.6, 0.8)  # at the radius of CONTRAST_RADIUS, besides SIZE_CONTRAST
CONTRAST_RADIUS = 16.0


@lru_cache(maxsize=1)
def _anatomy(index: int, contrast: str) -> Anatomy:
    """The last subject that was asked for: its tumours come one after another."""
    return simulate_anatomy(index, contrast)


class SetTumour(NamedTuple):
    """A tumour's radius in mm, and its contrast on the way from white matter (0) to fluid (1).

    Oedema, core and necrosis have the same contrast, so that it is one number.
    """

    radius_mm: float
    contrast: float

    def scan(self, row: ManifestRow, slice_step: int = 1) -> Scan:
        """Every n-th slice of the subject of a simulated row with this tumour, from the row's own lesion seed.

        Tumours of one radius differ in contrast alone; another radius may find another place.

        Args:
            row: a simulated subject with an inserted tumour.
            slice_step: n.
        """
        if row.inserted_lesion is None:
            raise InputError(f"{row.scan_id}: no lesion is inserted; take a simulated subject with a tumour")
        anatomy, same = _anatomy(row.simulated_index, row.contrast), (self.contrast, self.contrast)
        image, lesion_mask = insert_lesion(
            anatomy.image,
            anatomy.brain_mask,
            anatomy.tissues,
            row.contrast,
            "tumour",
            np.random.default_rng(row.inserted_lesion[1]),
            dataclasses.replace(TUMOUR, radius=(self.radius_mm, self.radius_mm)),
            dataclasses.replace(LESION_LEVELS[row.contrast], oedema=same, core=same, necrosis=same),
        )
        image = scale_to_unit_range(image, anatomy.brain_mask)
        whole = Scan(row.subject, row.dataset, row.contrast, image, anatomy.brain_mask, lesion_mask, anatomy.affine)
        return every_nth_slice(whole, slice_step)


SET_TUMOURS = (
    *(SetTumour(radius, SIZE_CONTRAST) for radius in RADII),
    *(SetTumour(CONTRAST_RADIUS, contrast) for contrast in CONTRASTS),
)
