"""The one place where a NIfTI header is checked, before a voxel is read: its geometry is sound, or it is refused.

What can be understood in two ways is taken in one and said (`ScanWarning`). Nothing but geometry goes on from here:
no texts, extensions or names of patients.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.scan_file import read_start

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by their size in bytes, which is their first number
_MAGIC = {348: (b"n+1", b"ni1"), 540: (b"n+2", b"ni2")}
_EXTENDER_END = 544  # bytes: NIfTI-2's header and the four that announce extensions
_LENGTHS = ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")
_GEOMETRY = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", *_LENGTHS)
_UNITS = {0: (1.0, "mm"), 1: (1000.0, "metres"), 2: (1.0, "mm"), 3: (0.001, "micrometres")}  # code: mm, name
_VOXEL_MM = (0.05, 30.0)  # smallest and largest side of a voxel in a scan of a head
_FARTHEST_MM = 1e5  # of the first voxel from the origin of a scanner or an atlas
_LARGEST_SHEAR = 0.05  # cosine between two axes of a grid; header rounding stays far below
_LARGEST_CODE = 5  # of sform and qform
_QUATERNION_ROUNDING = 0.01  # a unit quaternion may be this much too long
_FORMS_APART_MM = 1.0  # sform and qform of one space that lie farther apart contradict each other
_SMALLEST_SHARE = 1e-3  # volume of a voxel, of that of a box with its sides
_SIZES_APART = 0.05  # relative difference of voxel sizes that is no rounding


@dataclass(frozen=True)
class Header:
    """What a checked header says.

    Attributes:
        shape: of the whole file; every axis has at least one voxel.
        affine: `(4, 4)`, from voxel indices to RAS millimetres.
        geometry: a NIfTI-1 header with the scan's place and nothing else.
        voxels: the file's own header, for reading the voxels: type, place in the file, scale factors.
        in_own_file: the voxels lie in an `.img` beside the header's `.hdr`.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    geometry: nib.Nifti1Header
    voxels: nib.Nifti1Header
    in_own_file: bool


def read_header(path: Path, stream: BinaryIO) -> Header:
    """Read and check the header at the start of a NIfTI file.

    Args:
        path: for messages.
        stream: the file's bytes, unpacked; for a pair those of its `.hdr`.

    Raises:
        InputError: no NIfTI header; or its axes, its type of voxels and their place in the file, its voxel sizes or its
            orientation are not sound.
    """
    block = read_start(path, stream, _EXTENDER_END)
    header = _parse(path, block)
    in_own_file = bytes(header["magic"].item()).startswith(b"ni")
    shape = _shape(path, header)
    _check_voxels(path, header)
    if not in_own_file:
        _mend_offset(path, header, block)
    unit = _to_millimetres(path, header)
    form = _form(path, header)
    _mend_qform(path, header, form)
    affine = {"sform": header.get_sform, "qform": header.get_qform, "voxel sizes": header.get_base_affine}[form]()
    _check_affine(path, affine, unit)
    if unit != "mm":
        _say(f"{path}: its header counts in {unit}; results are written in mm, so lay them over a scan in mm")
    _say_what_is_ambiguous(path, header, form, affine, shape)
    return Header(shape, affine, geometry_only(header), header, in_own_file)


def geometry_only(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """A NIfTI-1 header with voxel sizes, sform and qform of another one, in mm; all else is as new."""
    bare = nib.Nifti1Header()
    for name in _GEOMETRY:
        bare[name] = header[name]
    bare["pixdim"][4:] = 1  # of time and further axes
    bare.set_xyzt_units("mm")
    return bare


def _parse(path: Path, block: bytes) -> nib.Nifti1Header:
    for mark in "<>":  # little and big end first
        size = int.from_bytes(block[:4], "little" if mark == "<" else "big")
        if size in _HEADERS and len(block) >= size:
            header = _HEADERS[size](block[:size], endianness=mark, check=False)
            if bytes(header["magic"].item()) in _MAGIC[size]:
                return header
            raise InputError(
                f"{path}: an Analyze image, which cannot tell left from right, not a NIfTI file; convert it"
            )
    raise InputError(
        f"{path}: not a readable NIfTI file (no NIfTI header at its start); convert the scan to .nii.gz, for example "
        "with dcm2niix"
    )


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    count = int(header["dim"][0])
    shape = tuple(int(size) for size in header["dim"][1 : count + 1]) if 1 <= count <= 7 else ()
    if not shape or min(shape) < 1:
        raise InputError(f"{path}: its header speaks of {count} axes of {shape} voxels; export the scan again")
    return shape


def _check_voxels(path: Path, header: nib.Nifti1Header) -> None:
    """Refuse voxels that are no real numbers, or scale factors that are none."""
    try:
        dtype = header.get_data_dtype()
        header.get_slope_inter()
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"{path}: damaged header ({error}); copy or download it again") from None
    if dtype.kind not in "buif":
        raise InputError(f"{path}: values of type {dtype}, not real numbers; export a magnitude image")


def _mend_offset(path: Path, header: nib.Nifti1Header, block: bytes) -> None:
    """Say where the voxels begin: right after the header where the field is empty, as in the format's own library."""
    offset, first = float(header["vox_offset"]), header.single_vox_offset
    has_extension = block[first - 4 : first - 3] not in (b"", b"\0")
    if offset == 0 and not has_extension:
        header["vox_offset"] = first
    elif not offset >= first or not offset.is_integer():  # infinity is none
        raise InputError(
            f"{path}: its header has the voxels begin at byte {offset:g} (vox_offset), where they cannot; save the "
            "scan again with another program"
        )


def _to_millimetres(path: Path, header: nib.Nifti1Header) -> str:
    """Bring lengths that count in metres or micrometres to mm; the unit's name."""
    code = int(header["xyzt_units"]) % 8
    factor, unit = _UNITS.get(code, (1.0, "mm"))
    if code not in _UNITS:
        _say(f"{path}: its header names a unit of length that does not exist ({code}); taken as mm")
    if factor != 1:
        header["pixdim"][1:4] *= factor
        for name in _LENGTHS:
            header[name] = header[name] * factor
    return unit


def _form(path: Path, header: nib.Nifti1Header) -> str:
    """Which of the three ways to place a scan holds: the first that is there."""
    for name in ("sform", "qform"):
        code = int(header[f"{name}_code"])
        if not 0 <= code <= _LARGEST_CODE:
            raise InputError(f"{path}: {name}_code is {code}, which NIfTI does not know; repair the header")
    if header["sform_code"] > 0:
        return "sform"
    sizes = header["pixdim"][1:4]
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise InputError(f"{path}: voxel sizes {_times(sizes)} in the header; write the true ones (pixdim) into it")
    return "qform" if header["qform_code"] > 0 else "voxel sizes"


def _mend_qform(path: Path, header: nib.Nifti1Header, form: str) -> None:
    """Make a rounded quaternion a rotation again; drop an unsound qform that is not used."""
    if header["qform_code"] == 0:
        return
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = float(np.sqrt(sum(float(header[name]) ** 2 for name in names)))
    if length <= 1 + _QUATERNION_ROUNDING and np.isfinite(header["pixdim"][0]) and (header["pixdim"][1:4] > 0).all():
        header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
        for name in names if length > 1 else ():
            header[name] = header[name] / length
    elif form == "qform":
        raise InputError(
            f"{path}: its qform is no rotation (a quaternion of length {length:.3g}, and {header['pixdim'][0]:g} for "
            "the handedness); repair the header, or export the scan again"
        )
    else:
        header["qform_code"] = 0


def _check_affine(path: Path, affine: np.ndarray, unit: str) -> None:
    """Refuse an affine that does not map the voxels of a head to millimetres."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > _SMALLEST_SHARE * np.prod(sizes):
        raise InputError(f"{path}: singular affine (voxels of no volume); repair the header's sform or qform")
    if sizes.min() < _VOXEL_MM[0] or sizes.max() > _VOXEL_MM[1]:
        raise InputError(
            f"{path}: voxels of {_times(sizes)} mm, which no scan of a head has (the header counts in {unit}); write "
            "the true sizes and unit into the header"
        )
    if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        raise InputError(
            f"{path}: lies {np.abs(affine[:3, 3]).max():.3g} mm from the origin; repair the header's offsets"
        )
    axes = affine[:3, :3] / sizes
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > _LARGEST_SHEAR:
        raise InputError(
            f"{path}: sheared axes ({np.degrees(np.arccos(shear)):.0f} degrees between two of them, not 90); resample "
            "the scan to a rectangular grid"
        )


def _say_what_is_ambiguous(
    path: Path, header: nib.Nifti1Header, form: str, affine: np.ndarray, shape: tuple[int, ...]
) -> None:
    """Warn where programs place this scan in different ways; what is not used goes from the header."""
    codes = "".join(nib.aff2axcodes(affine))
    if form == "voxel sizes":
        _say(f"{path}: the header does not say how the scan is oriented; taken as {codes}")
    elif np.array_equal(np.abs(affine), np.eye(4)):
        _say(
            f"{path}: its affine is the identity, as arrays are saved without their geometry; voxels taken as 1 mm, "
            f"orientation as {codes}"
        )
    if form != "sform":
        return
    if header["qform_code"] > 0:
        apart = _contradiction(header, affine, shape)
        if apart:
            _say(
                f"{path}: its sform and its qform contradict each other ({apart}); the sform is used, so sides and "
                "places are wrong if the qform is the right one"
            )
            header["qform_code"] = 0
    sizes, stored = np.linalg.norm(affine[:3, :3], axis=0), header["pixdim"][1:4]
    if header["qform_code"] == 0:
        if not np.allclose(stored, sizes, rtol=_SIZES_APART):
            _say(f"{path}: voxel sizes {_times(stored)} (pixdim) but {_times(sizes)} mm by its sform, which is used")
        header["pixdim"][1:4] = sizes


def _contradiction(header: nib.Nifti1Header, affine: np.ndarray, shape: tuple[int, ...]) -> str:
    """How sform and qform contradict each other; empty where they do not."""
    other = header.get_qform()
    if np.linalg.det(affine[:3, :3]) * np.linalg.det(other[:3, :3]) < 0:
        return "mirror images of each other"
    axes = ["".join(nib.aff2axcodes(one)) for one in (affine, other)]
    if axes[0] != axes[1]:
        return f"orientation {axes[0]} and {axes[1]}"
    distance = grid_distance(affine, other, shape[:3])
    same_space = header["sform_code"] == header["qform_code"]  # else one may lead to an atlas, the other to the scanner
    return f"up to {distance:.1f} mm apart" if same_space and distance > _FORMS_APART_MM else ""


def grid_distance(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the same corner of two grids, by their affines."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1)
    offset = (first - second)[:3, :3] @ corners + (first - second)[:3, 3:]
    return float(np.linalg.norm(offset, axis=0).max())


def _say(text: str) -> None:
    warnings.warn(text, ScanWarning, stacklevel=2)


def _times(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
