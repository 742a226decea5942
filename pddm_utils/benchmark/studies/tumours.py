"""Simulated test subjects whose tumour has a size and a contrast that are set, not drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import Scan, scale_to_unit_range
from pddm_utils.data.simulation.anatomy import simulate_anatomy
from pddm_utils.data.simulation.lesions import LESION_LEVELS, TUMOUR, insert_lesion

RADII = (6.0, 9.0, 12.0, 16.0, 20.0)  # mm, at the contrast of SIZE_CONTRAST
SIZE_CONTRAST = 0.45
CONTRASTS = (0.15, 0.3, 0.6, 0.8)  # at the radius of CONTRAST_RADIUS, besides SIZE_CONTRAST
CONTRAST_RADIUS = 16.0
GRID = (*((radius, SIZE_CONTRAST) for radius in RADII), *((CONTRAST_RADIUS, contrast) for contrast in CONTRASTS))


class SetTumour(NamedTuple):
    """A simulated scan and its tumour: radius in mm, contrast on the way from white matter (0) to fluid (1)."""

    radius_mm: float
    contrast: float
    scan: Scan


def set_tumours(row: ManifestRow, grid: Iterable[tuple[float, float]] = GRID) -> Iterator[SetTumour]:
    """The subject of a simulated row with one tumour after another, all from the row's own lesion seed.

    Oedema, core and necrosis have the same contrast, so that it is one number. Tumours of one radius differ in contrast
    alone; another radius may find another place.

    Args:
        row: a simulated subject with an inserted tumour.
        grid: (radius in mm, contrast) pairs.

    Example:
        >>> [tumour.radius_mm for tumour in set_tumours(row, [(12.0, 0.5)])]  # doctest: +SKIP
        [12.0]
    """
    anatomy = simulate_anatomy(row.simulated_index, row.contrast)
    for radius, contrast in grid:
        same = (contrast, contrast)
        levels = dataclasses.replace(LESION_LEVELS[row.contrast], oedema=same, core=same, necrosis=same)
        image, lesion_mask = insert_lesion(
            anatomy.image,
            anatomy.brain_mask,
            anatomy.tissues,
            row.contrast,
            "tumour",
            np.random.default_rng(row.inserted_lesion[1]),
            dataclasses.replace(TUMOUR, radius=(radius, radius)),
            levels,
        )
        scan = Scan(
            row.subject,
            row.dataset,
            row.contrast,
            scale_to_unit_range(image, anatomy.brain_mask),
            anatomy.brain_mask,
            lesion_mask,
            anatomy.affine,
        )
        yield SetTumour(radius, contrast, scan)
