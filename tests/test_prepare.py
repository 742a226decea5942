"""Preparation: the frame, the way back to the scan's space, brains without a mask file, and the cache."""

from __future__ import annotations

import gzip
import itertools
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from pddm_utils.data.brain import extract_brain, stripped_brain
from pddm_utils.data.frame import to_frame
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_all, prepare_scan
from pddm_utils.data.volume import LoadedVolume, load_volume, to_scan_space
from pddm_utils.evaluation.metrics import dice

ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
SIMULATED = ManifestRow(
    subject="sim-3",
    image="simulated:3",
    brain_mask="",
    lesion_mask="",
    split="test",
    dataset="simulated-t2-healthy",
    contrast="T2",
)


def volume_of(data: np.ndarray, affine: np.ndarray) -> LoadedVolume:
    return LoadedVolume(Path("scan.nii.gz"), nib.Nifti1Image(data, affine), data)


def ellipsoid(shape: tuple[int, int, int], radii: tuple[float, float, float]) -> np.ndarray:
    """Ellipsoid in the middle of a grid; radii in voxels."""
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1)
    return ((offsets / radii) ** 2).sum(axis=-1) < 1


def centres_of(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World position in mm of every voxel of an (x, y, z) grid, `(*shape, 3)`."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("turn", ORIENTATIONS, ids=lambda turn: "".join(nib.orientations.ornt2axcodes(turn)))
@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -8, 20)], ids=["straight", "oblique"])
def test_every_axis_order_gives_the_same_frame_and_the_exact_way_back(turn: np.ndarray, angles: tuple) -> None:
    rng = np.random.default_rng(1)
    affine = np.array([[2, 0, 0, -71], [0, 2, 0, -93.5], [0, 0, 2, -40.25], [0, 0, 0, 1.0]])
    affine = nib.affines.from_matvec(Rotation.from_euler("xyz", angles, degrees=True).as_matrix()) @ affine
    data = rng.uniform(1, 2, (50, 60, 40)).astype(np.float32)
    brain = ellipsoid(data.shape, (20, 26, 15))
    lesion = ellipsoid(data.shape, (3, 9, 4))
    expected = to_frame(volume_of(data, affine), brain, lesion)

    turned_affine = affine @ nib.orientations.inv_ornt_aff(turn, data.shape)
    turned = [nib.orientations.apply_orientation(array, turn) for array in (data, brain, lesion)]
    scan = volume_of(turned[0], turned_affine)
    frame = to_frame(scan, turned[1], turned[2])
    np.testing.assert_allclose(frame.affine, expected.affine, atol=1e-9)
    for name in ("image", "brain_mask", "lesion_mask"):
        np.testing.assert_array_equal(getattr(frame, name), getattr(expected, name))

    back = to_scan_space(frame.image, frame.affine, scan.image)
    np.testing.assert_array_equal(back.get_fdata(), turned[0] * turned[1])
    np.testing.assert_array_equal(
        np.asarray(to_scan_space(frame.lesion_mask, frame.affine, scan.image).dataobj), turned[2]
    )


def test_frame_axes_are_slices_rows_and_columns_of_ras() -> None:
    """Axis 0 grows to superior, axis 1 to anterior, axis 2 to the patient's right."""
    data = np.ones((60, 60, 60), np.float32)
    brain = ellipsoid(data.shape, (20, 20, 20))
    data[30, 30, 45], data[30, 45, 30], data[45, 30, 30] = 9, 8, 7
    frame = to_frame(volume_of(data, np.diag([2.0, 2, 2, 1])), brain)
    middle = np.argwhere(frame.image == 9)[0] - (15, 0, 0)
    assert tuple(np.argwhere(frame.image == 8)[0] - middle) == (0, 15, 0)
    assert tuple(np.argwhere(frame.image == 7)[0] - middle) == (0, 0, 15)


def test_two_millimetre_scan_is_copied_and_centred() -> None:
    data = np.random.default_rng(2).uniform(1, 2, (120, 110, 90)).astype(np.float32)
    brain = np.zeros(data.shape, bool)
    brain[30:91, 7:100, 11:70] = True
    frame = to_frame(volume_of(data, np.diag([2.0, 2, 2, 1])), brain)
    assert frame.image.shape == (59, 96, 96)
    assert frame.image.dtype == np.float32
    np.testing.assert_array_equal(frame.image[frame.brain_mask], data.T[brain.T])
    assert (frame.image[~frame.brain_mask] == 0).all()
    for axis in (1, 2):
        filled = np.flatnonzero(frame.brain_mask.any(axis=(0, 3 - axis)))
        assert abs(filled[0] - (95 - filled[-1])) <= 1


def test_brain_as_wide_as_the_frame_fits() -> None:
    for width in (95, 96):
        data = np.random.default_rng(3).uniform(1, 2, (120, 120, 12)).astype(np.float32)
        brain = np.zeros(data.shape, bool)
        brain[9 : 9 + width, 4 : 4 + width, 2:9] = True
        frame = to_frame(volume_of(data, np.diag([2.0, 2, 2, 1])), brain)
        assert frame.brain_mask.sum() == brain.sum()


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.9, 0.9, 3.3), (1.2, 0.7, 2.0), (2.5, 2.5, 5)])
@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -8, 20)])
def test_linear_ramp_keeps_its_place(spacing: tuple[float, ...], angles: tuple[float, ...]) -> None:
    """An image that states its own world position: the frame's affine is right to 1e-3 mm."""
    shape = tuple(int(120 / size) for size in spacing)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (-55.3, -65.1, -50.7)
    world = centres_of(affine, shape)
    brain = ellipsoid(shape, tuple(45 / size for size in spacing))
    for axis in range(3):
        frame = to_frame(volume_of(world[..., axis].astype(np.float32) + 500, affine), brain)
        np.testing.assert_allclose(np.linalg.norm(frame.affine[:3, :3], axis=0), 2, atol=1e-9)
        inner = ndimage.binary_erosion(frame.brain_mask, iterations=5)
        expected = centres_of(frame.affine, frame.image.shape[::-1])[..., axis].T + 500
        assert inner.sum() > 5_000
        assert np.abs(frame.image - expected)[inner].max() < 1e-3
        assert frame.brain_mask.any(axis=(1, 2)).all()
        assert frame.brain_mask.sum() * 8 == pytest.approx(4 / 3 * np.pi * 45**3, rel=0.02)

        back = to_scan_space(frame.image, frame.affine, nib.Nifti1Image(brain.astype(np.uint8), affine))
        assert back.shape == shape
        deep = ellipsoid(shape, tuple(32 / size for size in spacing))
        assert np.abs(back.get_fdata() - world[..., axis] - 500)[deep].max() < 2e-3


def test_fine_detail_is_averaged_not_aliased() -> None:
    """Stripes one 1 mm voxel wide cannot be shown at 2 mm: they become nearly their mean."""
    data = np.full((90, 90, 90), 100, np.float32)
    data[::2] = 200
    frame = to_frame(volume_of(data, np.eye(4)), ellipsoid(data.shape, (40, 40, 40)))
    inner = ndimage.binary_erosion(frame.brain_mask, iterations=3)
    assert np.abs(frame.image[inner] - 150).max() < 5


def test_background_does_not_bleed_into_the_brain() -> None:
    brain = ellipsoid((90, 90, 90), (40.3, 40.3, 40.3))
    for outside in (0, 1000):
        frame = to_frame(volume_of(np.where(brain, 150, outside).astype(np.float32), np.eye(4)), brain)
        np.testing.assert_allclose(frame.image[frame.brain_mask], 150, rtol=1e-4)


def test_lesions_are_resampled_by_nearest_neighbour() -> None:
    shape = (150, 160, 140)
    brain = ellipsoid(shape, (60, 70, 55))
    lesion = np.zeros(shape, bool)
    lesion[60:81, 70:90, 50:71] = True
    data = np.random.default_rng(4).uniform(1, 2, shape).astype(np.float32)
    affine = np.array([[1, 0, 0, -75.2], [0, 1, 0, -80], [0, 0, 1, -70.9], [0, 0, 0, 1.0]])
    frame = to_frame(volume_of(data, affine), brain, lesion)
    position = np.argwhere(frame.lesion_mask)[:, ::-1] @ frame.affine[:3, :3].T + frame.affine[:3, 3]
    index = np.linalg.solve(affine[:3, :3], (position - affine[:3, 3]).T).T
    assert ((index >= np.array([60, 70, 50]) - 0.5) & (index <= np.array([80, 89, 70]) + 0.5)).all()
    assert frame.lesion_mask.sum() * 8 == pytest.approx(lesion.sum(), rel=0.15)


def test_way_back_keeps_the_geometry_of_the_scan_and_no_texts(write_nifti, stripped_head) -> None:
    affine = nib.affines.from_matvec(Rotation.from_euler("z", 10, degrees=True).as_matrix() * 1.5, (-50, -60, -40))
    for codes in ((1, 0), (0, 1), (4, 1)):
        image = nib.Nifti1Image(stripped_head.astype(np.int16), affine)
        image.set_sform(affine if codes[0] else None, codes[0])
        image.set_qform(affine if codes[1] else None, codes[1])
        image.header["descrip"] = b"NOBODY^TEST 19700101"
        image.header["intent_code"] = 1002  # label
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"PatientName: NOBODY^TEST"))
        path = write_nifti("reference.nii.gz", stripped_head)
        nib.save(image, path)
        scan = load_volume(path)
        frame = to_frame(scan, stripped_brain(scan))
        for volume, dtype in ((frame.image, np.float32), (frame.brain_mask, np.uint8)):
            nib.save(to_scan_space(volume, frame.affine, scan.image), path.with_name("back.nii.gz"))
            back = nib.load(path.with_name("back.nii.gz"))
            assert back.shape == stripped_head.shape
            assert back.get_data_dtype() == dtype
            assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == codes
            assert b"NOBODY" not in gzip.decompress(path.with_name("back.nii.gz").read_bytes())[:1000]
            assert int(back.header["intent_code"]) == 0
            assert not back.header.extensions
            np.testing.assert_allclose(back.affine, scan.affine, atol=1e-5)
        overlap = np.asarray(back.dataobj, bool)
        truth = stripped_head > 0
        assert dice(overlap, truth) > 0.95


def test_way_back_is_zero_outside_the_frame() -> None:
    reference = nib.Nifti1Image(np.zeros((200, 200, 100), np.uint8), np.diag([2.0, 2, 2, 1]))
    frame_affine = nib.affines.from_matvec(np.eye(3) * 2, (100, 100, 60))
    back = to_scan_space(np.ones((20, 96, 96), np.float32), frame_affine, reference).get_fdata()
    assert back.sum() == 20 * 96 * 96
    assert back[50:146, 50:146, 30:50].all()


def test_stripped_brain_ignores_ringing_and_keeps_dark_fluid(stripped_head) -> None:
    rng = np.random.default_rng(5)
    truth = stripped_head > 0
    image = stripped_head.copy()
    ring = ndimage.binary_dilation(truth, iterations=3) & ~truth
    image[ring] = rng.normal(0, 0.3, ring.sum())  # what interpolation leaves around a stripped brain
    image[2:4, 2:4, 2:4] = 80  # a speck far away
    image[38:42, 40:50, 25:35] = rng.normal(0, 0.5, (4, 10, 10))  # dark ventricles, some voxels negative
    brain = stripped_brain(volume_of(image, np.diag([2.0, 2, 2, 1])))
    assert brain[38:42, 40:50, 25:35].all()
    assert not brain[2:4, 2:4, 2:4].any()
    assert dice(brain, truth) > 0.99


def test_fallback_extraction_finds_the_brain_in_a_head_with_skull() -> None:
    shape = (100, 110, 100)
    rng = np.random.default_rng(6)
    head, skull, brain = (ellipsoid(shape, radii) for radii in ((42, 50, 46), (38, 46, 42), (32, 40, 34)))
    image = rng.rayleigh(10, shape) + 350 * head - 300 * skull + 250 * brain
    found = extract_brain(volume_of(image.astype(np.float32), np.diag([2.0, 2, 2, 1])))
    assert dice(found, brain) > 0.97


def test_simulated_scan_with_and_without_a_lesion() -> None:
    healthy = prepare_scan(SIMULATED)
    assert not healthy.lesion_mask.any()
    assert healthy.image.dtype == np.float32
    assert (healthy.image.min(), healthy.image.max()) == (0, 1)
    assert (healthy.image[~healthy.brain_mask] == 0).all()
    first, again, other = (prepare_scan(replace(SIMULATED, lesion_mask=f"insert:tumour:{seed}")) for seed in (1, 1, 2))
    assert first.lesion_mask.any()
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.lesion_mask, again.lesion_mask)
    assert (first.lesion_mask != other.lesion_mask).any()
    np.testing.assert_array_equal(first.brain_mask, healthy.brain_mask)


def test_a_scan_is_the_same_with_any_number_of_threads() -> None:
    images = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads, user_api="blas"):
            images.append(prepare_scan(SIMULATED).image)
    assert all(np.array_equal(image, images[0]) for image in images)


def test_cache_returns_what_preparation_gives(tmp_path) -> None:
    scan, cache = prepare_scan(SIMULATED), ScanCache(tmp_path)
    for _ in range(2):  # prepared, then read
        cached = load_scan(SIMULATED, cache)
        for name in ("image", "brain_mask", "lesion_mask", "affine"):
            np.testing.assert_array_equal(getattr(cached, name), getattr(scan, name))
        cache = ScanCache(tmp_path)
    assert cache.slice_count(SIMULATED) == len(scan.image)
    for index in (0, 20, len(scan.image) - 1):
        image, brain_mask = cache.cached_slice(SIMULATED, index)
        np.testing.assert_array_equal(image, scan.image[index])
        np.testing.assert_array_equal(brain_mask, scan.brain_mask[index])
    for index in (-1, len(scan.image)):
        with pytest.raises(IndexError):
            cache.cached_slice(SIMULATED, index)


def test_cache_is_keyed_by_content(tmp_path, write_nifti, stripped_head, row_of) -> None:
    path = write_nifti("t1.nii.gz", stripped_head)
    folder = tmp_path / "cache"
    first = load_scan(row_of(path), ScanCache(folder))
    renamed = write_nifti("renamed.nii.gz", stripped_head)
    renamed.write_bytes(path.read_bytes())
    load_scan(row_of(renamed, subject="other", dataset="more"), ScanCache(folder))
    assert len(list(folder.iterdir())) == 1, "same content, one entry"
    write_nifti("t1.nii.gz", np.where(stripped_head > 150, stripped_head + 50, stripped_head))
    second = load_scan(row_of(path), ScanCache(folder))
    assert len(list(folder.iterdir())) == 2, "changed content, new entry"
    assert (first.image != second.image).any()


def test_cached_scan_is_not_prepared_again(tmp_path, write_nifti, stripped_head, row_of) -> None:
    row, cache = row_of(write_nifti("t1.nii.gz", stripped_head)), ScanCache(tmp_path / "cache")
    prepare_all([row], cache, progress=False)
    (entry,) = cache.folder.iterdir()
    before = {path: path.stat().st_mtime_ns for path in entry.iterdir()}
    prepare_all([row], ScanCache(cache.folder), progress=False)
    load_scan(row, cache)
    assert {path: path.stat().st_mtime_ns for path in entry.iterdir()} == before


def test_slices_are_cheap_to_read(tmp_path) -> None:
    """A training step reads a batch of them: little more than reading the bytes, so no file is hashed again."""
    cache = ScanCache(tmp_path)
    count = cache.slice_count(SIMULATED)
    (entry,) = cache.folder.iterdir()

    def plain(index: int) -> None:
        for name, dtype in (("image", np.float32), ("brain_mask", bool)):
            np.fromfile(entry / f"{name}.npy", dtype, 96 * 96, offset=index * 96 * 96)

    seconds: list[list[float]] = [[], []]
    for index in range(200):  # in turns, so that a busy machine slows both
        for kept, read in zip(seconds, (plain, lambda index: cache.cached_slice(SIMULATED, index)), strict=True):
            start = time.perf_counter()
            read(index % count)
            kept.append(time.perf_counter() - start)
    assert np.median(seconds[1]) < 3 * np.median(seconds[0])


def _prepare_in_process(folder: str, row: ManifestRow) -> float:
    return float(load_scan(row, ScanCache(folder)).image.sum())


def test_processes_may_share_a_cache(tmp_path, write_nifti, stripped_head, row_of) -> None:
    rows = [row_of(write_nifti(f"{n}.nii.gz", stripped_head + n * (stripped_head > 150))) for n in range(4)] * 2
    folder = tmp_path / "cache"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        sums = list(pool.map(_prepare_in_process, [str(folder)] * len(rows), rows))
    assert sums[:4] == sums[4:]
    assert len(list(folder.iterdir())) == 4, "one entry for each scan, nothing partial"


def test_entry_that_appears_meanwhile_is_used(tmp_path) -> None:
    """The slower of two processes throws its copy away."""
    cache = ScanCache(tmp_path)
    scan = load_scan(SIMULATED, cache)
    (entry,) = tmp_path.iterdir()
    cache._write(scan, None, entry)
    assert list(tmp_path.iterdir()) == [entry]


def test_partial_entries_of_killed_processes_are_swept(tmp_path) -> None:
    old, fresh = tmp_path / ".partial-old", tmp_path / ".partial-fresh"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "image.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    ScanCache(tmp_path)
    assert not old.exists()
    assert fresh.exists(), "another process may be writing it"
