"""Manifests of archives, from small real NIfTI files in the archives' own layouts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pddm_utils.__main__ import main
from pddm_utils.benchmark.models import model_folder
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.manifest import read_manifest, write_manifest
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.sources.authors import authors_rows
from pddm_utils.data.sources.brats import brats_rows
from pddm_utils.data.sources.common import hashed_split
from pddm_utils.data.sources.decathlon import decathlon_rows
from pddm_utils.data.sources.folder import folder_rows
from pddm_utils.data.sources.ixi_archive import ixi_archive_rows
from pddm_utils.data.sources.mslub_archive import VALIDATION, mslub_archive_rows
from pddm_utils.data.sources.registry import make_manifest
from pddm_utils.data.sources.simulated import simulated_rows

SHAPE = (40, 44, 30)
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])


@pytest.fixture
def brain() -> np.ndarray:
    """`(40, 44, 30)` skull-stripped ellipsoid of tissue at 4 mm."""
    x, y, z = np.mgrid[-20:20, -22:22, -15:15] + 0.5
    inside = (x / 16) ** 2 + (y / 19) ** 2 + (z / 12) ** 2 < 1
    return np.where(inside, np.random.default_rng(0).uniform(100, 200, SHAPE), 0).astype(np.float32)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write a NIfTI file below the test's folder."""

    def write(name: str, data: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data.astype(np.uint8) if data.dtype == bool else data, AFFINE), path)
        return path

    return write


def labels(*values: int) -> np.ndarray:
    """A label map with a block for each value, inside the ellipsoid."""
    data = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        data[16:24, 18:26, 10 + 3 * place : 13 + 3 * place] = value
    return data


def test_ixi_archive(tmp_path: Path, put, brain) -> None:
    subjects = ["IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873"]
    for subject in subjects:
        put(f"ixi-t2/{subject}-T2.nii.gz", brain)
        put(f"masks/{subject}_mask.nii.gz", brain > 0)
    (tmp_path / "ixi-t2" / "._IXI002-Guys-0828-T2.nii.gz").write_bytes(b"junk of another system")
    rows = ixi_archive_rows(tmp_path / "ixi-t2", "T2", masks=tmp_path / "masks")
    assert {row.subject for row in rows} == set(subjects)
    assert all(row.dataset == "ixi-t2-healthy" and row.split == hashed_split(row.subject, 0.1, 0.25) for row in rows)
    assert prepare_scan(rows[0]).brain_mask.any()
    with pytest.warns(UserWarning, match="whole heads"):
        assert all(not row.brain_mask for row in ixi_archive_rows(tmp_path / "ixi-t2", "T2"))
    (tmp_path / "masks" / "IXI012-HH-1211_mask.nii.gz").unlink()
    with pytest.raises(InputError, match="0 masks of IXI012-HH-1211; put one there"):
        ixi_archive_rows(tmp_path / "ixi-t2", "T2", masks=tmp_path / "masks")
    with pytest.raises(InputError, match="no scan found; expected files such as IXI002-Guys-0828-T1.nii.gz"):
        ixi_archive_rows(tmp_path / "ixi-t2", "T1")
    with pytest.raises(InputError, match="IXI has T1 and T2"):
        ixi_archive_rows(tmp_path / "ixi-t2", "FLAIR")


def write_splits(folder: Path, **tables: list[str]) -> Path:
    """The authors' split files: a nameless index column, names of T1 scans, further columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in tables.items():
        area = {"IXI": "Train/ixi", "Brats21": "Test/Brats21", "MSLUB": "Test/MSLUB"}[name.split("_")[0]]
        lines = [",img_name,age,label,img_path,mask_path,seg_path,Agegroup"]
        for index, image in enumerate(images):
            subject = image.removesuffix("_t1.nii.gz")
            seg = "" if "ixi" in area else f"/{area}/seg/{subject}_seg.nii.gz"
            lines.append(
                f"{index},{image},40.5,0,/{area}/t1/{subject}_t1.nii.gz,/{area}/mask/{subject}_mask.nii.gz,{seg},1.0"
            )
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_ixi_subjects_in_train_and_test_are_tested_on_and_never_trained_on(tmp_path: Path, put, brain) -> None:
    for number in range(1, 6):
        put(f"ixi-t1/IXI00{number}-HH-100{number}-T1.nii.gz", brain)
    name = "IXI00{0}-HH-100{0}_t1.nii.gz".format
    splits = write_splits(
        tmp_path / "splits",
        IXI_train_fold2=[name(1), name(2)],
        IXI_val_fold2=[name(3)],
        IXI_test=[name(2), name(4), name(9)],
    )
    with pytest.warns(UserWarning) as told:
        rows = ixi_archive_rows(tmp_path / "ixi-t1", "T1", splits, fold=2)
    assert {row.subject[:6]: row.split for row in rows} == {
        "IXI001": "train",
        "IXI003": "val",
        "IXI002": "test",
        "IXI004": "test",
    }
    assert all(row.brain_mask == "extract" for row in rows)
    messages = " ".join(str(warning.message) for warning in told)
    assert "1 subject(s) of IXI stand in more than one split" in messages and "IXI002-HH-1002" in messages
    assert "no T1 scan of 1 subject(s) of the split files" in messages
    with pytest.raises(InputError, match="IXI_train_fold0.csv: cannot be read"):
        ixi_archive_rows(tmp_path / "ixi-t1", "T1", splits)


def test_brats_patients_get_one_lesion_mask(tmp_path: Path, put, brain) -> None:
    for number in range(4):
        name = f"BraTS2021_0000{number}"
        for contrast in ("t1", "t1ce", "t2", "flair"):
            put(f"brats21/{name}/{name}_{contrast}.nii.gz", brain)
        if number < 3:
            put(f"brats21/{name}/{name}_seg.nii.gz", labels(1, 2, 4))
    with pytest.warns(UserWarning, match=r"1 patient\(s\) without a label map"):
        rows = brats_rows(tmp_path / "brats21", "T2", tmp_path / "derived")
    assert [Path(row.image).name for row in rows] == [f"BraTS2021_0000{number}_t2.nii.gz" for number in range(3)]
    assert {row.split for row in rows} <= {"val", "test"} and {row.dataset for row in rows} == {"brats21-t2"}
    mask = np.asarray(nib.load(rows[0].lesion_mask).dataobj)
    np.testing.assert_array_equal(mask, labels(1, 2, 4) > 0)
    scan = prepare_scan(rows[0])
    assert scan.lesion_mask.sum() * 8 == pytest.approx(mask.sum() * 64, rel=0.1)
    put("brats21/BraTS2021_00003/BraTS2021_00003_seg.nii.gz", labels(3))
    with pytest.raises(InputError, match="00003_seg.nii.gz: labels 3; expected 1, 2, 4"):
        brats_rows(tmp_path / "brats21", "T2", tmp_path / "derived")


def test_corrected_labels_are_used_and_older_manifests_keep_their_masks(tmp_path: Path, put, brain) -> None:
    put("brats21/BraTS2021_00000/BraTS2021_00000_t2.nii.gz", brain)
    masks = []
    for corrected in (labels(1), labels(0, 2), labels(1)):
        put("brats21/BraTS2021_00000/BraTS2021_00000_seg.nii.gz", corrected)
        (row,) = brats_rows(tmp_path / "brats21", "T2", tmp_path / "derived")
        np.testing.assert_array_equal(np.asarray(nib.load(row.lesion_mask).dataobj), corrected > 0)
        masks.append(row.lesion_mask)
    assert masks[0] == masks[2] != masks[1] and all(Path(mask).is_file() for mask in masks)
    put("brats21/BraTS2021_00000/BraTS2021_00000_seg.nii.gz", labels())
    (row,) = brats_rows(tmp_path / "brats21", "T2", tmp_path / "derived")
    assert row.lesion_mask == ""


def test_decathlon_contrast_is_taken_out_by_name(tmp_path: Path, put, brain) -> None:
    root = tmp_path / "decathlon" / "Task01_BrainTumour"
    cases = []
    for number in (1, 7):
        name = f"BRATS_00{number}.nii.gz"
        put(f"decathlon/Task01_BrainTumour/imagesTr/{name}", np.stack([brain * (k + 1) for k in range(4)], axis=-1))
        put(f"decathlon/Task01_BrainTumour/labelsTr/{name}", labels(1, 2, 3))
        cases.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "training": cases,
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    for contrast, factor in (("FLAIR", 1), ("T1", 2), ("T2", 4)):
        rows = decathlon_rows(tmp_path / "decathlon", contrast, tmp_path / "derived")
        assert {row.subject for row in rows} == {"BRATS_001", "BRATS_007"}
        np.testing.assert_allclose(nib.load(rows[0].image).get_fdata(), brain * factor, rtol=1e-6)
        assert prepare_scan(rows[0]).lesion_mask.any()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "derived").iterdir()}
    assert len(before) == 8, "three contrasts and a mask of two patients"
    decathlon_rows(root, "T2", tmp_path / "derived")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "derived").iterdir()} == before
    put("decathlon/Task01_BrainTumour/imagesTr/BRATS_001.nii.gz", brain)
    with pytest.raises(InputError, match="BRATS_001.nii.gz: image of shape .* without channel 3"):
        decathlon_rows(root, "T2", tmp_path / "elsewhere")
    (root / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="dataset.json: no description of Task01_BrainTumour"):
        decathlon_rows(root, "T2", tmp_path / "derived")


@pytest.fixture
def decathlon(tmp_path: Path, put, brain) -> Callable[[object], list]:
    """List one patient of the Decathlon after writing an entry of its `dataset.json`."""
    put("decathlon/imagesTr/BRATS_001.nii.gz", np.stack([brain] * 4, axis=-1))
    put("decathlon/labelsTr/BRATS_001.nii.gz", labels(1))

    def rows(entry: object) -> list:
        description = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "training": [entry]}
        (tmp_path / "decathlon" / "dataset.json").write_text(json.dumps(description), encoding="utf-8-sig")
        return decathlon_rows(tmp_path / "decathlon", "T2", tmp_path / "derived")

    return rows


def test_decathlon_replaced_volume_is_used(put, brain, decathlon) -> None:
    entry = {"image": ["./imagesTr/BRATS_001.nii.gz"], "label": "./labelsTr/BRATS_001.nii.gz"}
    (first,) = decathlon(entry)
    put("decathlon/imagesTr/BRATS_001.nii.gz", np.stack([brain * 3] * 4, axis=-1))
    (second,) = decathlon(entry)
    np.testing.assert_allclose(nib.load(second.image).get_fdata(), brain * 3, rtol=1e-6)
    np.testing.assert_allclose(nib.load(first.image).get_fdata(), brain, rtol=1e-6)


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "./imagesTr/BRATS_001.nii.gz"},
        "./imagesTr/BRATS_001.nii.gz",
        {"image": ["a.nii.gz", "b.nii.gz"], "label": "c.nii.gz"},
        {"image": 3, "label": "c.nii.gz"},
        {"image": "", "label": "c.nii.gz"},
        {"image": "a\0.nii.gz", "label": "c.nii.gz"},
        None,
    ],
)
def test_decathlon_entries_of_another_form_are_named(decathlon, entry: object) -> None:
    with pytest.raises(
        InputError, match=r"dataset.json: the entry .* of training has no (image|label) that is one path"
    ):
        decathlon(entry)


def test_decathlon_paths_from_elsewhere_are_named(decathlon) -> None:
    with pytest.raises(InputError, match=r"dataset.json: an entry names /nowhere/B.nii.gz, which is not there"):
        decathlon({"image": "/nowhere/B.nii.gz", "label": "./labelsTr/B.nii.gz"})


@pytest.mark.parametrize("prefixed", [True, False])
def test_mslub_archive_and_its_coregistered_copy(tmp_path: Path, put, brain, prefixed: bool) -> None:
    for patient in ("patient01", "patient07"):
        prefix = f"{patient}_" if prefixed else ""
        for name in ("T1W", "T1WKS", "T2W", "FLAIR"):
            put(f"data/{patient}/{prefix}{name}.nii.gz", brain)
            put(f"data/{patient}/raw/{prefix}{name}.nii.gz", brain[:, :, :20])
        put(f"data/{patient}/{prefix}brainmask.nii.gz", brain > 0)
        put(f"data/{patient}/{prefix}consensus_gt.nii.gz", labels(1))
    rows = mslub_archive_rows(tmp_path / "data", "T2")
    assert [(row.subject, row.split) for row in rows] == [("mslub-01", "val"), ("mslub-07", "test")]
    assert all(Path(row.image).name.endswith("T2W.nii.gz") and "raw" not in row.image for row in rows)
    scan = prepare_scan(rows[0])
    assert scan.lesion_mask.sum() * 8 == pytest.approx((labels(1) > 0).sum() * 64, rel=0.1)
    assert len(VALIDATION) == 10 and "07" not in VALIDATION and "19" not in VALIDATION


def test_mslub_copy_in_mni_space(tmp_path: Path, put, brain) -> None:
    names = "N4_noneck_reduced_winsor_regtoFLAIR"
    for contrast in ("T1", "T1POST", "T2", "FLAIR"):
        put(f"MNI/patient19/{contrast}_{names}_brain_N4_regtoMNI.nii.gz", brain)
    put(f"MNI/patient19/GOLD_STANDARD_{names}_regtoMNI.nii.gz", labels(1))
    (row,) = mslub_archive_rows(tmp_path / "MNI", "T1")
    assert Path(row.image).name.startswith("T1_") and not row.brain_mask and prepare_scan(row).lesion_mask.any()
    (tmp_path / "MNI" / "patient20").mkdir()
    with pytest.raises(InputError, match="mslub-20: .*does not exist"):
        mslub_archive_rows(tmp_path / "MNI", "T1")


def test_authors_folder_is_read_as_it_is(tmp_path: Path, put, brain) -> None:
    root = tmp_path / "Data"
    write_splits(
        root / "splits",
        IXI_train_fold0=["IXI001-HH-1001_t1.nii.gz", "IXI002-HH-1002_t1.nii.gz"],
        IXI_val_fold0=["IXI003-HH-1003_t1.nii.gz"],
        IXI_test=["IXI002-HH-1002_t1.nii.gz"],
        Brats21_val=["BraTS2021_01122"],
        Brats21_test=["BraTS2021_00000"],
        MSLUB_val=["patient29"],
        MSLUB_test=["patient07"],
    )
    for subject in ("IXI001-HH-1001", "IXI002-HH-1002"):
        put(f"Data/Train/ixi/t2/{subject}_t2.nii.gz", brain)
        put(f"Data/Train/ixi/mask/{subject}_mask.nii.gz", brain > 0)
    for area, subjects, values in (
        ("Brats21", ("BraTS2021_01122", "BraTS2021_00000"), (1, 2, 4)),
        ("MSLUB", ("patient29", "patient07"), (1,)),
    ):
        for subject in subjects:
            put(f"Data/Test/{area}/t2/{subject}_t2.nii.gz", brain)
            put(f"Data/Test/{area}/mask/{subject}_mask.nii.gz", brain > 0)
            put(f"Data/Test/{area}/seg/{subject}_seg.nii.gz", labels(*values))
    with pytest.warns(UserWarning) as told:
        rows = authors_rows(tmp_path, "T2", tmp_path / "derived")
    assert Counter((row.dataset, row.split) for row in rows) == {
        ("ixi-t2-healthy", "train"): 1,
        ("ixi-t2-healthy", "test"): 1,
        ("brats21-t2", "val"): 1,
        ("brats21-t2", "test"): 1,
        ("mslub-t2", "val"): 1,
        ("mslub-t2", "test"): 1,
    }
    messages = " ".join(str(warning.message) for warning in told)
    assert "IXI002-HH-1002" in messages and "1 scan(s) of the split files are not there in T2: IXI003" in messages
    for row in rows:
        scan = prepare_scan(row)
        assert scan.lesion_mask.any() != row.dataset.endswith("healthy")
    with pytest.raises(InputError, match="IXI_train_fold4.csv"):
        authors_rows(tmp_path, "T2", tmp_path / "derived", fold=4)


def test_plain_folder_with_a_table(tmp_path: Path, put, brain) -> None:
    put("mine/scan one.nii.gz", brain)
    put("mine/two.nii", brain)
    put("mine/lesion.nii.gz", labels(1))
    table = tmp_path / "mine" / "scans.csv"
    table.write_text("image,lesion_mask,split,contrast\nscan one.nii.gz,,val,T2\ntwo.nii,lesion.nii.gz,,\nx.nii,,,T1\n")
    rows = folder_rows(tmp_path / "mine", "T2")
    assert [(row.subject, row.split, row.dataset) for row in rows] == [
        ("scan one", "val", "mine-t2-healthy"),
        ("two", "test", "mine-t2"),
    ]
    assert prepare_scan(rows[1]).lesion_mask.any()
    table.write_text("image,split\nnone.nii,test\n")
    with pytest.raises(InputError, match="none.nii does not exist"):
        folder_rows(tmp_path / "mine", "T2")
    table.write_text("picture\nnone.nii\n")
    with pytest.raises(InputError, match=r"scans.csv: missing column\(s\) image"):
        folder_rows(tmp_path / "mine", "T2")


def test_contrasts_and_splits_of_a_table_may_be_spelled_as_elsewhere(tmp_path: Path, put, brain) -> None:
    for name in "abc":
        put(f"mine/{name}.nii.gz", brain)
    table = tmp_path / "mine" / "scans.csv"
    table.write_text("Image;Contrast;Split\na.nii.gz;T2;Test\nb.nii.gz;t2;\n;;\nc.nii.gz;T2w;TRAIN\n")
    assert [row.split for row in folder_rows(tmp_path / "mine", "T2")] == ["train", "test", "test"]
    table.write_text("image,contrast\na.nii.gz,T2\nb.nii.gz,T2-weighted\n")
    with pytest.raises(InputError, match="scans.csv: b.nii.gz: unknown contrast 'T2-weighted'; use one of"):
        folder_rows(tmp_path / "mine", "T2")


def test_studies_in_folders_of_one_name_are_told_apart(tmp_path: Path, put, brain) -> None:
    out = tmp_path / "scans.csv"
    for study in ("first", "second"):
        put(f"{study}/rawdata/sub-01/anat/sub-01_T2w.nii.gz", brain)
        put(f"{study}/mri/sub-02/anat/sub-02_T2w.nii.gz", brain)
    make_manifest("bids", tmp_path / "first" / "rawdata", out)
    with pytest.warns(UserWarning, match="such as sub-01 in second-t2 and first-t2; they count as the same people"):
        make_manifest("bids", tmp_path / "second" / "rawdata", out, add=True)
    make_manifest("bids", tmp_path / "second" / "rawdata", out, add=True, other_people=True)
    assert [(row.subject, row.dataset) for row in read_manifest(out)] == [
        ("sub-01", "first-t2"),
        ("second-sub-01", "second-t2"),
    ]
    make_manifest("bids", tmp_path / "first" / "mri", out, add=True)
    before = out.read_text()
    with pytest.raises(
        InputError, match="the data set mri-t2 is there already with 1 scan.*; rename one of the folders"
    ):
        make_manifest("bids", tmp_path / "second" / "mri", out, add=True)
    assert out.read_text() == before


def test_manifest_command_writes_what_the_package_reads(tmp_path: Path, put, brain, capsys) -> None:
    put("brats21/BraTS2021_00000/BraTS2021_00000_t2.nii.gz", brain)
    put("brats21/BraTS2021_00000/BraTS2021_00000_seg.nii.gz", labels(2))
    out = tmp_path / "tables" / "brats.csv"
    assert main(["manifest", "brats21", str(tmp_path / "brats21"), "--out", str(out)]) == 0
    assert "1 test  brats21-t2" in capsys.readouterr().out
    (row,) = read_manifest(out)
    assert Path(row.lesion_mask).parent == tmp_path / "tables" / "brats21-derived"
    put("mine/two.nii", brain)
    (tmp_path / "mine" / "scans.csv").write_text("image,split\ntwo.nii,train\n")
    for _ in range(2):
        assert main(["manifest", "folder", str(tmp_path / "mine"), "--out", str(out), "--add"]) == 0
    assert [other.dataset for other in read_manifest(out)] == ["brats21-t2", "mine-t2-healthy"]
    assert main(["manifest", "brats21", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert main(["manifest", "brats21", str(tmp_path / "brats21"), "--out", str(out), "--masks", "x"]) == 2
    assert "--masks: the source brats21 takes none" in capsys.readouterr().err


def test_profile_on_a_manifest(tmp_path: Path) -> None:
    table = tmp_path / "scans.csv"
    write_manifest(simulated_rows("T2", train=4, val_healthy=3, val_lesioned=2, test=3), table)
    choices = {
        "cohort": "manifest",
        "manifest": str(table),
        "train_subjects": 3,
        "val_subjects": 9,
        "val_lesion_subjects": 1,
        "test_subjects": 2,
    }
    settings = load_settings("smoke", choices)
    counts = Counter((row.split, row.dataset.rsplit("-")[-1]) for row in cohort_rows(settings))
    assert counts == {
        ("train", "healthy"): 3,
        ("val", "healthy"): 3,
        ("val", "tumour"): 1,
        ("val", "ms"): 1,
        ("test", "healthy"): 2,
        ("test", "tumour"): 2,
        ("test", "ms"): 2,
    }
    folder = model_folder(settings, "ddpm", 0, Path("runs"))
    text = table.read_text()
    table.write_text(text + "extra,simulated:9,,,train,simulated-t2-healthy,T2\n")
    assert model_folder(settings, "ddpm", 0, Path("runs")) == folder, "one more than train_subjects: not learnt from"
    (first, *_) = (row for row in cohort_rows(settings) if row.split == "train")
    table.write_text(text.replace(f"{first.image},", "simulated:9,"))
    assert model_folder(settings, "ddpm", 0, Path("runs")) != folder, "other data, another model"
    table.write_text(text)
    with pytest.raises(InputError, match="no healthy FLAIR scan with split train"):
        cohort_rows(load_settings("smoke", choices | {"contrast": "FLAIR"}))
    with pytest.raises(InputError, match="the cohort 'manifest' needs a CSV, others take none"):
        load_settings("smoke", {"cohort": "manifest"})
    with pytest.raises(InputError, match="none.csv"):
        cohort_rows(load_settings("smoke", choices | {"manifest": "none.csv"}))


def test_a_subjects_split_does_not_depend_on_who_else_is_there() -> None:
    splits = Counter(hashed_split(f"IXI{number:03d}-HH-{number:04d}", 0.1, 0.25) for number in range(2000))
    assert splits["test"] / 2000 == pytest.approx(0.25, abs=0.03)
    assert splits["val"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert {hashed_split(f"s{number}", 0.2, 0.8) for number in range(200)} == {"val", "test"}
