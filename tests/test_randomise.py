"""Domain randomisation: what is drawn, on which frame, and that training on it is repeatable and sees no intensity."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from pddm_utils.benchmark.models import healthy_rows
from pddm_utils.benchmark.studies.recipes import RECIPES, Recipe, train_recipe
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache
from pddm_utils.data.simulation.randomise import CSF, LABELS, MIXED, WHITE, draw_levels, randomise
from pddm_utils.data.simulation.randomised_slices import APPEARANCES, RandomisedSlices, framed_labels
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.methods.registry import make_method
from pddm_utils.show.figures import show_randomised
from pddm_utils.training.loop import read_training

GREY = 100
SMALL = {
    "train_subjects": 2,
    "val_subjects": 1,
    "val_lesion_subjects": 1,
    "test_subjects": 1,
    "network": "smoke",
    "train_steps": 3,
    "batch_size": 4,
    "checkpoint_every": 1,
    "warmup_steps": 1,
}
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def phantom() -> np.ndarray:
    """`(30, 36, 20)` labels: fluid around grey matter around white matter, two halves, ventricles and thalami."""
    x, y, z = np.mgrid[-15:15, -18:18, -10:10] + 0.5
    radius, right = np.sqrt((x / 13) ** 2 + (y / 16) ** 2 + (z / 9) ** 2), x > 0
    labels = np.select(
        [radius < 0.2, radius < 0.35, radius < 0.7, radius < 0.9, radius < 1],
        [52 - right, 60 - right, 82 - right, 101 - right, np.ones_like(right)],
        0,
    )
    labels[3, 18, 10] = 101  # one voxel makes it asymmetric, so that a flip would show
    return labels.astype(np.uint8)


def write_ixi(root: Path, intensities: int) -> Path:
    """A tree like `ixi-t1-2mm` (2 train, 1 val, 1 test, 1 unassigned), with random intensities from this seed."""
    folder, rng = root / "ixi-t1-2mm", np.random.default_rng(intensities)
    for name in ("T1", "DLMUSE"):
        (folder / name).mkdir(parents=True)
    splits = ["train", "train", "val", "test", "unassigned"]
    lines = ["subject,split"] + [f"IXI{number:03d}-HH,{split}" for number, split in enumerate(splits)]
    (folder / "subjects.csv").write_text("\n".join(lines) + "\n")
    affine = np.array([[0, 0, 2, -20], [-2, 0, 0, 30], [0, 2, 0, -40], [0, 0, 0, 1.0]])  # orientation PSR, as IXI's
    for number in range(len(splits)):
        labels = np.roll(phantom(), number, axis=0).transpose(1, 2, 0)[::-1]
        image = rng.uniform(50, 200, labels.shape).astype(np.float32)
        for kind, data in (("T1/{}_T1", image), ("DLMUSE/{}_T1_DLMUSE", labels)):
            nib.save(
                nib.Nifti1Image(np.ascontiguousarray(data), affine),
                folder / f"{kind.format(f'IXI{number:03d}-HH')}.nii.gz",
            )
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_ixi(tmp_path_factory.mktemp("ixi"), intensities=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ScanCache:
    return ScanCache(tmp_path_factory.mktemp("cache"))


def rows_of(tree: Path, split: str = "train") -> list[ManifestRow]:
    return healthy_rows(ixi_rows(tree), split)


def small_settings(**changes) -> Settings:
    return load_settings("real", SMALL | {"extra_test_sets": []} | changes)


@settings(max_examples=30)
@given(
    labels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 207)),
    seed=st.integers(0, 2**32),
)
def test_any_label_map_gives_a_repeatable_image_in_range(labels: np.ndarray, seed: int) -> None:
    image = randomise(labels, np.random.default_rng(seed))
    assert image.shape == labels.shape and image.dtype == np.float32
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
    assert (image[labels == 0] == 0).all()
    np.testing.assert_array_equal(image, randomise(labels, np.random.default_rng(seed)))


def test_every_label_has_a_mean_of_its_own_near_its_tissue() -> None:
    for seed in range(20):
        mean, spread = draw_levels(np.random.default_rng(seed))
        assert len(np.unique(mean[1:])) == LABELS - 1 and (spread[1:] > 0).all()
        assert mean[0] == spread[0] == 0
        grey = np.setdiff1d(np.arange(1, LABELS), (*CSF, *WHITE, *MIXED))
        centres = [np.median(mean[list(group)]) for group in (CSF, grey, WHITE)]
        assert np.ptp(centres) == pytest.approx(1, abs=0.3)  # the darkest and the brightest tissue lie 1 apart
        for group, centre in zip((CSF, grey, WHITE), centres, strict=True):
            assert mean[list(group)].std() < 0.2 and abs(mean[list(group)].mean() - centre) < 0.15


def test_all_orders_of_the_tissues_occur() -> None:
    labels = phantom()
    image_of = [randomise(labels, np.random.default_rng(seed)) for seed in range(80)]
    groups = [np.isin(labels, group) for group in (CSF, (GREY, GREY + 1), (81, 82))]
    orders = Counter(tuple(np.argsort([np.median(image[group]) for group in groups])) for image in image_of)
    assert orders[0, 1, 2] > 2 and orders[2, 1, 0] > 2  # like T1: fluid, grey, white; like T2: the reverse
    assert len(orders) == 6


def test_two_draws_differ_and_fill_the_range() -> None:
    labels = phantom()
    first, second = (randomise(labels, np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(first - second)[labels > 0].mean() > 0.05
    spans = [
        np.ptp(np.percentile(randomise(labels, np.random.default_rng(seed))[labels > 0], (2, 98))) for seed in range(20)
    ]
    assert min(spans) > 0.6


def test_a_slice_without_fluid_is_scaled_like_the_brain_it_is_part_of() -> None:
    white, whole = np.full((20, 20), 81, np.uint8), phantom()
    alone = [np.ptp(randomise(white, np.random.default_rng(seed))) for seed in range(20)]
    among = [np.ptp(randomise(white, np.random.default_rng(seed), whole[whole > 0])) for seed in range(20)]
    assert np.mean(alone) > 0.7 and np.mean(among) < 0.75 * np.mean(alone)


def test_labels_lie_on_the_frame_of_their_scan(tree: Path, cache: ScanCache) -> None:
    row = rows_of(tree)[1]
    labels, scan = framed_labels(row, cache), cache.load(row)
    assert labels.dtype == np.uint8 and labels.shape == scan.image.shape
    np.testing.assert_array_equal(labels > 0, scan.brain_mask)
    held = np.asarray(nib.as_closest_canonical(nib.load(row.brain_mask)).dataobj).T
    kept = held[held.any(axis=(1, 2))]
    z, y, x = (np.flatnonzero(kept.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    zf, yf, xf = (np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    np.testing.assert_array_equal(labels[np.ix_(zf, yf, xf)], kept[np.ix_(z, y, x)])


def test_labels_of_1_mm_voxels_are_not_mixed(tree: Path, cache: ScanCache, tmp_path: Path) -> None:
    row = rows_of(tree)[0]
    files = {}
    for column in ("image", "brain_mask"):
        image = nib.load(getattr(row, column))
        fine = np.asarray(image.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        affine = image.affine @ np.diag([0.5, 0.5, 0.5, 1])
        affine[:3, 3] -= image.affine[:3, :3].sum(axis=1) / 4  # the first voxel's centre moves by a quarter
        files[column] = str(tmp_path / f"{column}.nii.gz")
        nib.save(nib.Nifti1Image(fine, affine), files[column])
    fine = framed_labels(replace(row, **files), cache)
    coarse = framed_labels(row, cache)
    assert set(np.unique(fine)) == set(np.unique(coarse))
    for label in (51, 81, 100):
        assert np.count_nonzero(fine == label) == pytest.approx(np.count_nonzero(coarse == label), rel=0.1)


def test_a_slice_depends_on_its_index_alone(tree: Path, cache: ScanCache) -> None:
    rows = rows_of(tree)
    slices, again = RandomisedSlices(rows, cache), RandomisedSlices(rows, cache)
    count = int(slices.ends[-1])
    assert len(slices) == APPEARANCES * count and slices.rows == rows
    for index in (5, count + 5, len(slices) - 1):
        np.testing.assert_array_equal(slices[index], again[index])
        assert slices[index].shape == (96, 96) and slices[index].dtype == np.float32
    np.testing.assert_array_equal(slices[5] > 0, (slices[5] > 0) & (slices.labels[0][5] > 0))
    assert not np.array_equal(slices[5], slices[count + 5])  # the same anatomy in another contrast
    second = int(slices.ends[0])
    assert (slices[second + 3][slices.labels[1][3] == 0] == 0).all() and slices[second + 3].any()
    for index in (-1, len(slices)):
        with pytest.raises(IndexError):
            slices[index]


def test_real_intensities_play_no_part(tree: Path, tmp_path: Path) -> None:
    other = write_ixi(tmp_path / "other", intensities=1)
    first, second = (RandomisedSlices(rows_of(root), ScanCache(tmp_path / "cache")) for root in (tree, other))
    images = [ScanCache(tmp_path / "cache").load(rows_of(root)[0]).image for root in (tree, other)]
    assert not np.array_equal(*images)
    for index in (4, 40, 400_000):
        np.testing.assert_array_equal(first[index], second[index])


def test_the_figure_shows_one_slice_in_six_appearances(tree: Path, cache: ScanCache) -> None:
    row = rows_of(tree)[0]
    scan, slices = cache.load(row), RandomisedSlices([row], cache)
    labels, middle = slices.labels[0], len(slices.labels[0]) // 2
    drawn = [slices[number * len(labels) + middle] for number in range(6)]
    figure = show_randomised(scan.image[middle], labels[middle], drawn, scan.contrast)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    brain = shown[1] > 0
    assert len(shown) == 8 and brain.any()
    assert all((plane[~brain] == 0).all() for plane in shown)
    assert len({plane.tobytes() for plane in shown}) == 8


def test_what_has_no_label_map_is_refused(tree: Path, cache: ScanCache, tmp_path: Path) -> None:
    row = rows_of(tree)[0]
    with pytest.raises(InputError, match="no label map"):
        RandomisedSlices([replace(row, brain_mask="")], cache)
    with pytest.raises(ValueError, match="has a lesion"):
        RandomisedSlices([replace(row, lesion_mask="insert:tumour:1")], cache)
    labels = nib.load(row.brain_mask)
    for name, factor, message in (
        ("mask", 0, "a mask of one label"),
        ("large", 400, "no whole numbers from 0 to 255"),
        ("half", 0.5, "neither a mask nor labels nor probabilities"),
    ):
        data = np.asarray(labels.dataobj).astype(np.float32)
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(data * factor if factor else (data > 0).astype(np.float32), labels.affine), path)
        with pytest.raises(InputError, match=message):
            framed_labels(replace(row, brain_mask=str(path)), cache)


def test_the_recipe_trains_on_training_subjects_alone(tree: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PDDM_DATA", str(tree))
    recipe = RECIPES["domain-randomised"]
    assert recipe == replace(RECIPES["real"], slices=RandomisedSlices)  # steps, batch, network: the same
    made = []

    def noted(rows: list[ManifestRow], cache: ScanCache) -> RandomisedSlices:
        made.append([row.subject for row in rows])
        return RandomisedSlices(rows, cache)

    noted.__name__ = "RandomisedSlices"
    monkeypatch.setitem(RECIPES, "small", Recipe("real", changes=SMALL | {"extra_test_sets": []}, slices=noted))
    folder = train_recipe("small", tmp_path / "runs")
    assert read_training(folder)["step"] == 3
    assert made == [["IXI000-HH", "IXI001-HH"], ["IXI002-HH"]]
    held_out = {row.subject for row in cohort_rows(small_settings()) if row.split != "train"}
    assert not held_out & set(made[0])
    assert train_recipe("small", tmp_path / "runs") == folder
    monkeypatch.setitem(RECIPES, "tuned", Recipe("real", changes=SMALL | {"extra_test_sets": []}, start="small"))
    assert train_recipe("tuned", tmp_path / "runs") != folder


def test_interrupted_training_resumes_to_the_same_weights(tree: Path, cache: ScanCache, tmp_path: Path) -> None:
    def trainer(name: str):
        train, val = (RandomisedSlices(rows_of(tree, split), cache) for split in ("train", "val"))
        return make_method("pddpm", small_settings()).trainer(train, val, tmp_path / name)

    whole, stopped = trainer("whole").run(), trainer("stopped")
    original = stopped.step

    def stop(step: int) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return original(step)

    stopped.step = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    first, second = load_file(whole / WEIGHTS), load_file(trainer("stopped").run() / WEIGHTS)
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    histories = [read_training(tmp_path / name)["history"] for name in ("whole", "stopped")]
    assert histories[0] == histories[1] and histories[0][0]["validation_loss"] > 0
