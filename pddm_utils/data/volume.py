"""NIfTI files: reading with checks, and writing back into a scan's own space."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from scipy import ndimage

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.core.files import whole_file
from pddm_utils.data.header import Header, geometry_only, read_header
from pddm_utils.data.scan_file import UNREADABLE, damaged, largest_content, open_scan_file

_WHOLE_VOXELS = 1e-3  # largest distance in voxels between grids whose voxels count as the same
_REST = 1 << 20  # bytes after the voxels that are looked for


@dataclass(frozen=True)
class LoadedVolume:
    """One 3-D image file as it lies on disk.

    Attributes:
        path: the file.
        image: data, affine and a header with the scan's place and nothing else (reference of `to_scan_space`).
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


def to_scan_space(volume: np.ndarray, frame_affine: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """Bring a volume of the prepared frame back to the grid of the scan it came from.

    Args:
        volume: `(D, H, W)`; bool is a mask (nearest neighbour, written as uint8), all else a map (linear,
            float32).
        frame_affine: `(4, 4)`, from (x, y, z) voxel indices of the frame to RAS mm (`Scan.affine`).
        reference: the scan (`LoadedVolume.image`).

    Returns:
        Image with shape, orientation, affine and sform/qform of the reference, and nothing else of its header;
        zero outside the frame.

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
    header = geometry_only(reference.header)
    header.set_data_dtype(data.dtype)
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


# What no number can hold becomes infinite, and is refused as such.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def read_volume(path: str | Path, channel: int | None = None) -> LoadedVolume:
    """Read a file and check its form, not its values.

    Args:
        path: `.nii`, `.nii.gz`, or a pair `.hdr` and `.img`; `~` is the home folder.
        channel: which volume of a 4-D file; None for a 3-D file.

    Raises:
        InputError: as `load_volume`, but for what is in the voxels; or there is no such channel.
    """
    path = Path(path).expanduser()
    with open_scan_file(_beside(path, ".hdr")) as stream:
        header = read_header(path, stream)
        shape = _three_axes(path, header.shape, channel)
        if not header.in_own_file:
            values = _read_voxels(path, stream, header, channel)
    if header.in_own_file:
        if _beside(path, ".img") == _beside(path, ".hdr"):
            raise InputError(f"{path}: a header whose voxels lie in an .img file; name both files alike, .hdr and .img")
        with open_scan_file(_beside(path, ".img")) as stream:
            values = _read_voxels(path, stream, header, channel)
    data = values.reshape(shape).astype(np.float32)
    return LoadedVolume(path, nib.Nifti1Image(data, header.affine, header.geometry), data)


def _three_axes(path: Path, shape: tuple[int, ...], channel: int | None) -> tuple[int, ...]:
    """The shape of the one volume to read, without trailing axes of length 1."""
    whole = shape
    if channel is not None:
        if len(shape) != 4 or channel >= shape[3]:
            raise InputError(f"{path}: image of shape {shape} without channel {channel}; check that it is the 4-D file")
        shape = shape[:3]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or sorted(shape)[1] < 2:
        raise InputError(f"{path}: {len(whole)}-D image of shape {whole}; pass one 3-D volume or one slice of a volume")
    return shape


def _read_voxels(path: Path, stream: BinaryIO, header: Header, channel: int | None) -> np.ndarray:
    """The voxels with their scale factors applied; the file is read to its end, so that its checksum is checked."""
    try:
        voxels = ArrayProxy(stream, header.voxels, mmap=False)
        end = voxels.offset + math.prod(header.shape) * voxels.dtype.itemsize
        if end > largest_content(stream):  # before memory is asked for
            raise EOFError(f"its header speaks of {end} bytes")
        values = np.asanyarray(voxels if channel is None else voxels[..., channel])
        stream.seek(end)
        rest = len(stream.read(_REST))
    except (*UNREADABLE, ValueError, MemoryError, OverflowError) as error:
        raise damaged(path, error) from None
    if rest:
        warnings.warn(
            f"{path}: holds more than its header speaks of; voxels are taken from byte {voxels.offset} on, and are out "
            "of place if they begin later",
            ScanWarning,
            stacklevel=2,
        )
    return values


def _beside(path: Path, ending: str) -> Path:
    """The other file of a pair: `scan.img` of `scan.hdr` and back; any other name stays."""
    return path.with_name(re.sub(r"\.(hdr|img)(?=(\.gz)?$)", ending, path.name))
