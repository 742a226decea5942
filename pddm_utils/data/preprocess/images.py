"""Volumes as SimpleITK images and back, and the grids they are resampled to.

nibabel counts millimetres to the right, front and top (RAS), ITK to the left, back and top (LPS).
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import SimpleITK as sitk

_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_sitk(data: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An `(X, Y, Z)` array with its `(4, 4)` RAS affine as an image; bool becomes uint8."""
    lps = _TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.uint8 if data.dtype == bool else np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())  # with a slight shear: no voxel moves
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def affine_of(image: sitk.Image) -> np.ndarray:
    """`(4, 4)`, from voxel indices to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _TO_LPS @ affine


def to_nifti(image: sitk.Image) -> nib.Nifti1Image:
    """The image as NIfTI, `(X, Y, Z)`, in its own type."""
    data = np.ascontiguousarray(sitk.GetArrayViewFromImage(image).T)
    return nib.Nifti1Image(data, affine_of(image))


def masked(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The image with 0 where the mask is 0; both on one grid."""
    return sitk.Mask(image, mask)


def empty_grid(
    size: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
) -> sitk.Image:
    """An image of zeros to resample onto (LPS mm)."""
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetSpacing([float(s) for s in spacing])
    grid.SetOrigin([float(o) for o in origin])
    grid.SetDirection([float(d) for d in direction])
    return grid


def resampled(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """The image on another grid: labels (uint8) by nearest neighbour, all else linearly; 0 outside.

    Args:
        image: to be resampled.
        grid: gives size, spacing, origin and direction.
        transform: from points of the grid to points of the image; identity when left out.
    """
    way = sitk.sitkNearestNeighbor if image.GetPixelID() == sitk.sitkUInt8 else sitk.sitkLinear
    return sitk.Resample(image, grid, transform or sitk.Transform(3, sitk.sitkIdentity), way, 0.0, image.GetPixelID())


def spaced(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """A grid over the same space with cubic voxels."""
    size = np.maximum(1, np.round(np.array(image.GetSize()) * image.GetSpacing() / spacing_mm)).astype(int)
    first = (np.array(image.GetSize()) - size * spacing_mm / np.array(image.GetSpacing())) / 2
    start = first + (spacing_mm / np.array(image.GetSpacing()) - 1) / 2  # of the first new voxel, in old voxels
    origin = image.TransformContinuousIndexToPhysicalPoint(start.tolist())
    return empty_grid(size, [spacing_mm] * 3, origin, image.GetDirection())


def framed(image: sitk.Image, voxels: Sequence[int], voxel_mm: float) -> sitk.Image:
    """A grid of fixed size around the middle of an image.

    Its voxels take in whole voxels of the image where the sizes allow: 2 mm out of 1 mm is the mean of eight.
    """
    step = voxel_mm / np.array(image.GetSpacing())
    first = np.floor((np.array(image.GetSize()) - np.round(np.array(voxels) * step)) / 2) + (step - 1) / 2
    origin = image.TransformContinuousIndexToPhysicalPoint(first.tolist())
    return empty_grid(voxels, [voxel_mm] * 3, origin, image.GetDirection())


def array_of(image: sitk.Image) -> np.ndarray:
    """`(Z, Y, X)` copy of the voxels."""
    return sitk.GetArrayFromImage(image)
