"""The lesion that a manifest row asks for, drawn into its healthy scan."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.frame import Frame
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.simulation.foreign_tissue import insert_foreign_patch, insert_mass_effect
from pddm_utils.data.simulation.lesions import insert_lesion
from pddm_utils.data.simulation.shaped_lesions import SHAPED, insert_shaped_lesion
from pddm_utils.data.simulation.tissues import Tissues
from pddm_utils.data.volume import load_volume


def insert_into(
    frame: Frame, tissues: Tissues, row: ManifestRow, read_frame: Callable[[ManifestRow], Frame]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the row's lesion into a healthy scan, from `numpy.random.default_rng` of the row's seed.

    Args:
        frame: the healthy scan, raw intensities.
        tissues: its tissue probabilities.
        row: with an inserted lesion; its mask or foreign scan is read from disk.
        read_frame: brings the scan of a row to the frame.

    Returns:
        The float32 image with the lesion, and its bool mask.

    Raises:
        InputError: a file cannot be used, or there is no room for the lesion.
    """
    kind, seed = row.inserted_lesion or ("", 0)
    rng = np.random.default_rng(seed)
    if kind in SHAPED:
        mask = load_volume(row.donors[0])
        donor = nib.Nifti1Image((mask.data > 0).astype(np.uint8), mask.affine)
        try:
            return insert_shaped_lesion(frame.image, frame.brain_mask, tissues, row.contrast, kind, donor, rng)
        except ValueError as error:
            raise InputError(f"{row.donors[0]}: {error}; take another mask") from None
    if kind == "foreign-patch":
        image, brain = row.donors
        other = read_frame(ManifestRow("", image, brain, "", "", "", row.contrast))
        return insert_foreign_patch(frame.image, frame.brain_mask, other.image, other.brain_mask, rng)
    if kind == "mass-effect":
        return insert_mass_effect(frame.image, frame.brain_mask, tissues, rng)
    return insert_lesion(frame.image, frame.brain_mask, tissues, row.contrast, kind, rng)
