"""Masks and backgrounds as tools write them: the brain that is meant, or a refusal that is true."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.simulation.anatomy import simulate_anatomy


@lru_cache
def subject() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A simulated T2 subject: image and brain `(X, Y, Z)`, affine."""
    anatomy = simulate_anatomy(210003, "T2")
    return anatomy.image.T.astype(np.float32), anatomy.brain_mask.T, anatomy.affine


@lru_cache
def probability() -> np.ndarray:
    """Near 1 in the brain, small but not 0 in the first centimetre around it."""
    brain = subject()[1]
    outside, depth = (2 * ndimage.distance_transform_edt(side) for side in (~brain, brain))
    values = 1 / (1 + np.exp((outside - depth) / 1.5))
    return np.where(values < 1e-3, 0, values).astype(np.float32)


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., tuple[Scan, list[str]]]:
    """Prepare the subject with a mask as a file has it; the scan, and what was said."""

    def prepare(
        mask: np.ndarray | nib.Nifti1Image | None,
        image: np.ndarray | None = None,
        lesion: nib.Nifti1Image | None = None,
    ) -> tuple[Scan, list[str]]:
        affine = subject()[2]
        files = {"image": subject()[0] if image is None else image, "brain_mask": mask, "lesion_mask": lesion}
        for name, data in files.items():
            if data is not None:
                nifti = nib.Nifti1Image(data, affine) if isinstance(data, np.ndarray) else data
                nib.save(nifti, tmp_path / f"{name}.nii.gz")
        paths = {name: "" if data is None else str(tmp_path / f"{name}.nii.gz") for name, data in files.items()}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ScanWarning)
            scan = prepare_scan(ManifestRow("s", split="test", dataset="mine", contrast="T2", **paths))
        return scan, [str(one.message) for one in told]

    return prepare


def same_brain(scan: Scan) -> bool:
    brain, affine = subject()[1:]
    where = np.argwhere(scan.brain_mask)[:, ::-1] @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    index = np.rint((where - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    return len(index) == brain.sum() and bool(brain[tuple(index.T)].all())


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1, np.float32), (100, np.float32), (100, np.uint8), (255, np.uint8), (1000, np.int16)]
)
def test_a_probability_map_is_cut_at_half_its_range(prepared, scale: int, dtype: type) -> None:
    values = probability() * scale
    scan, said = prepared(values.astype(dtype) if dtype is np.float32 else np.rint(values).astype(dtype))
    assert same_brain(scan)
    assert len(said) == 1 and "probabilities up to" in said[0]


def test_probabilities_that_are_nowhere_0_and_overshoots_of_splines_are_cut_too(prepared) -> None:
    assert same_brain(prepared(np.maximum(probability(), 1e-5))[0])
    brain = subject()[1]
    shell = ndimage.binary_dilation(brain, iterations=2) & ~ndimage.binary_erosion(brain, iterations=2)
    ringing = 0.1 * np.sin(np.arange(len(brain)) / 2, dtype=np.float32)[:, None, None]
    assert same_brain(prepared(brain + ringing * shell)[0])


def atlas(names: np.ndarray) -> np.ndarray:
    """The brain cut into blocks of 3 cm with these labels in turn."""
    blocks = np.add.outer(np.add.outer(*[np.arange(n) // 15 for n in subject()[1].shape[:2]]), np.arange(200) // 15)
    blocks = blocks[..., : subject()[1].shape[2]]
    return np.where(subject()[1], names[blocks % len(names)], 0).astype(np.int32)


@pytest.mark.parametrize(
    "names",
    [
        [1],
        [255],
        [1, 2, 3],
        [1, 1, 1, 2],
        list(range(1, 21)),
        [2, 3, 4, 7, 8, 10, 11, 41, 42, 43, 46, 47, 49, 50, 77, 251, 252, 255],
        [2, 41, *range(1000, 1036), *range(2000, 2036)],
    ],
    ids=["one", "255", "tissues", "two", "twenty in a row", "aseg", "aparc+aseg"],
)
def test_every_label_of_a_label_map_is_brain(prepared, names: list[int]) -> None:
    scan, said = prepared(atlas(np.array(names)))
    assert same_brain(scan)
    assert said == []


def test_specks_are_dropped_and_said_and_do_not_move_the_frame(prepared) -> None:
    clean, _ = prepared(subject()[1].astype(np.uint8))
    strayed = subject()[1].astype(np.uint8)
    strayed[2, 2, 2] = strayed[-3:, -3, -3] = 1
    scan, [said] = prepared(strayed)
    assert "brain_mask.nii.gz: 4 voxel(s) in specks apart from the brain dropped" in said
    np.testing.assert_array_equal(scan.image, clean.image)
    np.testing.assert_array_equal(scan.affine, clean.affine)


def test_a_voxel_that_touches_at_a_corner_is_no_speck(prepared) -> None:
    brain = subject()[1]
    grown = brain.astype(np.uint8)
    around = ndimage.binary_dilation(brain, np.ones((3, 3, 3))) & ~ndimage.binary_dilation(brain)
    grown[tuple(np.argwhere(around)[0])] = 1
    scan, said = prepared(grown)
    assert scan.brain_mask.sum() == brain.sum() + 1
    assert said == []


@pytest.mark.parametrize("codes", ["LPS", "PIR", "ASL", "IRP"])
def test_another_voxel_order_is_brought_into_line(prepared, codes: str) -> None:
    brain, affine = subject()[1:]
    lesion = np.zeros_like(brain)
    lesion[40:48, 50:55, 30:37] = True
    turned = [
        nib.Nifti1Image(one.astype(np.uint8), affine).as_reoriented(nib.orientations.axcodes2ornt(codes))
        for one in (brain, lesion & brain)
    ]
    scan, said = prepared(turned[0], lesion=turned[1])
    assert same_brain(scan)
    straight, _ = prepared(brain.astype(np.uint8), lesion=nib.Nifti1Image((lesion & brain).astype(np.uint8), affine))
    np.testing.assert_array_equal(scan.lesion_mask, straight.lesion_mask)
    assert said == []


REFUSED = {
    "background marked": (lambda: 1 - subject()[1].astype(np.uint8), "marks the background"),
    "background marked with 255": (lambda: 255 * (1 - subject()[1].astype(np.uint8)), "marks the background"),
    "-1 in the brain": (lambda: -subject()[1].astype(np.int8), "empty brain mask"),
    "1 and 2": (lambda: 1 + subject()[1].astype(np.uint8), "every voxel is above 0"),
    "labels that were interpolated": (
        lambda: ndimage.gaussian_filter(atlas(np.arange(1, 60)).astype(np.float32), 1),
        "neither a mask nor labels nor probabilities",
    ),
    "logits": (lambda: 10 * probability() - 9, "neither a mask nor labels nor probabilities"),
    "the image itself": (lambda: subject()[0] + 0.01, "neither a mask nor labels nor probabilities"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_is_refused(prepared, kind: str) -> None:
    make, text = REFUSED[kind]
    with pytest.raises(InputError, match=text):
        prepared(make())


def test_a_brain_that_does_not_fit_is_refused_with_a_true_number(prepared) -> None:
    spur = subject()[1].astype(np.uint8)
    middle = [int(i) for i in ndimage.center_of_mass(spur)]
    spur[:, middle[1], middle[2]] = 1  # one row of voxels through the whole volume
    padded = np.pad(spur, ((30, 30), (0, 0), (0, 0)), mode="edge")
    image = np.pad(subject()[0], ((30, 30), (0, 0), (0, 0)))
    with pytest.raises(InputError, match="would be lost") as refused:
        prepared(padded, image)
    assert " 0 %" not in str(refused.value) and " 0.0 %" not in str(refused.value)


@pytest.mark.parametrize("background", [-1.0, -2.5, -1024.0, 7.0])
def test_a_background_of_any_one_value_is_recognised(prepared, background: float) -> None:
    image, brain, _ = subject()
    scan, _ = prepared(None, np.where(brain, image + max(background, 0), background).astype(np.float32))
    if background < 0:
        assert abs(scan.brain_mask.sum() / brain.sum() - 1) < 0.01
        assert scan.image.max() == 1


@pytest.mark.parametrize(("axis", "part"), list(itertools.product(range(3), [(0.35, 0.65), (0.4, 1.0)])))
def test_a_stripped_slab_is_taken_as_it_is(prepared, axis: int, part: tuple[float, float]) -> None:
    image, brain, _ = subject()
    cut = [slice(None)] * 3
    cut[axis] = slice(*(int(share * brain.shape[axis]) for share in part))
    scan, _ = prepared(None, np.ascontiguousarray(image[tuple(cut)]))
    assert abs(scan.brain_mask.sum() / brain[tuple(cut)].sum() - 1) < 0.02


def test_a_slab_of_a_whole_head_is_refused(prepared) -> None:
    image, brain, _ = subject()
    outside = ndimage.distance_transform_edt(~brain) * 2
    head = np.where((outside > 0) & (outside <= 6), 0.08, image)
    head = np.where((outside > 6) & (outside <= 16), 0.8, head)
    middle = brain.shape[2] // 2
    with pytest.raises(InputError, match="does not look skull-stripped"):
        prepared(None, head[:, :, middle - 8 : middle + 8].astype(np.float32))
