"""Where the brain of a raw scan is: a given mask, the scan's own background, or an extraction from a T1 scan."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from pddm_utils.core.errors import InputError
from pddm_utils.data.brain import extract_brain, stripped_brain
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.mask_files import load_brain_mask
from pddm_utils.data.preprocess.images import resampled, to_sitk
from pddm_utils.data.preprocess.registration import register
from pddm_utils.data.volume import LoadedVolume, load_volume


def extractor() -> str:
    """What extracts brains from T1 scans: deepbet and its version where it is installed, else `threshold`."""
    try:
        return f"deepbet {version('deepbet')}"
    except PackageNotFoundError:
        return "threshold"


def brain_of(row: ManifestRow, scan: LoadedVolume, t1: str = "") -> tuple[np.ndarray, str]:
    """The brain of one scan, and where it was found.

    Args:
        row: its `brain_mask` is a file, empty for a skull-stripped scan, or `extract`.
        scan: the row's image.
        t1: T1 scan of the same session, for `extract` with another contrast.

    Returns:
        `(X, Y, Z)` bool on the scan's grid, and `given`, `background`, or the name of the extractor.

    Raises:
        InputError: the mask cannot be used; the scan has a skull; or there is no T1 scan to extract the brain from.
    """
    if row.brain_mask != EXTRACT_BRAIN:
        if row.brain_mask:
            return load_brain_mask(row.brain_mask, scan), "given"
        return stripped_brain(scan), "background"
    if row.contrast == "T1":
        return _extract(scan), extractor()
    if not t1:
        raise InputError(
            f"{row.image}: a brain is extracted from T1 scans only, this one is {row.contrast}; give a "
            "brain mask, or the session's T1 scan in a column t1 of the manifest"
        )
    anatomical = load_volume(t1)
    inside = _extract(anatomical)
    moving, mask = to_sitk(anatomical.data, anatomical.affine), to_sitk(inside, anatomical.affine)
    fixed = to_sitk(scan.data, scan.affine)
    head = to_sitk(scan.data > np.percentile(scan.data, 60), scan.affine)
    moving_head = to_sitk(anatomical.data > np.percentile(anatomical.data, 60), anatomical.affine)
    transform, _ = register(fixed, moving, head, moving_head, affine=False)
    carried = sitk.GetArrayViewFromImage(resampled(mask, fixed, transform)).T > 0
    if not carried.any():
        raise InputError(f"{t1}: does not lie over {row.image}; check that both are of one session, or give a mask")
    return carried, f"{extractor()} on the T1 scan"


def _extract(scan: LoadedVolume) -> np.ndarray:
    """Brain of a T1 scan with skull, `(X, Y, Z)` bool on its grid."""
    return extract_brain(scan) if extractor() == "threshold" else extract_with_deepbet(scan)


def extract_with_deepbet(scan: LoadedVolume) -> np.ndarray:
    """Brain of a T1 scan with skull, `(X, Y, Z)` bool on its grid, by the network of Fisch et al. (2024).

    Raises:
        InputError: deepbet is not installed, or finds no brain.
    """
    if extractor() == "threshold":
        raise InputError("deepbet is not installed; run: pip install 'pddm-utils[extraction]'")
    from deepbet import BrainExtraction

    _, mask, _ = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(scan.data, scan.affine))
    inside = np.asarray(mask.dataobj) > 0
    if inside.shape != scan.data.shape or not inside.any():
        raise InputError(f"{scan.path}: deepbet found no brain; give a brain mask")
    return inside
