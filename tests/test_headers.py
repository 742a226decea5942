"""Headers from the field: geometry is sound, or taken in one way and said, or refused; never silently moved."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.volume import load_volume, to_scan_space

GRID = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
DATA = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)

# Byte of each field in a NIfTI-1 header, and its type.
FIELDS = {
    "dim0": (40, "<h"),
    "dim3": (46, "<h"),
    "datatype": (70, "<h"),
    "handedness": (76, "<f"),
    "size_x": (80, "<f"),
    "size_z": (88, "<f"),
    "vox_offset": (108, "<f"),
    "slope": (112, "<f"),
    "inter": (116, "<f"),
    "units": (123, "<b"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "quatern_b": (256, "<f"),
    "quatern_c": (260, "<f"),
    "qoffset_x": (268, "<f"),
    "srow_x0": (280, "<f"),
    "srow_x3": (292, "<f"),
    "magic": (344, "<4s"),
    "extender": (348, "<b"),
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write `DATA` with sform and qform on `GRID`, then change fields of the header on disk."""

    def write(name: str = "scan_T2.nii", *, sform: bool = True, rest: bytes = b"", **fields: object) -> Path:
        image = nib.Nifti1Image(DATA, GRID)
        image.set_sform(GRID if sform else None, 1 if sform else 0)
        image.set_qform(GRID, 1)
        nib.save(image, path := tmp_path / name)
        content = bytearray(path.read_bytes()) + rest
        for field, value in fields.items():
            offset, kind = FIELDS[field]
            struct.pack_into(kind, content, offset, value)
        path.write_bytes(content)
        return path

    return write


def loaded(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Voxels, affine and what was said."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        volume = load_volume(path)
    assert all(issubclass(one.category, ScanWarning) for one in told)
    return volume.data, volume.affine, [str(one.message) for one in told]


SILENT = {  # taken as it is meant, without a word
    "as nibabel writes it": {},
    "qform alone": {"sform": False},
    "sform to an atlas": {"sform_code": 4},
    "no scale factors": {"slope": np.nan, "inter": np.nan},
    "no unit": {"units": 0},
    "vox_offset left empty": {"vox_offset": 0.0},
    "quaternion rounded to more than 1": {"sform": False, "quatern_c": 1.0004},
    "handedness as a sign alone": {"sform": False, "handedness": -2.0},
    "unused qform that is no rotation": {"quatern_b": 7.0},
    "named as compressed, but not": {"name": "scan_T2.nii.gz"},
}
SAID = {  # taken in one of two ways, which is said
    "mirrored qform": ({"handedness": 1.0, "quatern_c": 0.0}, "mirror images of each other"),
    "qform turned upside down": ({"handedness": 1.0}, "mirror images of each other"),
    "qform of another orientation": ({"quatern_b": 1.0, "quatern_c": 0.0}, "orientation LAS and RPS"),
    "qform elsewhere in the same space": ({"qoffset_x": 60.0}, "30.0 mm apart"),
    "voxel size 0, not used": ({"size_z": 0.0, "qform_code": 0}, "voxel sizes 2 x 2 x 0"),
    "another voxel size, not used": ({"size_z": 1.0, "qform_code": 0}, "voxel sizes 2 x 2 x 1"),
    "unknown unit": ({"units": 5}, "unit of length that does not exist"),
    "bytes after the voxels": ({"rest": bytes(16)}, "holds more than its header speaks of"),
}
REFUSED = {
    "vox_offset inside the header": ({"vox_offset": 348.0}, "begin at byte 348"),
    "vox_offset between two bytes": ({"vox_offset": 352.5}, "begin at byte 352.5"),
    "vox_offset that is no number": ({"vox_offset": np.nan}, "begin at byte nan"),
    "vox_offset that is infinite": ({"vox_offset": np.inf}, "begin at byte inf"),
    "vox_offset empty before an extension": ({"vox_offset": 0.0, "extender": 1}, "begin at byte 0"),
    "vox_offset beyond the voxels": ({"vox_offset": 368.0}, "truncated"),
    "voxel size 0": ({"sform": False, "size_z": 0.0}, "voxel sizes 2 x 2 x 0"),
    "negative voxel size": ({"sform": False, "size_x": -2.0}, "voxel sizes -2 x 2 x 2"),
    "voxel size infinite": ({"sform": False, "size_x": np.inf}, "voxel sizes inf x 2 x 2"),
    "voxel size 0 and no orientation": ({"sform": False, "qform_code": 0, "size_z": 0.0}, "voxel sizes 2 x 2 x 0"),
    "quaternion of length 1.2": ({"sform": False, "quatern_c": 1.2}, "no rotation (a quaternion of length 1.2"),
    "quaternion that is no number": ({"sform": False, "quatern_b": np.nan}, "no rotation"),
    "handedness that is no number": ({"sform": False, "handedness": np.nan}, "no rotation"),
    "place that is no number": ({"srow_x3": np.inf}, "singular affine"),
    "axes of an sform that coincide": ({"srow_x0": 0.0}, "singular affine"),
    "origin far beyond any scanner": ({"srow_x3": 1e9}, "lies 1e+09 mm from the origin"),
    "voxels as large as a head": ({"srow_x0": 200.0}, "voxels of 200 x 2 x 2 mm"),
    "micrometres that are millimetres": ({"units": 3}, "voxels of 0.002 x 0.002 x 0.002 mm"),
    "metres that are millimetres": ({"units": 1}, "header counts in metres"),
    "code that does not exist": ({"sform_code": 700}, "sform_code is 700"),
    "intercept that is no number": ({"slope": 2.0, "inter": np.nan}, "damaged header"),
    "type of voxel that does not exist": ({"datatype": 5000}, "damaged header"),
    "colours": ({"datatype": 128}, "not real numbers"),
    "no axes": ({"dim0": 0}, "0 axes"),
    "nine axes": ({"dim0": 9}, "9 axes"),
    "axis of no voxels": ({"dim3": 0}, "(7, 8, 0)"),
    "axis of -9 voxels": ({"dim3": -9}, "(7, 8, -9)"),
    "header of a pair in one file": ({"magic": b"ni1"}, "name both files alike"),
    "Analyze": ({"magic": b""}, "cannot tell left from right"),
}


@pytest.mark.parametrize("kind", SILENT)
def test_what_is_sound_is_taken_without_a_word(written, kind: str) -> None:
    data, affine, said = loaded(written(**SILENT[kind]))
    np.testing.assert_array_equal(data, DATA)
    np.testing.assert_allclose(affine, GRID, atol=1e-5)
    assert said == []


@pytest.mark.parametrize("kind", SAID)
def test_what_is_ambiguous_is_said_and_results_have_one_geometry(written, kind: str) -> None:
    fields, text = SAID[kind]
    path = written(**fields)
    data, affine, said = loaded(path)
    np.testing.assert_array_equal(data, DATA)
    np.testing.assert_allclose(affine, GRID, atol=1e-5)
    assert len(said) == 1 and said[0].startswith(f"{path}: ") and text in said[0], said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = to_scan_space(np.zeros((9, 8, 7), np.float32), affine, load_volume(path).image)
    np.testing.assert_allclose(result.header.get_sform(), GRID, atol=1e-5)
    np.testing.assert_allclose(result.header.get_zooms(), 2)
    assert "qform" not in text or result.header["qform_code"] == 0


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_sound_is_refused(written, kind: str) -> None:
    fields, text = REFUSED[kind]
    path = written(**fields)
    with pytest.raises(InputError) as refused:
        load_volume(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and text in message and "; " in message, message
    assert "\n" not in message


@pytest.mark.parametrize(("code", "per_mm"), [(1, 0.001), (3, 1000)])
@pytest.mark.parametrize("sform", [True, False])
def test_metres_and_micrometres_become_millimetres(tmp_path, code: int, per_mm: float, sform: bool) -> None:
    grid = np.diag([per_mm, per_mm, per_mm, 1]) @ GRID
    image = nib.Nifti1Image(DATA, grid)
    image.set_sform(grid, int(sform))
    image.set_qform(grid, 1)
    image.header["xyzt_units"] = code
    nib.save(image, path := tmp_path / "scan_T2.nii.gz")
    data, affine, said = loaded(path)
    np.testing.assert_allclose(affine, GRID, atol=1e-4)
    np.testing.assert_array_equal(data, DATA)
    assert len(said) == 1 and "results are written in mm" in said[0]


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1, 1, 1]), None], ids=["numpy", "SimpleITK", "none"])
def test_an_array_saved_without_its_geometry_is_told(tmp_path, affine) -> None:
    nib.save(nib.Nifti1Image(DATA, affine), path := tmp_path / "array_T2.nii.gz")
    _, _, [said] = loaded(path)
    assert ("does not say how the scan is oriented" if affine is None else "the identity") in said


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Image, nib.Nifti2Pair], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_other_forms_of_nifti_are_read(tmp_path, kind, packed: str) -> None:
    ending = ".img" if kind in (nib.Nifti1Pair, nib.Nifti2Pair) else ".nii"
    nib.save(kind(DATA, GRID), path := tmp_path / f"scan_T2{ending}{packed}")
    data, affine, said = loaded(path)
    np.testing.assert_array_equal(data, DATA)
    np.testing.assert_array_equal(affine, GRID)
    assert said == []
    if ending == ".img":
        np.testing.assert_array_equal(loaded(tmp_path / f"scan_T2.hdr{packed}")[0], DATA)
        path.unlink()
        with pytest.raises(InputError, match=r"scan_T2\.img.*: no such file"):
            load_volume(path)


def test_the_other_byte_order_is_read(tmp_path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(">f4"))
    nib.save(nib.Nifti1Image(DATA, GRID, header), path := tmp_path / "scan_T2.nii")
    assert path.read_bytes()[:4] == b"\0\0\1\x5c"
    data, affine, _ = loaded(path)
    np.testing.assert_array_equal(data, DATA)
    np.testing.assert_array_equal(affine, GRID)
