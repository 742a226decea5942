"""NIfTI files: reading with checks, masks, and writing back into a scan's own space."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file

_LARGEST_SHEAR = 0.05  # cosine between two axes of a grid; header rounding stays far below
_WHOLE_VOXELS = 1e-3  # largest distance in voxels between grids whose voxels count as the same
_GRID_TOLERANCE_MM = 0.1  # largest distance between two grids that count as the same one


@dataclass(frozen=True)
class LoadedVolume:
    """One 3-D image file as it lies on disk.

    Attributes:
        path: the file.
        image: the nibabel image (header and affine; use it as reference of `to_scan_space`).
        data: `(X, Y, Z)` float32 in the file's own axis order, intensity scale factors applied.
    """

    path: Path
    image: nib.Nifti1Image
    data: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """`(4, 4)`, from voxel indices to RAS millimetres."""
        return self.image.affine


def load_volume(path: str | Path) -> LoadedVolume:
    """Read a 3-D NIfTI image and check that it can be used.

    Args:
        path: `.nii` or `.nii.gz`. Trailing axes of length 1 are dropped.

    Returns:
        The volume; its data are finite and not constant.

    Raises:
        InputError: the file is missing, no NIfTI, truncated, not 3-D, or has no usable affine; its values are
            complex, NaN, infinite or constant.
    """
    volume = read_volume(path)
    bad = int(np.count_nonzero(~np.isfinite(volume.data)))
    if bad:
        raise InputError(
            f"{path}: {bad} NaN or infinite value(s); replace them (numpy.nan_to_num) or export the scan again"
        )
    if volume.data.min() == volume.data.max():
        raise InputError(
            f"{path}: constant image (every voxel is {volume.data.flat[0]:g}); check that the right file was exported"
        )
    return volume


def load_brain_mask(path: str | Path, scan: LoadedVolume) -> np.ndarray:
    """Read a brain mask or anatomical label map on the scan's grid.

    Args:
        path: NIfTI file; every voxel above 0 is brain, so label maps such as DLMUSE or aseg will do.
        scan: the scan that it belongs to.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: unreadable (see `load_volume`), on another grid than the scan, empty, or the whole image.
    """
    mask = _load_labels(Path(path), scan) > 0
    if not mask.any():
        raise InputError(f"{path}: empty brain mask (no voxel above 0); give the mask of {scan.path}")
    if mask.all():
        raise InputError(f"{path}: every voxel is above 0, so this is no brain mask; mark the background with 0")
    return mask


def load_lesion_mask(path: str | Path, scan: LoadedVolume) -> np.ndarray:
    """Read a binary lesion mask on the scan's grid.

    Args:
        path: NIfTI file with 0 (healthy) and one other whole number (lesion), such as 1 or 255.
        scan: the scan that it belongs to.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: unreadable (see `load_volume`), on another grid than the scan, empty, or with values other
            than 0 and one lesion label (probabilities, several labels, negative labels).
    """
    labels = _load_labels(Path(path), scan)
    values = np.unique(labels)
    if values.size == 1 and values[0] == 0:
        raise InputError(f"{path}: empty lesion mask; leave lesion_mask empty in the manifest for a healthy scan")
    wrong = values.size != 2 or values[0] != 0 or values[1] != np.round(values[1])
    if wrong:
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if values.size > 5 else "")
        raise InputError(
            f"{path}: lesion labels {shown} are not binary; write 1 in lesions and 0 elsewhere "
            "(threshold probabilities, merge labels)"
        )
    return labels > 0


def to_scan_space(volume: np.ndarray, frame_affine: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """Bring a volume of the prepared frame back to the grid of the scan it came from.

    Args:
        volume: `(D, H, W)`; bool is a mask (nearest neighbour, written as uint8), all else a map (linear,
            float32).
        frame_affine: `(4, 4)`, from (x, y, z) voxel indices of the frame to RAS mm (`Scan.affine`).
        reference: the scan (`LoadedVolume.image`).

    Returns:
        Image with shape, orientation, affine and sform/qform of the reference; zero outside the frame.

    Example:
        >>> image = to_scan_space(anomaly_map, scan.affine, load_volume("t1.nii.gz").image)  # doctest: +SKIP
    """
    is_mask = volume.dtype == bool
    source = np.ascontiguousarray(volume.T, dtype=np.uint8 if is_mask else np.float32)
    to_frame_index = np.linalg.inv(frame_affine) @ reference.affine
    whole = np.round(to_frame_index)
    if (np.abs(to_frame_index - whole) @ (*reference.shape[:3], 1)).max() < _WHOLE_VOXELS:
        to_frame_index = whole  # voxels on voxels: copied, not interpolated
    data = ndimage.affine_transform(
        source,
        to_frame_index,
        output_shape=reference.shape[:3],
        order=0 if is_mask else 1,
        mode="grid-constant",
        cval=0,
    )
    header = reference.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the reference's display range does not fit a map
    return nib.Nifti1Image(data, reference.affine, header)


def save_nifti(image: nib.Nifti1Image, path: str | Path) -> None:
    """Write a NIfTI file in one step: an existing file is replaced whole or not at all.

    Args:
        image: what to write.
        path: name ending in `.nii` or `.nii.gz`; its folder is made when missing.

    Raises:
        InputError: the name has another ending, or the file cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".nii.gz", ".nii")):
        raise InputError(f"{path}: results are written as NIfTI; end the name in .nii or .nii.gz")
    with whole_file(path) as partial:
        nib.save(image, partial)


def read_volume(path: str | Path, channel: int | None = None) -> LoadedVolume:
    """Read a file and check its form, not its values.

    Args:
        path: `.nii` or `.nii.gz`.
        channel: which volume of a 4-D file; None for a 3-D file.

    Raises:
        InputError: as `load_volume`, but for what is in the voxels; or there is no such channel.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        image = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, ImportError) as error:
        raise InputError(
            f"{path}: not a readable NIfTI file ({_first_line(error)}); convert the scan to .nii.gz, "
            "for example with dcm2niix"
        ) from None
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path}: a {type(image).__name__}, not a NIfTI file; convert it to .nii.gz")
    shape = image.shape
    if channel is not None:
        if len(shape) != 4 or channel >= shape[3]:
            raise InputError(f"{path}: image of shape {shape} without channel {channel}; check that it is the 4-D file")
        shape = shape[:3]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise InputError(
            f"{path}: {len(image.shape)}-D image of shape {tuple(image.shape)}; pass one 3-D volume "
            "with at least 2 voxels along each axis"
        )
    _check_affine(path, image)
    try:
        values = np.asanyarray(image.dataobj if channel is None else image.dataobj[..., channel])
    except (OSError, EOFError, zlib.error, ValueError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: truncated or damaged ({_first_line(error)}); copy or download it again") from None
    if values.dtype.kind not in "buif":
        raise InputError(f"{path}: values of type {values.dtype}, not real numbers; export a magnitude image")
    with np.errstate(over="ignore"):  # what single precision cannot hold becomes infinite, and is refused as such
        return LoadedVolume(path, image, values.reshape(shape).astype(np.float32))


def _check_affine(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse an affine that does not map voxels to millimetres; warn where the header holds none."""
    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(f"{path}: singular affine (voxels of no volume); repair the header's sform or qform")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > _LARGEST_SHEAR:
        raise InputError(
            f"{path}: sheared axes ({np.degrees(np.arccos(shear)):.0f} degrees between two of them, not 90); resample "
            "the scan to a rectangular grid"
        )
    if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
        axes = "".join(nib.aff2axcodes(affine))
        warnings.warn(f"{path}: the header does not say how the scan is oriented; taken as {axes}", stacklevel=4)


def _load_labels(path: Path, scan: LoadedVolume) -> np.ndarray:
    """Read a mask file and check that it lies on the scan's grid."""
    labels = read_volume(path)
    if not np.isfinite(labels.data).all():
        raise InputError(f"{path}: NaN or infinite value(s) in a mask; write 0 for background")
    if labels.data.shape != scan.data.shape:
        raise InputError(
            f"{path}: mask of shape {labels.data.shape} for the scan {scan.path} of shape "
            f"{scan.data.shape}; resample the mask to the scan's grid (nearest neighbour)"
        )
    distance = _grid_distance(labels.affine, scan.affine, scan.data.shape)
    if distance > _GRID_TOLERANCE_MM:
        raise InputError(
            f"{path}: its affine puts the mask up to {distance:.1f} mm away from the scan {scan.path}; "
            "resample the mask to the scan's grid (nearest neighbour)"
        )
    return labels.data


def _grid_distance(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the same corner of two grids."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1)
    offset = (first - second)[:3, :3] @ corners + (first - second)[:3, 3:]
    return float(np.linalg.norm(offset, axis=0).max())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
