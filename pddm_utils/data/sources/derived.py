"""Files that are made from an archive's: lesion masks from label maps, one contrast out of a 4-D file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.volume import read_volume, save_nifti


def derived_file(source: Path, target: Path, recipe: str, make: Callable[[], nib.Nifti1Image | None]) -> str:
    """A file made from another one, made again when the other one's content is new.

    Args:
        source: what it is made from.
        target: where it is to lie; a hash of the source's bytes and of the recipe joins the name, so that manifests
            that were written before keep their files.
        recipe: what is done to the source.
        make: does it; None where nothing is to be written.

    Returns:
        The path of the file, `<target's name>-<hash>.nii.gz`; empty where nothing was written.

    Raises:
        InputError: the source cannot be read.
    """
    try:
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); check the path") from None
    key = hashlib.sha256(f"{digest} {recipe}".encode()).hexdigest()[:12]
    path = target.with_name(f"{target.name}-{key}.nii.gz")
    if not path.is_file():
        if (image := make()) is None:
            return ""
        save_nifti(image, path)
    return str(path)


def lesion_union(labels: Path, target: Path, allowed: Iterable[int]) -> str:
    """A mask file with 1 wherever a label map is above 0, made again when the label map is corrected.

    Args:
        labels: NIfTI label map.
        target: where the mask is to lie, as for `derived_file`.
        allowed: labels that mean lesion; 0 is background.

    Returns:
        The path of the mask; empty when the label map holds no lesion.

    Raises:
        InputError: unreadable, or other labels than those allowed.
    """
    allowed = tuple(allowed)
    return derived_file(labels, target, f"union of {allowed}", lambda: _union(labels, allowed))


def _union(labels: Path, allowed: tuple[int, ...]) -> nib.Nifti1Image | None:
    volume = read_volume(labels)
    found = set(np.unique(volume.data).tolist()) - {0.0}
    if not found <= set(map(float, allowed)):
        shown = ", ".join(f"{value:g}" for value in sorted(found))
        raise InputError(f"{labels}: labels {shown}; expected {', '.join(map(str, allowed))} for lesions and 0")
    return nib.Nifti1Image((volume.data > 0).astype(np.uint8), volume.affine) if found else None
