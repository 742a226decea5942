"""The manifest: reading, writing and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import COLUMNS, ManifestRow, check_rows, read_manifest, write_manifest

ROW = ManifestRow(
    subject="s1",
    image="simulated:4",
    brain_mask="",
    lesion_mask="insert:tumour:9",
    split="test",
    dataset="simulated-t2-tumour",
    contrast="T2",
)


def test_row_knows_its_parts() -> None:
    assert ROW.scan_id == "simulated-t2-tumour/s1"
    assert ROW.simulated_index == 4
    assert ROW.inserted_lesion == ("tumour", 9)
    file_row = replace(ROW, image="/data/t1.nii.gz", lesion_mask="/data/lesion.nii.gz")
    assert file_row.simulated_index is None
    assert file_row.inserted_lesion is None


def test_round_trip_keeps_rows_and_order(tmp_path: Path) -> None:
    rows = [replace(ROW, subject=f"s{n}", image=f"simulated:{n}") for n in (3, 1, 2)]
    write_manifest(rows, tmp_path / "new" / "scans.csv")
    assert read_manifest(tmp_path / "new" / "scans.csv") == rows


def test_relative_paths_start_at_the_manifest_and_move_with_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "t1.nii.gz").touch()
    (first / "mask.nii.gz").touch()
    row = replace(ROW, image=str(first / "t1.nii.gz"), brain_mask=str(first / "mask.nii.gz"), lesion_mask="")
    write_manifest([row], first / "scans.csv")
    assert read_manifest(first / "scans.csv") == [row]
    first.rename(second)
    (moved,) = read_manifest(second / "scans.csv")
    assert moved.image == str(second / "t1.nii.gz")
    assert moved.brain_mask == str(second / "mask.nii.gz")


def test_spreadsheet_exports_are_read(tmp_path: Path) -> None:
    """A byte order mark, spaces around cells, other column order and further columns do no harm."""
    path = tmp_path / "scans.csv"
    path.write_text(
        "\ufeffimage,subject,split,dataset,contrast,brain_mask,lesion_mask,age\n"
        "simulated:1, s1 ,train,simulated-t1-healthy,T1,,,40\n",
        encoding="utf-8",
    )
    (row,) = read_manifest(path)
    assert (row.subject, row.split, row.brain_mask) == ("s1", "train", "")


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scans.csv"
    write_manifest([ROW], path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_manifest([replace(ROW, split="trian")], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": "trian"}, ["trian", "train, val, test"]),
        ({"contrast": "PD"}, ["PD", "T1, T2, FLAIR"]),
        ({"subject": ""}, ["subject is empty"]),
        ({"dataset": ""}, ["dataset is empty"]),
        ({"image": "simulated:x"}, ["simulated:x", "simulated:<index>"]),
        ({"image": "simulated:-1"}, ["simulated:-1", "simulated:<index>"]),
        ({"brain_mask": "/mask.nii.gz"}, ["leave brain_mask empty"]),
        ({"lesion_mask": "insert:stroke:1"}, ["insert:stroke:1", "tumour, ms, real-shape"]),
        ({"lesion_mask": "insert:ms"}, ["insert:<kind>:<seed>"]),
        ({"image": "/nowhere/t1.nii.gz"}, ["/nowhere/t1.nii.gz", "does not exist", "correct it"]),
    ],
)
def test_one_bad_row(change: dict[str, str], told: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_rows([replace(ROW, **change)], source="scans.csv")
    message = str(caught.value)
    assert message.startswith("scans.csv: ")
    assert all(part in message for part in told), message


def test_subject_in_two_splits_is_refused_and_copies_in_one_split_are_not() -> None:
    copy = replace(ROW, dataset="simulated-t2-healthy", lesion_mask="")
    check_rows([ROW, copy])
    with pytest.raises(InputError, match=r"subject s1 is in the splits test and train; keep all scans"):
        check_rows([ROW, replace(copy, split="train")])


def test_repeated_scan_is_refused() -> None:
    with pytest.raises(InputError, match="simulated-t2-tumour/s1: listed 2 times"):
        check_rows([ROW, ROW])


def test_all_problems_come_in_one_message() -> None:
    rows = [replace(ROW, subject=f"s{n}", split="no") for n in range(14)]
    with pytest.raises(InputError) as caught:
        check_rows(rows)
    assert str(caught.value).count("unknown split") == 10
    assert "and 4 more" in str(caught.value)


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_column(tmp_path: Path, column: str) -> None:
    path = tmp_path / "scans.csv"
    kept = [name for name in COLUMNS if name != column]
    path.write_text(",".join(kept) + "\n" + ",".join("x" for _ in kept) + "\n")
    with pytest.raises(InputError, match=rf"scans.csv: missing column\(s\) {column}; the columns are"):
        read_manifest(path)


def test_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.csv: no such manifest"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(InputError, match=r"empty.csv: no rows"):
        read_manifest(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\x1f\x8b\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary.csv: not a readable text file"):
        read_manifest(tmp_path / "binary.csv")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/a.nii", "a\n.nii"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "scans.csv"
    path.write_text(",".join(COLUMNS) + f'\ns1,"{name}",,,test,mine,T2\n')
    with pytest.raises(InputError, match=r"mine/s1: image file (?s:.)*(does not exist|cannot be read)"):
        read_manifest(path)
