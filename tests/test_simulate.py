"""Simulated subjects: deterministic, one geometry for all contrasts, the right contrast, disjoint cohorts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pddm_utils.data.scan import CONTRASTS, scale_to_unit_range
from pddm_utils.data.simulation.anatomy import Anatomy, simulate_anatomy, smooth_field
from pddm_utils.data.sources.simulated import simulated_rows


@pytest.fixture(scope="module")
def subject() -> dict[str, Anatomy]:
    return {contrast: simulate_anatomy(3, contrast) for contrast in CONTRASTS}


def test_same_index_gives_the_same_subject(subject):
    again = simulate_anatomy(3, "T2")
    np.testing.assert_array_equal(again.image, subject["T2"].image)
    np.testing.assert_array_equal(again.brain_mask, subject["T2"].brain_mask)


def test_geometry_is_shared_by_the_contrasts(subject):
    reference = subject["T1"]
    for other in (subject["T2"], subject["FLAIR"]):
        np.testing.assert_array_equal(other.brain_mask, reference.brain_mask)
        np.testing.assert_array_equal(other.affine, reference.affine)
        for tissue in ("csf", "grey", "white"):
            np.testing.assert_array_equal(getattr(other.tissues, tissue), getattr(reference.tissues, tissue))


def test_indices_give_different_anatomies(subject):
    other = simulate_anatomy(4, "T2")
    middle, own = other.brain_mask[35], subject["T2"].brain_mask[35]
    assert np.mean(middle != own) > 0.005
    assert abs(other.tissues.csf.sum() / subject["T2"].tissues.csf.sum() - 1) > 0.01


@settings(max_examples=6)
@given(index=st.integers(min_value=0, max_value=10**6), contrast=st.sampled_from(CONTRASTS))
def test_every_subject_fits_its_frame(index, contrast):
    anatomy = simulate_anatomy(index, contrast)
    brain = anatomy.brain_mask
    assert brain.shape[1:] == (96, 96) and 50 <= brain.shape[0] <= 88
    assert anatomy.image.shape == brain.shape and anatomy.image.dtype == np.float32 and brain.dtype == bool
    assert brain.any(axis=(1, 2)).all(), "every slice holds brain"
    assert not brain[:, [0, -1]].any() and not brain[:, :, [0, -1]].any(), "no brain at the border"
    assert 1.0 < brain.sum() * 0.008 / 1000 < 2.1, "litres"
    assert not anatomy.image[~brain].any() and np.isfinite(anatomy.image).all()
    total = anatomy.tissues.csf + anatomy.tissues.grey + anatomy.tissues.white
    np.testing.assert_allclose(total[brain], 1, atol=1e-5)
    assert not total[~brain].any()
    assert all(t.min() >= -1e-6 for t in (anatomy.tissues.csf, anatomy.tissues.grey, anatomy.tissues.white))


@pytest.mark.parametrize(
    ("contrast", "dark_to_bright"),
    [("T2", ("white", "grey", "csf")), ("T1", ("csf", "grey", "white")), ("FLAIR", ("csf", "white", "grey"))],
)
def test_tissues_are_ordered_by_contrast(subject, contrast, dark_to_bright):
    anatomy = subject[contrast]
    means = [anatomy.image[getattr(anatomy.tissues, tissue) > 0.9].mean() for tissue in dark_to_bright]
    assert means[0] < means[1] < means[2]


def test_affine_centres_a_2_mm_frame(subject):
    affine = subject["T1"].affine
    np.testing.assert_array_equal(affine[:3, :3], 2 * np.eye(3))
    depth = subject["T1"].brain_mask.shape[0]
    middle = affine @ [47.5, 47.5, (depth - 1) / 2, 1]
    assert np.abs(middle[:3]).max() < 25


def test_brain_is_centred_in_plane():
    brain = simulate_anatomy(11, "T2").brain_mask
    for axis, others in ((1, (0, 2)), (2, (0, 1))):
        extent = np.flatnonzero(brain.any(axis=others))
        assert abs((extent[0] + extent[-1]) / 2 - 47.5) <= 1, f"axis {axis}"


def test_scaled_image_spans_the_unit_range(subject):
    scaled = scale_to_unit_range(subject["T2"].image, subject["T2"].brain_mask)
    assert scaled.min() == 0 and scaled.max() == 1 and 0.1 < scaled[subject["T2"].brain_mask].mean() < 0.6


@pytest.mark.parametrize(("index", "contrast"), [(-1, "T1"), (0, "PD")])
def test_wrong_arguments_are_refused(index, contrast):
    with pytest.raises(ValueError, match="negative|unknown contrast"):
        simulate_anatomy(index, contrast)


def test_smooth_field_is_standard_and_smooth():
    field = smooth_field((48, 64, 64), 4, np.random.default_rng(0))
    assert field.shape == (48, 64, 64)
    assert abs(field.mean()) < 0.15 and abs(field.std() - 1) < 0.1
    assert np.abs(np.diff(field, axis=2)).mean() < 0.4


# --- The cohort ---
def test_cohort_counts_and_conventions():
    rows = simulated_rows("T2", train=5, val_healthy=3, val_lesioned=2, test=4)
    assert len(rows) == 5 + 3 + 2 * 2 + 3 * 4
    by_dataset = {row.dataset for row in rows}
    assert by_dataset == {"simulated-t2-healthy", "simulated-t2-tumour", "simulated-t2-ms"}
    for row in rows:
        kind = row.dataset.rsplit("-", 1)[1]
        assert row.image.startswith("simulated:") and row.brain_mask == "" and row.contrast == "T2"
        assert row.lesion_mask.startswith(f"insert:{kind}:") if kind != "healthy" else row.lesion_mask == ""
    assert all(row.dataset == "simulated-t2-healthy" for row in rows if row.split == "train")


@settings(max_examples=25)
@given(st.tuples(*[st.integers(0, 40)] * 4), st.tuples(*[st.integers(0, 40)] * 4))
def test_smaller_cohorts_are_prefixes_and_splits_are_disjoint(first, second):
    small = simulated_rows("T1", *np.minimum(first, second).tolist())
    large = simulated_rows("T1", *np.maximum(first, second).tolist())
    for role in {(row.split, row.dataset) for row in small}:
        wanted = [row for row in small if (row.split, row.dataset) == role]
        assert [row for row in large if (row.split, row.dataset) == role][: len(wanted)] == wanted
    assert len({row.subject for row in large}) == len(large), "a subject appears once"
    assert len({row.image for row in large}) == len(large)
    seeds = {
        split: {row.lesion_mask.rsplit(":", 1)[1] for row in large if row.split == split and row.lesion_mask}
        for split in ("train", "val", "test")
    }
    assert not seeds["train"] and not seeds["val"] & seeds["test"]


@pytest.mark.parametrize("arguments", [("PD", 1, 1, 1, 1), ("T2", -1, 0, 0, 0), ("T2", 0, 0, 0, 10_001)])
def test_wrong_cohorts_are_refused(arguments):
    with pytest.raises(ValueError, match="unknown contrast|between 0 and"):
        simulated_rows(*arguments)
