"""Lesions with real shapes, foreign patches and mass effect: who lends, where they come to lie, what they change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import LESION_KINDS, load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import ManifestRow, inserted, read_manifest, write_manifest
from pddm_utils.data.prepare import ScanCache, data_digest, load_scan, load_twin, prepare_scan
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.data.simulation.anatomy import Anatomy, simulate_anatomy
from pddm_utils.data.simulation.foreign_tissue import insert_foreign_patch, insert_mass_effect
from pddm_utils.data.simulation.mass_effect import noise_level
from pddm_utils.data.simulation.shaped_lesions import SHAPED, insert_shaped_lesion, mask_in_brain
from pddm_utils.data.sources import data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.data.sources.lesion_donors import (
    COLUMNS,
    DONOR_KINDS,
    DONOR_TABLE,
    donor_files,
)
from pddm_utils.data.sources.simulated import simulated_rows
from pddm_utils.data.sources.soop_table import split_table
from pddm_utils.data.text_tables import read_table
from pddm_utils.data.volume import read_volume
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.postprocess import score_map

MNI = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])  # 182 x 218 x 182 voxels of 1 mm
SIZES = {"small": (0.5, 3.0), "medium": (3.0, 15.0), "large": (15.0, 80.0)}  # ml of a stroke, from and below
LEAST_MS_ML = 0.8  # of all lesions of a patient with multiple sclerosis
real_masks = pytest.mark.skipif(
    data_root() is None or not (data_root() / "mslub-masks").is_dir(), reason="PDDM_DATA holds no lesion masks"
)


@cache
def healthy(contrast: str = "T2", index: int = 900_000) -> Anatomy:
    return simulate_anatomy(index, contrast)


@cache
def donor(centre: tuple[float, float, float] = (-28.0, -20.0, 25.0), radius: float = 14.0) -> nib.Nifti1Image:
    """A ball in MNI space, centre and radius in mm; the default lies in the left hemisphere's white matter."""
    at = np.linalg.inv(MNI) @ (*centre, 1)
    x, y, z = np.ogrid[:182, :218, :182]
    ball = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2 < radius**2
    return nib.Nifti1Image(ball.astype(np.uint8), MNI)


def insert(contrast: str, kind: str, seed: int, mask: nib.Nifti1Image | None = None) -> tuple[np.ndarray, np.ndarray]:
    a = healthy(contrast)
    rng = np.random.default_rng(seed)
    return insert_shaped_lesion(a.image, a.brain_mask, a.tissues, contrast, kind, mask or donor(), rng)


# --- Shape and place ---
def test_a_mask_comes_to_lie_where_it_was_in_the_other_brain():
    brain = healthy().brain_mask
    z, y, x = (np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    whole = nib.Nifti1Image(np.ones((182, 218, 182), np.uint8), MNI)
    assert mask_in_brain(whole, brain)[brain].all(), "MNI space holds the whole brain"
    found = mask_in_brain(donor((-40.0, -60.0, 40.0), 6.0), brain)
    centre = np.argwhere(found).mean(axis=0)
    # (x, y) as shares of the width and length that go from -72.5 to 72.5 and from -107.5 to 73.5 mm; z from the top.
    assert (centre[2] - x[0] + 0.5) / x.size == pytest.approx((72.5 - 40) / 145, abs=0.02)
    assert (centre[1] - y[0] + 0.5) / y.size == pytest.approx((107.5 - 60) / 181, abs=0.02)
    scale = np.mean([145 / x.size, 181 / y.size])
    assert (z[-1] - centre[0] + 0.5) * scale == pytest.approx(82.5 - 40, abs=2)
    moved = np.argwhere(mask_in_brain(donor((-40.0, -60.0, 40.0), 6.0), brain, np.array([1.0, -2.0, 3.0]))).mean(axis=0)
    np.testing.assert_allclose(moved - centre, [1, -2, 3], atol=0.4)


def test_the_order_of_a_masks_voxels_does_not_matter():
    turned = MNI @ np.array([[-1.0, 0, 0, 181], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    other = nib.Nifti1Image(np.asarray(donor().dataobj)[::-1], turned)
    brain = healthy().brain_mask
    np.testing.assert_array_equal(mask_in_brain(other, brain), mask_in_brain(donor(), brain))


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_same_seed_same_lesion_inside_the_brain(contrast, kind):
    anatomy = healthy(contrast)
    image, mask = insert(contrast, kind, 3)
    again = insert(contrast, kind, 3)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(mask, again[1])
    assert mask.dtype == bool and image.dtype == np.float32
    assert mask.any() and not mask[~anatomy.brain_mask].any()
    assert np.isfinite(image).all() and image.min() >= 0
    np.testing.assert_array_equal(image[~anatomy.brain_mask], anatomy.image[~anatomy.brain_mask])
    assert (insert(contrast, kind, 4)[0] != image).any()


def test_the_shape_is_that_of_the_mask():
    anatomy = healthy()
    _, mask = insert("T2", "real-shape", 0)
    whole = mask_in_brain(donor(), anatomy.brain_mask)
    assert (mask & whole).sum() / np.sqrt(mask.sum() * whole.sum()) > 0.9
    # A mask in the ventricles is moved out of the fluid, by at most four voxels.
    fluid = donor((-12.0, -8.0, 20.0), 7.0)
    _, moved = insert("T2", "real-shape", 0, fluid)
    before = mask_in_brain(fluid, anatomy.brain_mask)
    assert anatomy.tissues.csf[moved].max() < 0.5 <= anatomy.tissues.csf[before].max()
    assert not (moved & (ndimage.distance_transform_edt(~before) > 4 * np.sqrt(3) + 1)).any()


def test_contrast_reaches_from_iso_intense_to_plain_and_has_the_right_sign():
    anatomy = healthy("T1")
    inside, changes = ndimage.binary_erosion(mask_in_brain(donor(), anatomy.brain_mask), iterations=2), []
    for seed in range(8):
        image, mask = insert("T1", "real-shape", seed)
        unit = np.median(anatomy.image[anatomy.tissues.white > 0.9]) - np.median(
            anatomy.image[anatomy.tissues.csf > 0.9]
        )
        changes.append(float((image - anatomy.image)[inside & mask].mean() / unit))
    assert min(changes) > -0.9 and max(changes) < 0.1, "dark on T1, or as bright as the tissue"
    assert max(changes) > -0.12 and min(changes) < -0.3, changes


def test_texture_of_the_scan_goes_on_inside():
    anatomy = healthy("T2")

    def fine(image: np.ndarray, where: np.ndarray) -> float:
        return float((image - ndimage.gaussian_filter(image, 2.0))[where].std())

    white = ndimage.binary_erosion(anatomy.tissues.white > 0.9, iterations=2)
    for seed in range(4):
        image, mask = insert("T2", "real-shape", seed)
        assert fine(image, ndimage.binary_erosion(mask, iterations=2)) > 1.2 * fine(anatomy.image, white)


def test_plaques_have_intensities_of_their_own():
    two = nib.Nifti1Image(
        np.asarray(donor((-28.0, -20.0, 25.0), 8.0).dataobj) | np.asarray(donor((28.0, -20.0, 25.0), 8.0).dataobj), MNI
    )
    anatomy = healthy("T2")
    image, mask = insert("T2", "real-ms", 1, two)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    changes = ndimage.mean(image - anatomy.image, labels, range(1, count + 1))
    assert count >= 2 and np.ptp(changes) > 0.02


def test_brightness_alone_does_not_find_them():
    scores = []
    for number in range(4):
        anatomy = healthy("T2", 900_100 + number)
        rng = np.random.default_rng(number)
        image, mask = insert_shaped_lesion(
            anatomy.image, anatomy.brain_mask, anatomy.tissues, "T2", "real-shape", donor(), rng
        )
        scores.append(average_precision(score_map(image * anatomy.brain_mask, anatomy.brain_mask), mask))
    assert np.mean(scores) <= 0.2


def test_shapes_are_refused_where_they_cannot_go():
    a, rng = healthy(), np.random.default_rng(0)
    arguments = (a.image, a.brain_mask, a.tissues)
    with pytest.raises(ValueError, match="unknown contrast"):
        insert_shaped_lesion(*arguments, "PD", "real-shape", donor(), rng)
    with pytest.raises(ValueError, match="unknown lesion kind"):
        insert_shaped_lesion(*arguments, "T2", "stroke", donor(), rng)
    with pytest.raises(ValueError, match="nothing of the lesion mask"):
        insert_shaped_lesion(*arguments, "T2", "real-shape", donor((0.0, 90.0, 90.0), 4.0), rng)


# --- Anomalies of anatomy ---
def test_a_foreign_patch_has_the_others_detail_and_the_scans_border():
    a, b = healthy("T1"), healthy("T1", 900_001)
    rng = np.random.default_rng(5)
    image, patch = insert_foreign_patch(a.image, a.brain_mask, b.image * 3, b.brain_mask, rng)
    assert patch.any() and not patch[~a.brain_mask].any() and ndimage.label(patch)[1] == 1
    np.testing.assert_array_equal(image[~patch], a.image[~patch])
    again, _ = insert_foreign_patch(a.image, a.brain_mask, b.image * 3, b.brain_mask, np.random.default_rng(5))
    np.testing.assert_array_equal(image, again)
    inside = ndimage.binary_erosion(patch, iterations=2)
    assert np.corrcoef(image[inside], a.image[inside])[0, 1] < 0.8, "other anatomy"
    steps = np.abs(np.diff(image, axis=2))
    border = patch[..., 1:] ^ patch[..., :-1]
    assert steps[border].mean() < 1.5 * steps[inside[..., 1:] & inside[..., :-1]].mean(), "no seam"
    same, _ = insert_foreign_patch(a.image, a.brain_mask, np.ones_like(b.image), b.brain_mask, np.random.default_rng(5))
    # A donor without detail leaves the membrane over the border: within its values, smooth inside.
    assert same[patch].max() <= a.image[ndimage.binary_dilation(patch) & ~patch].max() + 1e-4
    assert np.abs(ndimage.laplace(same)[inside]).max() < 1e-4


def test_mass_effect_moves_tissue_and_paints_nothing():
    a = healthy("T1")
    image, mask = insert_mass_effect(a.image, a.brain_mask, a.tissues, np.random.default_rng(2))
    assert mask.any() and not mask[~a.brain_mask].any()
    changed = image != a.image
    assert changed[mask].mean() > 0.9
    spread = 4 * noise_level(a.image, a.brain_mask, a.tissues)
    assert image[mask].max() <= a.image[a.brain_mask].max() + spread, "no intensity that the scan does not have"
    assert abs(image[mask].mean() - a.image[mask].mean()) < 0.1 * a.image[mask].mean()


def test_a_brain_without_room_takes_no_patch():
    brain = np.zeros((12, 96, 96), dtype=bool)
    brain[4:6, 40:46, 40:46] = True
    with pytest.raises(ValueError, match="no room for a patch"):
        insert_foreign_patch(brain * 1.0, brain, brain * 1.0, brain, np.random.default_rng(0))


# --- Who lends to whom ---
def test_donors_of_validation_and_test_are_other_people_and_nobody_is_a_test_scan():
    records = read_table(DONOR_TABLE, COLUMNS)
    test = {record["subject"] for record in split_table() if record["split"] == "test"}
    for kind in DONOR_KINDS:
        lenders = {s: {r["subject"] for r in records if (r["kind"], r["split"]) == (kind, s)} for s in ("val", "test")}
        assert lenders["val"] and lenders["test"] and not lenders["val"] & lenders["test"]
        assert not (lenders["val"] | lenders["test"]) & (test | {"patient07", "patient19"})
    for record in records:
        if record["kind"] == "real-shape":
            least, most = SIZES[record["size"]]
            assert least <= float(record["ml"]) <= most


@pytest.fixture
def masks(tmp_path: Path, write_nifti) -> Path:
    """A folder of data with a ball as the lesion mask of every donor."""
    for record in read_table(DONOR_TABLE, COLUMNS):
        path = donor_path(tmp_path, record["kind"], record["subject"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def donor_path(root: Path, kind: str, subject: str) -> Path:
    if kind == "real-ms":
        return root / "mslub-masks" / f"{subject}_lesion_consensus.nii.gz"
    return root / "soop-flair" / "NIfTI" / f"bwsr{subject}_lesion.nii.gz"


def test_sizes_take_turns_and_a_smaller_set_is_a_part_of_a_larger_one(masks):
    size = {r["subject"]: r["size"] for r in read_table(DONOR_TABLE, COLUMNS) if r["kind"] == "real-shape"}
    files = donor_files(masks, "real-shape", "test", 9)
    sizes = [size[path.name.removeprefix("bwsr").removesuffix("_lesion.nii.gz")] for path in files]
    assert sizes[:3] * 3 == sizes and sorted(sizes[:3]) == sorted(SIZES)
    assert len(set(files)) == 9 and donor_files(masks, "real-shape", "test", 4) == files[:4]
    again = donor_files(masks, "real-ms", "val", 20)
    assert len(set(again)) < 20 and again[0] == again[len(set(again))], "the first lends again"


def test_a_simulated_cohort_takes_real_shapes_only_where_the_masks_are(masks, monkeypatch, tmp_path):
    plain = simulated_rows("T2", 1, 1, 2, 2)
    rows = simulated_rows("T2", 1, 1, 2, 2, ("tumour", "ms", "real-shape"), masks)
    assert [row for row in rows if (row.inserted_lesion or ("",))[0] != "real-shape"] == plain
    shaped = [row for row in rows if row not in plain]
    assert [row.subject for row in shaped] == [f"simulated-{n}" for n in (130_000, 130_001, 230_000, 230_001)]
    assert all(len(row.donors) == 1 for row in shaped)
    write_manifest(rows, tmp_path / "scans.csv")
    assert read_manifest(tmp_path / "scans.csv") == rows
    monkeypatch.delenv("PDDM_DATA", raising=False)
    with pytest.raises(InputError, match="PDDM_DATA: not set"):
        cohort_rows(load_settings("smoke", {"lesion_kinds": ["real-shape"]}))
    with pytest.raises(InputError, match="mass-effect lesions go into the cohort ixi only"):
        cohort_rows(load_settings("smoke", {"lesion_kinds": ["mass-effect"]}))
    shaped[0].donors and Path(shaped[0].donors[0]).unlink()
    with pytest.raises(InputError, match="no such lesion mask, and real-shape lesions take their shape from it"):
        simulated_rows("T2", 1, 1, 2, 2, ("real-shape",), masks)


def test_ixi_scans_take_every_family_and_a_second_lesion_where_asked(masks, write_nifti):
    folder = masks / "ixi-t1-2mm"
    names = {"train": ["IXI001"], "val": ["IXI002", "IXI003"], "test": ["IXI004", "IXI005"]}
    lines = [f"{name},{split}" for split, subjects in names.items() for name in subjects]
    for name in (name for subjects in names.values() for name in subjects):
        for path in (folder / "T1" / f"{name}_T1.nii.gz", folder / "DLMUSE" / f"{name}_T1_DLMUSE.nii.gz"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / "subjects.csv").write_text("subject,split\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = ixi_rows(masks, lesion_kinds=LESION_KINDS, val_lesion=3)
    lesioned = [row for row in rows if row.inserted_lesion]
    assert len(lesioned) == len(LESION_KINDS) * (3 + 2)
    assert len({row.inserted_lesion[1] for row in lesioned}) == len(lesioned), "every lesion has its own seed"
    again = [row for row in lesioned if row.dataset.endswith("-again")]
    assert {row.dataset for row in again} == {f"ixi-t1-{kind}-again" for kind in LESION_KINDS}
    assert {row.subject for row in again} == {"IXI002"}
    for row in (row for row in lesioned if row.inserted_lesion[0] == "foreign-patch"):
        other = Path(row.donors[0]).name.removesuffix("_T1.nii.gz")
        assert other != row.subject and other in names[row.split]
    assert [row for row in lesioned if row.inserted_lesion[0] == "tumour"][:2] == [
        row for row in ixi_rows(masks, lesion_kinds=("tumour",)) if row.split == "val" and row.inserted_lesion
    ]


# --- From a row to a scan ---
def test_a_row_names_its_donors_and_their_content_is_part_of_its_key(tmp_path):
    path = tmp_path / "mask.nii.gz"
    nib.save(donor(), path)
    row = ManifestRow("s", "simulated:230000", "", inserted("real-shape", 7, path), "test", "d", "T2")
    cache = ScanCache(tmp_path / "cache")
    scan, before = load_scan(row, cache), data_digest([row])
    assert scan.lesion_mask.any()
    nib.save(donor((28.0, -20.0, 25.0), 10.0), path)
    assert data_digest([row]) != before
    other = load_scan(row, ScanCache(tmp_path / "cache"))
    assert (other.lesion_mask != scan.lesion_mask).any()
    nib.save(nib.Nifti1Image(np.asarray(donor((0.0, 90.0, 90.0), 4.0).dataobj), MNI), path)
    with pytest.raises(InputError, match=r"mask.nii.gz: nothing of the lesion mask lies in the tissue"):
        prepare_scan(row)


@pytest.mark.parametrize("kind", ["tumour", "real-shape"])
def test_the_healthy_twin_is_the_scan_before_scaled_as_after(tmp_path, kind):
    path = tmp_path / "mask.nii.gz"
    nib.save(donor(), path)
    cell = inserted(kind, 7, *([path] if kind == "real-shape" else []))
    row = ManifestRow("s", "simulated:210000", "", cell, "test", "d", "T2")
    cache = ScanCache(tmp_path / "cache")
    scan, twin = load_scan(row, cache), load_twin(row, cache)
    alone = prepare_scan(row.without_lesion())
    far = scan.brain_mask & (ndimage.distance_transform_edt(~scan.lesion_mask) > 40)
    np.testing.assert_array_equal(twin[far], scan.image[far])
    free = (twin > 0) & (twin < 1) & (alone.image > 0) & (alone.image < 1)
    slope, start = np.polyfit(alone.image[free], twin[free], 1)
    np.testing.assert_allclose(twin[free], start + slope * alone.image[free], atol=1e-4)
    assert np.abs(twin - scan.image)[scan.lesion_mask].mean() > 0.01
    for entry in (tmp_path / "cache").glob("*/twin.npy"):  # an entry from before there were twins
        entry.unlink()
    np.testing.assert_array_equal(load_twin(row, cache), twin)
    with pytest.raises(InputError, match="no lesion was inserted, so there is no healthy twin"):
        load_twin(row.without_lesion(), cache)


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        ("insert:real-shape:7", r"real-shape takes 1 file\(s\), not 0"),
        ("insert:tumour:7:/a.nii.gz", r"tumour takes 0 file\(s\), not 1"),
        ("insert:foreign-patch:7:/a.nii.gz", r"foreign-patch takes 2 file\(s\), not 1"),
        ("insert:real-ms:7:/none/a.nii.gz", r"lesion_mask file /none/a.nii.gz does not exist"),
    ],
)
def test_a_row_with_the_wrong_files_is_refused(tmp_path, cell, wrong):
    row = ManifestRow("s", "simulated:1", "", cell, "test", "d", "T2")
    with pytest.raises(InputError, match=wrong):
        write_manifest([row], tmp_path / "scans.csv")


# --- On the real masks ---
def volume_ml(root: Path, kind: str, subject: str) -> float:
    volume = read_volume(donor_path(root, kind, subject))
    return float(np.count_nonzero(volume.data > 0) * abs(np.linalg.det(volume.affine[:3, :3])) / 1000)


def candidates(root: Path) -> Iterator[tuple[str, str, str, float]]:
    """Kind, size, subject and volume of every mask that may lend its shape, SOOP in its fixed order."""
    for subject in (record["subject"] for record in split_table() if record["split"] != "test"):
        ml = volume_ml(root, "real-shape", subject)
        yield from (("real-shape", size, subject, ml) for size, (least, most) in SIZES.items() if least <= ml < most)
    for path in sorted(donor_path(root, "real-ms", "*").parent.glob(donor_path(root, "real-ms", "*").name)):
        subject = path.name.removesuffix("_lesion_consensus.nii.gz")
        if (ml := volume_ml(root, "real-ms", subject)) >= LEAST_MS_ML:
            yield "real-ms", "any", subject, ml


@real_masks
def test_the_table_of_donors_is_that_of_the_masks():
    """Within a kind and size every third lends to validation insertions, the others to test insertions."""
    taken, records = {}, []
    for kind, size, subject, ml in candidates(data_root()):
        number = taken[kind, size] = taken.get((kind, size), -1) + 1
        split = "test" if number % 3 else "val"
        records.append(dict(zip(COLUMNS, (kind, split, size, subject, f"{ml:.2f}"), strict=True)))
    records.sort(key=lambda record: (record["kind"], record["split"], record["size"]))
    assert read_table(DONOR_TABLE, COLUMNS) == records


@real_masks
def test_real_scans_take_every_family(tmp_path):
    rows = ixi_rows(data_root(), train=0, val=1, test=0, lesion_kinds=LESION_KINDS)
    cache = ScanCache(tmp_path)
    for row in (row for row in rows if row.inserted_lesion):
        scan, twin = load_scan(row, cache), load_twin(row, cache)
        assert scan.lesion_mask.any() and not scan.lesion_mask[~scan.brain_mask].any()
        assert np.abs(scan.image - twin)[scan.lesion_mask].mean() > 0.005
        shown = (1 - scan.image) * scan.brain_mask
        assert average_precision(score_map(shown, scan.brain_mask), scan.lesion_mask) < 0.5
