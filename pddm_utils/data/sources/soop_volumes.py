"""SOOP as whole FLAIR volumes: lesion-free parts to train on, and volumes with their 3-D lesion masks to test on.

The volumes are the user's: the public archive holds one slice and the 3-D mask of every patient only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.data.brain import stripped_brain
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.sources.common import finish
from pddm_utils.data.sources.derived import derived_file
from pddm_utils.data.sources.soop_table import LESION_FREE, UNUSABLE, check_flair, row_of, split_table
from pddm_utils.data.volume import LoadedVolume, load_volume, read_volume

WHOLE, LESION_FREE_PART = "soop-flair-volume", "soop-flair-volume-free"
_MARGIN_MM = 4.0  # between a lesion and what counts as free of it
_THINNEST_MM = 20.0  # a part thinner than this is left out


def soop_volumes_rows(folder: str | Path, contrast: str, derived: str | Path) -> list[ManifestRow]:
    """List the volumes of the patients whom the table of splits names, in its splits.

    A patient with lesion in the slice of the table gives the whole volume with its mask (`soop-flair-volume`, val and
    test). One without gives the thickest block of slices at least 4 mm from any lesion (`soop-flair-volume-free`):
    also these patients have a stroke, elsewhere. Patients whose volume is not in the folder are left out; so are those
    without such a block.

    Args:
        folder: `wsub-<id>_FLAIR.nii.gz`, skull-stripped in MNI space, and `bwsrsub-<id>_lesion.nii.gz`, in it or in
            folders below it.
        contrast: `FLAIR`.
        derived: where blocks, brain masks and masks on the scan's grid go.

    Raises:
        InputError: another contrast, no volume, a volume without its mask, or an unusable file.
    """
    check_flair(contrast)
    folder, derived = Path(folder).resolve(), Path(derived).resolve()
    scans, masks = _by_subject(folder, "wsub-*_FLAIR.nii*", 1), _by_subject(folder, "bwsrsub-*_lesion.nii*", 4)
    records = [record for record in split_table() if record["subject"] in scans and record["dataset"] != UNUSABLE]
    without = [record["subject"] for record in records if record["subject"] not in masks]
    if without:
        raise InputError(
            f"{folder}: no bwsr{without[0]}_lesion.nii.gz for its volume; put the masks of the archive there"
        )
    rows = []
    for record in tqdm(records, desc="volumes"):
        name = record["subject"]
        scan, mask, target = scans[name], masks[name], derived / name
        if record["dataset"] != LESION_FREE:
            lesion = _derived(scan, mask, target, "lesion", partial(_mask_on_scan, scan, mask))
            rows.append(row_of(record, str(scan), lesion, dataset=WHOLE))
            continue
        image, brain = (
            _derived(scan, mask, target, what, partial(_part, scan, mask, what)) for what in ("FLAIR", "brain")
        )
        if image and brain:
            rows.append(row_of(record, image, "", brain, LESION_FREE_PART))
    return finish(rows, folder, "wsub-1_FLAIR.nii.gz and bwsrsub-1_lesion.nii.gz")


def _by_subject(folder: Path, pattern: str, prefix: int) -> dict[str, Path]:
    """Files by subject, such as `sub-1`; `prefix` letters stand before it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(pattern)):
        name = path.name[prefix:].split("_")[0]
        if name in found:
            raise InputError(f"{path}: {name} is there twice, the other time as {found[name]}; keep one")
        found[name] = path
    return found


def _derived(scan: Path, mask: Path, target: Path, what: str, make: Callable[[], nib.Nifti1Image | None]) -> str:
    """A file made from a scan and its mask, made again when one of them is new."""
    digest = hashlib.sha256(mask.read_bytes()).hexdigest()
    recipe = f"{what} {_MARGIN_MM} {_THINNEST_MM} {digest}"
    return derived_file(scan, target.with_name(f"{target.name}_{what}"), recipe, make)


def _mask_on_scan(scan: Path, mask: Path) -> nib.Nifti1Image:
    volume = load_volume(scan)
    lesion = _resampled(read_volume(mask), volume)
    if not lesion.any():
        raise InputError(f"{mask}: no lesion on the grid of {scan.name}; check that the two belong together")
    return nib.Nifti1Image(lesion.astype(np.uint8), volume.affine)


def _part(scan: Path, mask: Path, what: str) -> nib.Nifti1Image | None:
    """The scan, or its brain mask, in the thickest block of slices that are far enough from every lesion."""
    volume = load_volume(scan)
    brain, lesion = stripped_brain(volume), _resampled(read_volume(mask), volume)
    turn = nib.orientations.io_orientation(volume.affine)
    axis = int(np.flatnonzero(turn[:, 0] == 2)[0])  # the one that runs from inferior to superior
    thickness = float(np.linalg.norm(volume.affine[:3, axis]))
    others = tuple(other for other in range(3) if other != axis)
    near = ndimage.binary_dilation(lesion.any(axis=others), iterations=int(np.ceil(_MARGIN_MM / thickness)))
    block = _longest_run(brain.any(axis=others) & ~near)
    if (block.stop - block.start) * thickness < _THINNEST_MM:
        return None
    cut = tuple(block if other == axis else slice(None) for other in range(3))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * block.start
    values = (volume.data * brain) if what == "FLAIR" else brain.astype(np.uint8)
    return nib.Nifti1Image(values[cut], affine)


def _longest_run(kept: Iterable[bool]) -> slice:
    """The longest run of True; empty where there is none."""
    labels, _ = ndimage.label(np.asarray(kept))
    runs = [run for (run,) in ndimage.find_objects(labels)]
    return max(runs, key=lambda run: run.stop - run.start, default=slice(0, 0))


def _resampled(mask: LoadedVolume, scan: LoadedVolume) -> np.ndarray:
    """A mask on the scan's grid, nearest neighbour: masks and scans have another number of slices."""
    to_mask = np.linalg.inv(mask.affine) @ scan.affine
    values = (mask.data > 0).astype(np.uint8)
    return ndimage.affine_transform(values, to_mask, output_shape=scan.data.shape, order=0, mode="grid-constant") > 0
