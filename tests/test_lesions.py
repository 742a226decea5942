"""Lesion models: exact masks, sizes within the fixed ranges, the right sign, the scan's own noise inside."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score

from pddm_utils.data.scan import CONTRASTS, scale_to_unit_range
from pddm_utils.data.simulation.anatomy import Anatomy, simulate_anatomy
from pddm_utils.data.simulation.lesions import KINDS, LESION_LEVELS, MS, TUMOUR, estimate_tissues, insert_lesion
from pddm_utils.data.simulation.tissues import Tissues
from pddm_utils.evaluation.metrics import dice

VOXEL_MM3 = 8.0


@cache
def healthy(contrast: str) -> Anatomy:
    return simulate_anatomy(900_000, contrast)


def insert(contrast: str, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    a, rng = healthy(contrast), np.random.default_rng(seed)
    return insert_lesion(a.image, a.brain_mask, a.tissues, contrast, kind, rng)


lesioned = cache(insert)  # most tests look at the same few lesions


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_lesion(kind):
    before = healthy("T2").image.copy()
    first, second = lesioned("T2", kind, 0), insert("T2", kind, 0)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(healthy("T2").image, before)
    assert (lesioned("T2", kind, 1)[1] != first[1]).any()


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS), contrast=st.sampled_from(CONTRASTS))
def test_mask_lies_in_the_brain_and_is_never_empty(seed, kind, contrast):
    anatomy = healthy(contrast)
    image, mask = insert(contrast, kind, seed)
    assert mask.dtype == bool and image.dtype == np.float32 and mask.shape == image.shape
    assert mask.any() and not mask[~anatomy.brain_mask].any()
    assert np.isfinite(image).all() and image.min() >= 0
    np.testing.assert_array_equal(image[~anatomy.brain_mask], anatomy.image[~anatomy.brain_mask])


@pytest.mark.parametrize("seed", range(3))
def test_tumour_size_is_within_the_range(seed):
    _, mask = lesioned("T2", "tumour", seed)
    assert ndimage.label(mask)[1] == 1
    radius = np.cbrt(mask.sum() * VOXEL_MM3 * 3 / (4 * np.pi))
    # The volume may fall short where the tumour meets CSF or the surface.
    assert 0.75 * TUMOUR.radius[0] <= radius <= 1.05 * TUMOUR.radius[1]


@pytest.mark.parametrize("seed", range(3))
def test_ms_lesions_are_many_small_and_in_white_matter(seed):
    anatomy = healthy("T2")
    _, mask = lesioned("T2", "ms", seed)
    labels, count = ndimage.label(mask)
    assert MS.count[0] <= count <= MS.count[1] + 4  # the odd lesion is cut in two by a fold of grey matter
    volumes = np.bincount(labels.ravel())[1:] * VOXEL_MM3
    assert volumes.max() <= 4 / 3 * np.pi * (1.15 * MS.radius[1]) ** 3
    assert anatomy.tissues.white[mask].mean() > 0.8


def test_ms_lesions_gather_beside_the_ventricles():
    anatomy = healthy("T2")
    brain, csf = anatomy.brain_mask, anatomy.tissues.csf
    deep_csf = (csf > 0.5) & (ndimage.distance_transform_edt(brain) > 10)
    distance = ndimage.distance_transform_edt(~deep_csf)
    masks = [lesioned("T2", "ms", seed)[1] for seed in range(3)]
    white = anatomy.tissues.white > 0.7
    assert np.mean([np.median(distance[mask]) for mask in masks]) < 0.7 * np.median(distance[white])


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_lesions_are_bright_on_t2_and_flair_and_dark_on_t1(contrast, kind):
    anatomy = healthy(contrast)
    sign = -1 if contrast == "T1" else 1
    white_level = np.median(anatomy.image[anatomy.tissues.white > 0.9])
    image, mask = lesioned(contrast, kind, 1)
    assert sign * (np.median(image[mask]) - white_level) > 0


def test_ms_changes_nothing_away_from_the_mask():
    anatomy = healthy("T2")
    image, mask = lesioned("T2", "ms", 1)
    changed = image != anatomy.image
    assert not changed[~ndimage.binary_dilation(mask, iterations=4)].any()
    change = np.abs(image - anatomy.image)
    assert change[mask].sum() > 0.6 * change.sum()
    assert change[mask].mean() > 0.05


def test_tumour_changes_intensity_inside_the_mask_and_moves_the_anatomy_around_it():
    anatomy = healthy("T2")
    image, mask = lesioned("T2", "tumour", 1)
    difference = np.where(anatomy.brain_mask, image - anatomy.image, 0)
    around = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
    around &= anatomy.brain_mask
    assert difference[mask].mean() > 0.1
    assert abs(difference[around].mean()) < 0.2 * difference[mask].mean(), "no brightness leaks out of the mask"
    assert np.abs(difference[around]).mean() > 0.01, "mass effect reaches beyond the mask"
    far = ndimage.distance_transform_edt(~mask) > 35
    assert not difference[far].any(), "the mass effect ends"


def test_displaced_tissue_keeps_the_noise_of_the_scan():
    anatomy = healthy("T1")
    image, mask = lesioned("T1", "tumour", 1)

    def noise(scan: np.ndarray, where: np.ndarray) -> float:
        second = np.abs(np.diff(scan, 2, axis=2))
        return float(np.median(second[where[..., 1:-1]]))

    white = ndimage.binary_erosion(anatomy.tissues.white > 0.9)
    inside = noise(image, ndimage.binary_erosion(mask))
    assert 0.7 < inside / noise(anatomy.image, white) < 2.0


def test_intensity_alone_does_not_find_tumours():
    scores = []
    for seed in range(3):
        anatomy = simulate_anatomy(900_100 + seed, "T2")
        rng = np.random.default_rng(seed)
        image, mask = insert_lesion(anatomy.image, anatomy.brain_mask, anatomy.tissues, "T2", "tumour", rng)
        scaled = scale_to_unit_range(image, anatomy.brain_mask)
        scores.append(average_precision_score(mask.ravel(), ndimage.uniform_filter(scaled, 3).ravel()))
    assert 0.02 < np.mean(scores) < 0.3


def test_levels_keep_the_sign_of_each_contrast():
    for contrast in ("T1", "T2"):  # base white matter, towards the CSF: darker on T1, brighter on T2
        ranges = LESION_LEVELS[contrast]
        assert ranges.base == "white"
        assert all(low > 0 for low, _ in (ranges.oedema, ranges.core, ranges.necrosis, ranges.ms))
    assert LESION_LEVELS["FLAIR"].base == "grey" and LESION_LEVELS["FLAIR"].ms[1] < 0


# --- Real scans: tissues from intensities ---
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_estimated_tissues_agree_with_the_simulated_ones(contrast):
    anatomy = healthy(contrast)
    estimate = estimate_tissues(anatomy.image, anatomy.brain_mask, contrast)
    brain = anatomy.brain_mask
    np.testing.assert_allclose((estimate.csf + estimate.grey + estimate.white)[brain], 1, atol=1e-5)
    assert not estimate.white[~brain].any()
    true_white, white = anatomy.tissues.white > 0.5, estimate.white > 0.5
    overlap = dice(white, true_white)
    assert overlap > {"T1": 0.8, "T2": 0.7, "FLAIR": 0.4}[contrast]  # grey and white differ least on FLAIR
    again = estimate_tissues(anatomy.image, brain, contrast)
    np.testing.assert_array_equal(again.white, estimate.white)


def test_estimated_tissues_survive_a_strong_bias_field():
    anatomy = healthy("T1")
    ramp = np.linspace(1.4, 0.6, len(anatomy.image), dtype=np.float32)[:, None, None]
    estimate = estimate_tissues(anatomy.image * ramp, anatomy.brain_mask, "T1")
    upper = slice(2 * len(anatomy.image) // 3, None)
    true_white, white = anatomy.tissues.white[upper] > 0.5, estimate.white[upper] > 0.5
    assert dice(true_white, white) > 0.75


def test_a_lesion_goes_into_a_scan_with_estimated_tissues():
    anatomy = healthy("T1")
    tissues = estimate_tissues(anatomy.image, anatomy.brain_mask, "T1")
    for kind in KINDS:
        scan = (anatomy.image * 500).astype(np.float32)  # real scans have any scale
        image, mask = insert_lesion(scan, anatomy.brain_mask, tissues, "T1", kind, np.random.default_rng(0))
        assert mask.any() and image[mask].mean() < scan[mask].mean()


# --- Refusals ---
def test_wrong_arguments_are_refused():
    a, rng = healthy("T1"), np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown contrast"):
        insert_lesion(a.image, a.brain_mask, a.tissues, "PD", "ms", rng)
    with pytest.raises(ValueError, match="unknown lesion kind"):
        insert_lesion(a.image, a.brain_mask, a.tissues, "T1", "stroke", rng)
    with pytest.raises(ValueError, match="differ in shape"):
        insert_lesion(a.image[1:], a.brain_mask, a.tissues, "T1", "ms", rng)
    with pytest.raises(ValueError, match="unknown contrast"):
        estimate_tissues(a.image, a.brain_mask, "PD")
    with pytest.raises(ValueError, match="empty|vary"):
        estimate_tissues(a.image, np.zeros_like(a.brain_mask), "T1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_brain_without_room_is_refused(kind):
    brain = np.zeros((12, 96, 96), dtype=bool)
    brain[4:8, 40:46, 40:46] = True
    share = np.where(brain, np.float32(1), np.float32(0))
    thirds = np.indices(brain.shape)[2] % 3
    tissues = Tissues(csf=share * (thirds == 0), grey=share * (thirds == 1), white=share * (thirds == 2))
    with pytest.raises(ValueError, match="no room|no white matter"):
        insert_lesion(share * (1 + thirds), brain, tissues, "T2", kind, np.random.default_rng(0))
