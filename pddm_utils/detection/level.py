"""One level of the brain in a whole scan, for models that know no other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from pddm_utils.core.errors import InputError
from pddm_utils.data.frame import to_frame
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import brain_of_row
from pddm_utils.data.preprocess.images import array_of, empty_grid, resampled, to_sitk
from pddm_utils.data.preprocess.registration import load_template, ras_matrix, register
from pddm_utils.data.scan import VOXEL_SIZE_MM, Scan, scale_to_unit_range
from pddm_utils.data.volume import LoadedVolume
from pddm_utils.evaluation.metrics import dice

REACH_MM = 4.0  # to either side of the level
_LEAST_DICE = 0.90  # of the registered brain with the template's
_SIZES = (0.7, 1.25)  # of a brain, relative to the template, along any direction
_LARGEST_TILT = 45.0  # degrees
_TEMPLATE_MM = 2.0
_GRID = (157, 189)  # x and y voxels of 1 mm around the template's brain, those of the training slices
_CORNER = (78.0, 112.0)  # mm to the left and to the back of the origin


@dataclass(frozen=True)
class Level:
    """Where a model's level lies in a scan.

    Attributes:
        z_mm: the level in MNI space.
        overlap: Dice of the registered brain and the template's.
        brain_ml: volume of the whole brain, in the scan's space.
    """

    z_mm: float
    overlap: float
    brain_ml: float

    def sentence(self, scan: Scan) -> str:
        """What a reader must know first."""
        share = 100 * float(scan.brain_mask.sum()) * voxel_ml(scan) / self.brain_ml
        return (
            f"This model knows one level of the brain. Only slices within {REACH_MM:g} mm of MNI z = {self.z_mm:g} mm "
            f"were assessed, {share:.0f} % of this brain; nothing is said about the rest."
        )


def voxel_ml(scan: Scan) -> float:
    """Volume of a prepared voxel in the scan's own space."""
    return abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000


def scan_at_level(row: ManifestRow, z_mm: float) -> tuple[Scan, Level]:
    """Register a scan to MNI152 and prepare its slices around a level.

    Four slices of 2 mm lie within 4 mm of the level. Each is scaled by its own brain, as the single slices that the
    model was trained on. The affine of the result leads to the scan's own space: registration is part of it.

    Args:
        row: the scan.
        z_mm: level in MNI space.

    Raises:
        InputError: as `prepare_scan`; one slice; or the registration is doubtful: brain and template overlap too
            little, or the brain would be tilted, large or small as no brain is.
    """
    loaded, inside = brain_of_row(row)
    if 1 in loaded.data.shape:
        raise InputError(f"{loaded.path}: one slice cannot be registered, and its level is unknown; give the volume")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums in one order, whatever the number of cores
    template, template_brain = load_template("", _TEMPLATE_MM)
    image, brain = to_sitk(loaded.data * inside, loaded.affine), to_sitk(inside, loaded.affine)
    transform, _ = register(template, image, template_brain, brain)
    to_scan = ras_matrix(transform)
    overlap = dice(array_of(resampled(brain, template_brain, transform)) > 0, array_of(template_brain) > 0)
    _check(loaded, to_scan, overlap)
    count = round(2 * REACH_MM / VOXEL_SIZE_MM)
    lowest = z_mm - REACH_MM + VOXEL_SIZE_MM / 2
    # Voxels from the patient's left to the right, from back to front, upwards: LPS mm, so x and y run backwards.
    grid = empty_grid((*_GRID, count), (1, 1, VOXEL_SIZE_MM), (*_CORNER, lowest), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    cut, cut_brain = (array_of(resampled(one, grid, transform)) for one in (image, brain))
    slab = LoadedVolume(loaded.path, nib.Nifti1Image(cut.T, _affine(lowest)), np.ascontiguousarray(cut.T))
    if not (cut_brain.any(axis=(1, 2))).all():
        raise InputError(f"{loaded.path}: the scan does not reach MNI z = {z_mm:g} mm, the level of this model")
    frame = to_frame(slab, np.ascontiguousarray(cut_brain.T > 0))
    try:
        slices = [
            scale_to_unit_range(one[None], mask[None], row.scaling)
            for one, mask in zip(frame.image, frame.brain_mask, strict=True)
        ]
    except ValueError as error:
        raise InputError(f"{loaded.path}: {error} at MNI z = {z_mm:g} mm; check the brain mask") from None
    scan = Scan(
        row.subject,
        row.dataset,
        row.contrast,
        np.concatenate(slices),
        frame.brain_mask,
        frame.lesion_mask,
        to_scan @ frame.affine,
    )
    millilitres = float(inside.sum()) * abs(float(np.linalg.det(loaded.affine[:3, :3]))) / 1000
    return scan, Level(z_mm, overlap, millilitres)


def slices_of(scan: Scan) -> list[Scan]:
    """Each slice as a scan of one slice."""
    return [
        replace(
            scan,
            image=scan.image[index : index + 1],
            brain_mask=scan.brain_mask[index : index + 1],
            lesion_mask=scan.lesion_mask[index : index + 1],
        )
        for index in range(len(scan.image))
    ]


def _affine(lowest: float) -> np.ndarray:
    affine = np.diag([1.0, 1.0, VOXEL_SIZE_MM, 1.0])
    affine[:3, 3] = (-_CORNER[0], -_CORNER[1], lowest)
    return affine


def _check(loaded: LoadedVolume, to_scan: np.ndarray, overlap: float) -> None:
    """Refuse a registration that is doubtful."""
    left, sizes, right = np.linalg.svd(to_scan[:3, :3])
    turn = left @ right
    tilt = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    doubts = []
    if overlap < _LEAST_DICE:
        doubts.append(f"brain and template overlap by {overlap:.2f}, less than {_LEAST_DICE:.2f}")
    if sizes.min() < _SIZES[0] or sizes.max() > _SIZES[1]:
        doubts.append(f"the brain would be {sizes.min():.2f} to {sizes.max():.2f} times as large as the template")
    if np.linalg.det(turn) < 0 or tilt > _LARGEST_TILT:
        doubts.append(f"the head would be tilted by {tilt:.0f} degrees")
    if doubts:
        raise InputError(
            f"{loaded.path}: cannot be registered to MNI152 with confidence ({'; '.join(doubts)}), so the level that "
            "this model knows is not found; check brain mask, orientation and field of view"
        )
