"""Headers and bytes drawn at random: the result is right, or said to be doubtful, or refused; never silently moved."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fuzzing import for_an_hour, is_taken, mutated
from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.mask_files import load_brain_mask
from pddm_utils.data.volume import load_volume

DATA = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
HARM = ("none", "mirror", "turn", "not a number", "no size", "rounded")


def affine_of(angles: tuple[float, ...], sizes: tuple[float, ...], offset: tuple[float, ...], left: bool) -> np.ndarray:
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(sizes)
    return nib.affines.from_matvec(matrix @ np.diag([-1 if left else 1, 1, 1]), offset)


def write_harmed(path: Path, intended: np.ndarray, codes: tuple[int, int], unit: int, harm: str, harmed: str) -> None:
    """A NIfTI file whose forms with a code say `intended`, but for the harm done to one of them."""
    grid = np.diag([1 / TO_MM[unit]] * 3 + [1]) @ intended
    wrong = {"mirror": grid @ np.diag([-1.0, 1, 1, 1]), "turn": grid[:, [1, 0, 2, 3]] * [1, -1, 1, 1]}.get(harm, grid)
    image = nib.Nifti1Image(DATA, grid)
    image.set_qform(wrong if harmed == "qform" else grid, codes[1])
    image.set_sform(wrong if harmed == "sform" else grid, codes[0])
    header = image.header
    header["sform_code"], header["qform_code"], header["xyzt_units"] = *codes, unit
    if harm == "not a number":
        header["srow_y" if harmed == "sform" else "quatern_c"] = np.nan
    if harm == "no size":
        header["srow_y" if harmed == "sform" else "pixdim"] = (
            [0, 0, 0, 5] if harmed == "sform" else [1, 2, 0, 2, 1, 1, 1, 1]
        )
    if harm == "rounded":
        for name in ("quatern_b", "quatern_c", "quatern_d"):
            header[name] = np.round(header[name], 4)
    with path.open("wb") as file:  # not by nibabel's own writer, which mends headers
        file.write(header.binaryblock + bytes(4) + DATA.tobytes(order="F"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    sizes=st.tuples(*[st.floats(0.3, 8)] * 3),
    offset=st.tuples(*[st.floats(-300, 300)] * 3),
    left=st.booleans(),
    codes=st.sampled_from([(1, 1), (2, 2), (1, 0), (0, 1), (4, 1)]),
    unit=st.sampled_from(list(TO_MM)),
    harm=st.sampled_from(HARM),
    harmed=st.sampled_from(["sform", "qform"]),
    vox_offset=st.sampled_from([352, 0, 348, 360, 351.5, -1, np.nan, np.inf]),
)
@example((0, 180, 0), (1, 1, 1), (0, 0, 0), False, (0, 1), 2, "rounded", "qform", 352)
def test_a_scan_is_where_it_was_meant_or_it_is_said_or_refused(
    tmp_path, angles, sizes, offset, left, codes, unit, harm, harmed, vox_offset
) -> None:
    if codes[0 if harmed == "sform" else 1] == 0 or (harm in ("mirror", "turn") and 0 in codes):
        harm = "none"  # of what is not used, or what no reader could know
    intended, path = affine_of(angles, sizes, offset, left), tmp_path / "scan_T2.nii"
    write_harmed(path, intended, codes, unit, harm, harmed)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(vox_offset).tobytes()
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            volume = load_volume(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert (harm, vox_offset) != ("none", 352) and (harm, vox_offset) != ("none", 0)
            return
    np.testing.assert_array_equal(volume.data, DATA)
    said = [str(one.message) for one in told if "results are written in mm" not in str(one.message)]
    corner = np.array([*DATA.shape, 1])
    moved = np.linalg.norm((volume.affine - intended) @ corner)
    assert moved < 0.1 or said, f"moved by {moved:.1f} mm without a word"
    if harm == "none":
        assert not said and moved < 0.01
    elif harm == "mirror" or (harm == "turn" and codes[0] == codes[1]):
        assert said


def bases(folder: Path) -> Iterator[bytes]:
    """Small sound files of several forms, as bytes."""
    scan = np.zeros((9, 9, 9), np.float32)
    scan[2:7, 2:7, 2:7] = np.random.default_rng(1).uniform(1, 2, (5, 5, 5))
    grid = np.array([[-2.0, 0, 0, 9], [0, 2, 0, -9], [0, 0, 2, -9], [0, 0, 0, 1]])
    images = [
        nib.Nifti1Image(scan, grid),
        nib.Nifti1Image((100 * scan).astype(np.int16), grid),
        nib.Nifti2Image(scan, grid),
        nib.Nifti1Image((scan > 0).astype(np.uint8), grid),
    ]
    images[1].set_sform(None, 0)
    images[1].header.set_slope_inter(0.01, 0)
    images[2].header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"history"))
    for image in images:
        nib.save(image, folder / "base.nii")
        yield (folder / "base.nii").read_bytes()


def packed(content: bytes, rng: np.random.Generator) -> bytes:
    """Now and then packed, and changed again."""
    if rng.random() < 0.3:
        content = gzip.compress(content, 1)
        if rng.random() < 0.5:
            place = int(rng.integers(len(content)))
            content = content[:place] + rng.bytes(1) + content[place + 1 :]
    return content


def fuzz(folder: Path, seed: int, count: int) -> int:
    """Load changed files as scan and as mask; how many were taken. Anything but a result or one line is an error."""
    rng, sound, taken = np.random.default_rng(seed), list(bases(folder)), 0
    (folder / "sound.nii").write_bytes(sound[0])
    scan, path = load_volume(folder / "sound.nii"), folder / "changed.nii.gz"
    for number in range(count):
        path.write_bytes(packed(mutated(sound[rng.integers(len(sound))], rng, reach=560), rng))
        for load in (partial(load_volume, path), partial(load_brain_mask, path, scan)):
            taken += is_taken(load, (seed, number), f"{path}: ", ScanWarning)
    return taken


def test_changed_bytes_give_a_result_or_one_line(tmp_path) -> None:
    assert fuzz(tmp_path, seed=0, count=400) > 50


@pytest.mark.slow
def test_changed_bytes_for_an_hour(tmp_path) -> None:
    for_an_hour(lambda seed: fuzz(tmp_path, seed, count=400))
